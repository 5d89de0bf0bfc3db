//! Publications, as `add`, `rm` and `ls` show them.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::model::{
    Access, HostAddress, Limits, PathMode, PortRange, Protocol, ProxyProtocol, Published,
    SourceMode, Target, timestamp,
};

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
    /// Who may connect.
    #[serde(default)]
    pub access: Access,
    /// How many sessions there may be.
    #[serde(default)]
    pub limits: Limits,
    /// The way that was asked for.
    #[serde(default)]
    pub path_requested: PathMode,
    /// The version of the PROXY protocol that the container is spoken to in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The way that packets take into the container, when their clients come in on an uplink.
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
    /// Through the socket proxy.
    Proxy,
    /// None: the target can't be reached now.
    Down,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Peer => "peer",
            Self::Neigh => "neigh",
            Self::Proxy => "proxy",
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
    /// It was there before, for other clients or within other limits, which are these now. Its sessions
    /// go on.
    #[serde(default)]
    pub updated: bool,
    /// What its owner should know, one line each.
    pub warnings: Vec<String>,
}
