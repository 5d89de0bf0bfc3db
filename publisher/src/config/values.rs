//! Single values of the configuration: their forms and their bounds.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Timers;
use crate::model::{PortRange, SpecError, interface_name, quoted};

/// A network that aliases are taken from: unicast, /8 to /29, without host bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AliasPool(Ipv4Net);

impl AliasPool {
    /// The network.
    pub const fn net(self) -> Ipv4Net {
        self.0
    }
}

impl fmt::Display for AliasPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for AliasPool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Ok(net) = text.parse::<Ipv4Net>() else {
            return Err(format!(
                "alias pool {} is not an IPv4 network: write it as 198.18.0.0/15",
                quoted(text)
            ));
        };
        if net.trunc() != net {
            return Err(format!("alias pool {net} has host bits: did you mean {}?", net.trunc()));
        }
        if !(8..=29).contains(&net.prefix_len()) {
            return Err(format!("alias pool {net} must be a /8 to a /29"));
        }
        // A pool of at most a /8 can only lie in one of these whole, or not at all.
        let first: Ipv4Addr = net.network();
        let reserved = match first.octets()[0] {
            0 => "0.0.0.0/8",
            127 => "the loopback network",
            224.. => "multicast and reserved addresses",
            _ => return Ok(Self(net)),
        };
        Err(format!("alias pool {net} lies in {reserved}: containers couldn't answer it"))
    }
}

impl From<AliasPool> for String {
    fn from(pool: AliasPool) -> Self {
        pool.to_string()
    }
}

impl From<Ipv4Net> for AliasPool {
    /// A pool that was checked before.
    fn from(net: Ipv4Net) -> Self {
        Self(net)
    }
}

impl TryFrom<String> for AliasPool {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Whom an alias stands for. In the file: 128 or 64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub enum AliasPrefix {
    /// One client.
    #[default]
    Client,
    /// All clients of a /64.
    Network,
}

impl TryFrom<i64> for AliasPrefix {
    type Error = String;

    fn try_from(bits: i64) -> Result<Self, String> {
        match bits {
            128 => Ok(Self::Client),
            64 => Ok(Self::Network),
            _ => Err(format!(
                "an alias can't stand for a /{bits}: write 128 for a client, or 64 for its network"
            )),
        }
    }
}

impl From<AliasPrefix> for i64 {
    fn from(prefix: AliasPrefix) -> Self {
        match prefix {
            AliasPrefix::Client => 128,
            AliasPrefix::Network => 64,
        }
    }
}

/// A name that an interface can have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for InterfaceName {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        Ok(Self(interface_name(text)?.to_owned()))
    }
}

impl From<InterfaceName> for String {
    fn from(InterfaceName(name): InterfaceName) -> Self {
        name
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

/// A path that doesn't depend on where the daemon was started.
pub(super) fn absolute_path<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(from)?;
    if path.is_absolute() {
        Ok(path)
    } else {
        let path = quoted(&path.to_string_lossy());
        Err(D::Error::custom(format_args!("{path} must be an absolute path")))
    }
}

pub(super) fn port_range<'de, D: Deserializer<'de>>(from: D) -> Result<PortRange, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

/// A whole number from `least` to `most`.
fn bounded<'de, D: Deserializer<'de>>(
    from: D,
    least: u32,
    most: u32,
    unit: &str,
) -> Result<u32, D::Error> {
    let value = i64::deserialize(from)?;
    u32::try_from(value).ok().filter(|value| (least..=most).contains(value)).ok_or_else(|| {
        D::Error::custom(format_args!("{value} is out of range: {least} to {most}{unit}"))
    })
}

/// 30 days: what is longer is a mistake of units.
const LONGEST: u32 = 30 * 24 * 3600;

pub(super) fn timer<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    Ok(Duration::from_secs(bounded(from, 1, LONGEST, " seconds")?.into()))
}

/// Timers that are possible together.
pub(super) fn timers<'de, D: Deserializer<'de>>(from: D) -> Result<Timers, D::Error> {
    let timers = Timers::deserialize(from)?;
    let (established, transitory) =
        (timers.tcp_established.as_secs(), timers.tcp_transitory.as_secs());
    if transitory >= established {
        return Err(D::Error::custom(format_args!(
            "tcp_transitory ({transitory} s) must be shorter than tcp_established ({established} s)"
        )));
    }
    Ok(timers)
}

/// As whole seconds.
pub(super) fn seconds<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(time.as_secs())
}

/// As it is written.
pub(super) fn text<S: Serializer>(value: &impl fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

pub(super) fn share<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    bounded(from, 1, 1 << 24, " aliases").map(Some)
}

pub(super) fn per_source<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    bounded(from, 0, 1 << 24, " sessions").map(Some)
}

pub(super) fn drain<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    Ok(Duration::from_secs(bounded(from, 0, LONGEST, " seconds")?.into()))
}

pub(super) fn capacity<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    bounded(from, 16, 1 << 24, " sessions")
}

pub(super) fn optional_path<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<PathBuf>, D::Error> {
    absolute_path(from).map(Some)
}

pub(super) fn log_size<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    bounded(from, 1, 1 << 20, " MiB")
}

pub(super) fn history<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    bounded(from, 0, 1 << 24, " sessions")
}

pub(super) fn mtu_ipv6<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    bounded(from, 1280, 65_535, " bytes").map(Some)
}

pub(super) fn mtu_ipv4<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    bounded(from, 68, 65_535, " bytes").map(Some)
}
