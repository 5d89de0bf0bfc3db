//! The session log, as `events` shows it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::session::SessionPath;
use crate::model::{Protocol, timestamp};

/// Something that happened to a session, or to the log itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// When.
    #[serde(with = "timestamp")]
    pub time: SystemTime,
    /// What.
    pub event: EventKind,
    /// The session; none for [`EventKind::Lost`].
    #[serde(flatten)]
    pub session: Option<EventSession>,
    /// Why it ended; only for [`EventKind::Closed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<CloseReason>,
    /// How many events are missing; only for [`EventKind::Lost`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl EventView {
    /// So many events found no room, or were too fast for their reader.
    #[must_use]
    pub fn lost(count: u64) -> Self {
        Self {
            time: timestamp::now(),
            event: EventKind::Lost,
            session: None,
            reason: None,
            count: Some(count),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// The session was established.
    Opened,
    /// It was over, and goes on all the same: a packet came after its end.
    Resumed,
    /// It ended.
    Closed,
    /// Events are missing here.
    Lost,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Opened => "opened",
            Self::Resumed => "resumed",
            Self::Closed => "closed",
            Self::Lost => "lost",
        })
    }
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// Both sides have sent a FIN.
    Fin,
    /// One side has sent a RST.
    Rst,
    /// It was idle for too long.
    Idle,
    /// Its publication was removed with its sessions.
    Killed,
    /// Its publication was removed.
    Removed,
    /// Its client was banned.
    Denied,
    /// Its container is gone, or has moved.
    TargetGone,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fin => "fin",
            Self::Rst => "rst",
            Self::Idle => "idle",
            Self::Killed => "killed",
            Self::Removed => "removed",
            Self::Denied => "denied",
            Self::TargetGone => "target_gone",
        })
    }
}

/// The session of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSession {
    /// The protocol.
    pub protocol: Protocol,
    /// The client's address.
    pub client: Ipv6Addr,
    /// The client's port.
    pub client_port: u16,
    /// The interface of a link-local client.
    pub scope: Option<String>,
    /// The host address that the client asked.
    pub host: Ipv6Addr,
    /// The published port.
    pub host_port: u16,
    /// The source address that the container sees.
    pub alias: Ipv4Addr,
    /// The source port that the container sees.
    pub alias_port: u16,
    /// The container's address.
    pub target: Ipv4Addr,
    /// The container's port.
    pub target_port: u16,
    /// The publication's id.
    pub publication: u32,
    /// The way that its packets take.
    #[serde(default)]
    pub path: SessionPath,
    /// The interface that the client comes in on; empty for the proxy's.
    pub uplink: String,
    /// Packets from the client; 0 for the proxy's TCP.
    pub packets_in: u64,
    /// Bytes from the client, IP headers included; of the proxy's, what was sent in them.
    pub bytes_in: u64,
    /// Packets to the client; 0 for the proxy's TCP.
    pub packets_out: u64,
    /// Bytes to the client, IP headers included; of the proxy's, what was sent in them.
    pub bytes_out: u64,
    /// Seconds since its first packet.
    pub duration_seconds: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_has_a_count_and_no_session() {
        let lost = EventView::lost(7);
        let text = serde_json::to_string(&lost).unwrap();
        assert!(text.ends_with(r#","event":"lost","count":7}"#), "{text}");
        assert_eq!(serde_json::from_str::<EventView>(&text).unwrap(), lost);
    }
}
