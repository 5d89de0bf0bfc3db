//! What is published, and where to: `[HOST_ADDR:]PORT[-PORT][/PROTO]` and `TARGET_IP:PORT[-PORT]`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::{SpecError, quoted};
use super::{
    Access, HostAddress, Limits, PathMode, PortRange, Protocol, ProxyProtocol, SourceMode,
};

/// The host's side: what a client addresses, and what `rm` names. `8080/tcp`, `[2001:db8::1]:53/udp`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// The addresses that answer.
    #[serde(default)]
    pub host: HostAddress,
    /// The ports that answer.
    pub ports: PortRange,
    /// Their protocol.
    pub protocol: Protocol,
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, ports, protocol } = self;
        if *host != HostAddress::Any {
            write!(f, "[{host}]:")?;
        }
        write!(f, "{ports}/{protocol}")
    }
}

impl FromStr for Published {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (host, rest) = match text.strip_prefix('[') {
            Some(inside) => match inside.split_once("]:") {
                Some((host, rest)) => (host.parse()?, rest),
                None => return Err(SpecError::BadHost(quoted(text))),
            },
            None => match text.rsplit_once(':') {
                Some((host, _)) => return Err(without_brackets(host, text)),
                None => (HostAddress::Any, text),
            },
        };
        let (ports, protocol) = match rest.split_once('/') {
            Some((ports, protocol)) => (ports.parse()?, protocol.parse()?),
            None => (rest.parse()?, Protocol::Tcp),
        };
        Ok(Self { host, ports, protocol })
    }
}

/// Why `host`, written without brackets before a port, isn't a host address.
fn without_brackets(host: &str, whole: &str) -> SpecError {
    if let Ok(ipv4) = host.parse::<Ipv4Addr>() {
        return SpecError::HostIsIpv4(ipv4);
    }
    let address = host.split('%').next().unwrap_or(host);
    if address.parse::<Ipv6Addr>().is_ok() || whole.parse::<Ipv6Addr>().is_ok() {
        return SpecError::HostWithoutBrackets(quoted(whole));
    }
    SpecError::BadHost(quoted(host))
}

/// The container's side: `172.17.0.2:80`, `172.17.0.2:80-90`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    address: Ipv4Addr,
    ports: PortRange,
}

impl Target {
    /// A target at `address`.
    ///
    /// # Errors
    ///
    /// [`SpecError::TargetNotUnicast`] for what no container can have: 0.0.0.0/8, 127.0.0.0/8,
    /// multicast and the limited broadcast address.
    pub fn new(address: Ipv4Addr, ports: PortRange) -> Result<Self, SpecError> {
        let what = if address.is_unspecified() {
            "unspecified"
        } else if address.octets()[0] == 0 {
            "in 0.0.0.0/8"
        } else if address.is_loopback() {
            "loopback"
        } else if address.is_multicast() {
            "multicast"
        } else if address.is_broadcast() {
            "broadcast"
        } else {
            return Ok(Self { address, ports });
        };
        Err(SpecError::TargetNotUnicast { address, what })
    }

    /// The container's address.
    pub const fn address(self) -> Ipv4Addr {
        self.address
    }

    /// The container's ports.
    pub const fn ports(self) -> PortRange {
        self.ports
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.address, self.ports)
    }
}

impl FromStr for Target {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        if text.starts_with('[') || text.parse::<Ipv6Addr>().is_ok() {
            return Err(SpecError::TargetIsIpv6(quoted(text)));
        }
        let Some((address, ports)) = text.rsplit_once(':') else {
            return Err(match text.parse::<Ipv4Addr>() {
                Ok(_) => SpecError::TargetWithoutPort(quoted(text)),
                Err(_) => SpecError::BadTarget(quoted(text)),
            });
        };
        let Ok(parsed) = address.parse::<Ipv4Addr>() else {
            return Err(match address.parse::<Ipv6Addr>() {
                Ok(_) => SpecError::TargetIsIpv6(quoted(text)),
                Err(_) => SpecError::BadTarget(quoted(address)),
            });
        };
        Self::new(parsed, ports.parse()?)
    }
}

/// All that `add` says: what is published, to which target, with which source, and for whom.
///
/// The published and the target range have the same length: the n-th port leads to the n-th.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawSpec", into = "RawSpec")]
pub struct PublicationSpec {
    published: Published,
    target: Target,
    source: SourceMode,
    access: Access,
    limits: Limits,
    path: PathMode,
    proxy_protocol: Option<ProxyProtocol>,
}

impl PublicationSpec {
    /// Publishes `published` to `target`, for everybody and without limits.
    ///
    /// # Errors
    ///
    /// [`SpecError::UnequalRanges`].
    pub fn new(
        published: Published,
        target: Target,
        source: SourceMode,
    ) -> Result<Self, SpecError> {
        if published.ports.len() != target.ports.len() {
            return Err(SpecError::UnequalRanges {
                published: published.to_string(),
                published_len: published.ports.len(),
                target: target.ports.to_string(),
                target_len: target.ports.len(),
            });
        }
        let (access, limits) = (Access::default(), Limits::default());
        let (path, proxy_protocol) = (PathMode::Auto, None);
        Ok(Self { published, target, source, access, limits, path, proxy_protocol })
    }

    /// The same for those whom `access` lets in, within `limits`.
    #[must_use]
    pub fn guarded(self, access: Access, limits: Limits) -> Self {
        Self { access, limits, ..self }
    }

    /// The same by way of `path`, with the PROXY protocol or without.
    ///
    /// # Errors
    ///
    /// [`SpecError::ProxyProtocolInKernel`].
    pub fn by_way_of(
        self,
        path: PathMode,
        proxy_protocol: Option<ProxyProtocol>,
    ) -> Result<Self, SpecError> {
        if path == PathMode::Kernel && proxy_protocol.is_some() {
            return Err(SpecError::ProxyProtocolInKernel);
        }
        Ok(Self { path, proxy_protocol, ..self })
    }

    /// The host's side: address, ports and protocol.
    pub const fn published(&self) -> &Published {
        &self.published
    }

    /// The addresses that answer.
    pub const fn host(&self) -> &HostAddress {
        &self.published.host
    }

    /// The published ports.
    pub const fn ports(&self) -> PortRange {
        self.published.ports
    }

    /// The protocol.
    pub const fn protocol(&self) -> Protocol {
        self.published.protocol
    }

    /// The container's address.
    pub const fn target(&self) -> Ipv4Addr {
        self.target.address
    }

    /// The container's ports, as many as [`ports`](Self::ports).
    pub const fn target_ports(&self) -> PortRange {
        self.target.ports
    }

    /// Address and ports of the container.
    pub const fn target_endpoint(&self) -> Target {
        self.target
    }

    /// The source that was asked for.
    pub const fn source(&self) -> SourceMode {
        self.source
    }

    /// Who may connect.
    pub const fn access(&self) -> &Access {
        &self.access
    }

    /// How many sessions there may be.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// The way that packets are to take.
    pub const fn path(&self) -> PathMode {
        self.path
    }

    /// How the container is told who the client is, if it is.
    pub const fn proxy_protocol(&self) -> Option<ProxyProtocol> {
        self.proxy_protocol
    }

    /// Whether `other` publishes the same, if perhaps for others or by another way.
    pub fn differs_in_guards_only(&self, other: &Self) -> bool {
        let Self { published, target, source, access: _, limits: _, path: _, proxy_protocol: _ } =
            self;
        (published, target, source) == (&other.published, &other.target, &other.source)
    }

    /// The container's port that the published port `port` leads to; `None` if it isn't published here.
    pub const fn target_port(&self, port: u16) -> Option<u16> {
        if self.published.ports.contains(port) {
            // Can't overflow: the ranges have the same length.
            Some(self.target.ports.first() + (port - self.published.ports.first()))
        } else {
            None
        }
    }
}

/// `8080/tcp -> 172.17.0.2:80`.
impl fmt::Display for PublicationSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.published, self.target)
    }
}

/// The flat JSON form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpec {
    #[serde(default)]
    host: HostAddress,
    ports: PortRange,
    protocol: Protocol,
    target: Ipv4Addr,
    target_ports: PortRange,
    #[serde(default)]
    source: SourceMode,
    #[serde(default, skip_serializing_if = "Access::is_open")]
    access: Access,
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    limits: Limits,
    #[serde(default, skip_serializing_if = "PathMode::is_auto")]
    path: PathMode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proxy_protocol: Option<ProxyProtocol>,
}

impl TryFrom<RawSpec> for PublicationSpec {
    type Error = SpecError;

    fn try_from(raw: RawSpec) -> Result<Self, SpecError> {
        let published = Published { host: raw.host, ports: raw.ports, protocol: raw.protocol };
        let target = Target::new(raw.target, raw.target_ports)?;
        let spec = Self::new(published, target, raw.source)?.guarded(raw.access, raw.limits);
        spec.by_way_of(raw.path, raw.proxy_protocol)
    }
}

impl From<PublicationSpec> for RawSpec {
    fn from(spec: PublicationSpec) -> Self {
        let PublicationSpec { published, target, source, access, limits, path, proxy_protocol } =
            spec;
        let Published { host, ports, protocol } = published;
        Self {
            host,
            ports,
            protocol,
            target: target.address,
            target_ports: target.ports,
            source,
            access,
            limits,
            path,
            proxy_protocol,
        }
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
