//! Sessions and the clients behind them, as `sessions` and `whois` show them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::model::{Protocol, timestamp};

/// One translated flow, or one that the proxy passes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
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
    /// How far the session has come.
    pub state: SessionState,
    /// The way that its packets take.
    #[serde(default)]
    pub path: SessionPath,
    /// The publication's id.
    pub publication: u32,
    /// The interface that the client comes in on; empty for the proxy's.
    pub uplink: String,
    /// The container link; empty for the proxy's.
    pub link: String,
    /// Packets from the client; 0 for the proxy's TCP.
    pub packets_in: u64,
    /// Bytes from the client, IP headers included; of the proxy's, what was sent in them.
    pub bytes_in: u64,
    /// Packets to the client; 0 for the proxy's TCP.
    pub packets_out: u64,
    /// Bytes to the client, IP headers included; of the proxy's, what was sent in them.
    pub bytes_out: u64,
    /// Seconds since its first packet.
    pub age_seconds: u64,
    /// Seconds since its last packet.
    pub idle_seconds: u64,
}

/// The way that a session's packets take.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum SessionPath {
    /// Translated in the kernel.
    #[default]
    Kernel,
    /// Through the socket proxy.
    Proxy,
}

impl fmt::Display for SessionPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kernel => "kernel",
            Self::Proxy => "proxy",
        })
    }
}

/// The sessions that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsFound {
    /// As many as the limit lets through.
    pub sessions: Vec<SessionView>,
    /// How many more there are.
    #[serde(default)]
    pub left_out: u64,
}

/// A session's state, by the state machine of RFC 6146 §3.5.2.2; UDP knows the first two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SessionState {
    /// The client hasn't shown yet that it gets the replies.
    #[serde(rename = "half-open")]
    HalfOpen,
    /// Packets go both ways.
    #[serde(rename = "established")]
    Established,
    /// The client has sent its FIN.
    #[serde(rename = "v6-fin")]
    V6Fin,
    /// The container has sent its FIN.
    #[serde(rename = "v4-fin")]
    V4Fin,
    /// Both have.
    #[serde(rename = "closing")]
    Closing,
    /// After a RST, or idle for too long: the next packet decides.
    #[serde(rename = "trans")]
    Trans,
}

impl SessionState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::HalfOpen, Self::Established, Self::V6Fin, Self::V4Fin, Self::Closing, Self::Trans];

    /// The word of the API and the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HalfOpen => "half-open",
            Self::Established => "established",
            Self::V6Fin => "v6-fin",
            Self::V4Fin => "v4-fin",
            Self::Closing => "closing",
            Self::Trans => "trans",
        }
    }
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SessionState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|state| state.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{} is not a session state: use one of {names}", crate::model::quoted(text))
        })
    }
}

/// A client behind an alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoisView {
    /// The address that the container sees.
    pub alias: Ipv4Addr,
    /// The port that was asked for.
    pub port: Option<u16>,
    /// The client's address.
    pub client: Ipv6Addr,
    /// 64 where the alias stands for all clients of that prefix; `client` is its first address then.
    #[serde(default)]
    pub prefix_length: Option<u8>,
    /// The client's port, where a single session is meant.
    pub client_port: Option<u16>,
    /// The interface of a link-local client.
    pub scope: Option<String>,
    /// When the client was given the alias, where it is known.
    #[serde(with = "timestamp::optional")]
    pub since: Option<SystemTime>,
    /// When its last session ended, where it has none now.
    #[serde(default, with = "timestamp::optional")]
    pub ended: Option<SystemTime>,
    /// Sessions it has now; 0 if the alias is only kept for it.
    pub sessions: u64,
}
