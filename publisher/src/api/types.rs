//! The JSON documents of the API, which are those of `publisherctl -o json` too.
//!
//! Times are RFC 3339 in UTC, durations are whole seconds, counters are integers. Fields may be
//! added within one schema version; none is removed or changes its meaning.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::model::{HostAddress, PortRange, Protocol, Published, SourceMode, Target, timestamp};

/// A publication and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicationView {
    /// Its number.
    pub id: u32,
    /// The host's side: addresses that answer, `::` for all of them.
    pub host: HostAddress,
    /// The host's side: ports.
    pub ports: PortRange,
    /// The protocol.
    pub protocol: Protocol,
    /// The container's address.
    pub target: Ipv4Addr,
    /// The container's ports.
    pub target_ports: PortRange,
    /// The source that the container sees.
    pub source: SourceView,
    /// The way that packets take into the container.
    pub path: Path,
    /// Why it isn't a better one.
    pub path_reason: Option<String>,
    /// The container link: a bridge or a veth.
    pub link: Option<String>,
    /// The host side of the container's veth, where it is known.
    pub veth: Option<String>,
    /// Sessions, half-open ones included.
    pub sessions: u64,
    /// What its owner should know, one line each.
    pub warnings: Vec<String>,
    /// When it was added.
    #[serde(with = "timestamp")]
    pub created: SystemTime,
}

impl PublicationView {
    /// The host's side.
    pub fn published(&self) -> Published {
        Published { host: self.host.clone(), ports: self.ports, protocol: self.protocol }
    }

    /// `172.17.0.2:80`.
    pub fn target_text(&self) -> String {
        Target::new(self.target, self.target_ports)
            .map_or_else(|_| self.target.to_string(), |target| target.to_string())
    }
}

/// `8080/tcp -> 172.17.0.2:80`.
impl fmt::Display for PublicationView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.published(), self.target_text())
    }
}

/// The source that a publication's container sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceView {
    /// What was asked for.
    pub requested: SourceMode,
    /// What is used; none while the target isn't resolved.
    pub used: Option<Source>,
    /// Why this one is used.
    pub reason: Option<String>,
}

/// A source in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// An address of the alias pool for each client.
    Alias,
    /// The container link's own address.
    Gateway,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Alias => "alias",
            Self::Gateway => "gateway",
        })
    }
}

/// The way into the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// Through the veth straight into the container's namespace (`bpf_redirect_peer`).
    Peer,
    /// By way of the container link and its neighbour table (`bpf_redirect_neigh`).
    Neigh,
    /// None: the target can't be reached now.
    Down,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Peer => "peer",
            Self::Neigh => "neigh",
            Self::Down => "down",
        })
    }
}

/// What `add` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// The publication.
    pub publication: PublicationView,
    /// It was there before, the same in every point.
    pub already: bool,
    /// What its owner should know, one line each.
    pub warnings: Vec<String>,
}

/// One translated flow.
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
    /// The publication's id.
    pub publication: u32,
    /// The interface that the client comes in on.
    pub uplink: String,
    /// The container link.
    pub link: String,
    /// Packets from the client.
    pub packets_in: u64,
    /// Bytes from the client, IP headers included.
    pub bytes_in: u64,
    /// Packets to the client.
    pub packets_out: u64,
    /// Bytes to the client, IP headers included.
    pub bytes_out: u64,
    /// Seconds since its first packet.
    pub age_seconds: u64,
    /// Seconds since its last packet.
    pub idle_seconds: u64,
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
    /// The client's port, where a single session is meant.
    pub client_port: Option<u16>,
    /// The interface of a link-local client.
    pub scope: Option<String>,
    /// When the client was given the alias, where it is known.
    #[serde(with = "optional_time")]
    pub since: Option<SystemTime>,
    /// Sessions it has now; 0 if the alias is only kept for it.
    pub sessions: u64,
}

/// The daemon's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// The daemon's version.
    pub version: String,
    /// The version of the map layout.
    pub layout: u32,
    /// The daemon's process id.
    pub pid: u32,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// Interfaces where clients arrive.
    pub uplinks: Vec<UplinkView>,
    /// Interfaces that targets are reached through.
    pub links: Vec<LinkView>,
    /// Where aliases come from, for instance `198.18.0.0/15`.
    pub alias_pool: String,
    /// How many publications there are.
    pub publications: u64,
    /// How full the maps are.
    pub tables: Vec<TableView>,
    /// What the running kernel offers.
    pub features: Vec<FeatureView>,
    /// The loaded programs.
    pub programs: Vec<ProgramView>,
    /// What the host's owner should know, one line each.
    pub warnings: Vec<String>,
}

/// An uplink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkView {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// How the programs are attached.
    pub attach: Attach,
    /// Whether its frames have Ethernet headers.
    pub ethernet: bool,
}

/// A container link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// How the programs are attached.
    pub attach: Attach,
}

/// How a program hangs on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attach {
    /// By a tcx link.
    Tcx,
    /// As a filter of a clsact qdisc.
    Clsact,
}

impl fmt::Display for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

/// What a container link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// The host side of a veth pair.
    Veth,
    /// A bridge.
    Bridge,
    /// Anything else.
    Other,
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Veth => "veth",
            Self::Bridge => "bridge",
            Self::Other => "other",
        })
    }
}

/// How full a map is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableView {
    /// Its name.
    pub name: String,
    /// Entries in it.
    pub used: u64,
    /// Entries it can hold.
    pub capacity: u64,
}

/// A feature of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureView {
    /// Its name.
    pub name: String,
    /// Whether the running kernel has it.
    pub available: bool,
    /// What follows from that.
    pub means: String,
}

/// A loaded program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramView {
    /// Its name.
    pub name: String,
    /// Instructions that the verifier looked at; 0 where the kernel doesn't say.
    pub verified_instructions: u64,
    /// Nanoseconds spent in it in all; 0 while `kernel.bpf_stats_enabled` is off.
    pub run_ns: u64,
    /// How often it ran; 0 while `kernel.bpf_stats_enabled` is off.
    pub run_count: u64,
}

/// Packets that were dropped for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropView {
    /// The reason's name.
    pub reason: String,
    /// How many packets.
    pub count: u64,
    /// What the reason means.
    pub meaning: String,
}

/// RFC 3339, or null.
mod optional_time {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::timestamp;

    pub fn serialize<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => to.serialize_some(&timestamp::format(*time)),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SystemTime>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        match timestamp::parse(&text) {
            Some(time) => Ok(Some(time)),
            None => Err(serde::de::Error::custom("not an RFC 3339 time in UTC")),
        }
    }
}
