//! The host's side of a publication: every address, or one.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::{SpecError, quoted};

/// The host addresses that a publication answers on.
///
/// In JSON and on the command line (there in brackets): `::`, `2001:db8::1`, `fe80::1%eth0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostAddress {
    /// Every address of the host, those that come later too.
    #[default]
    Any,
    /// One address of the host. It wins over [`Any`](Self::Any) for the same port.
    One {
        /// A unicast IPv6 address, never `::`, multicast or IPv4-mapped.
        address: Ipv6Addr,
        /// The interface's name: given if, and only if, the address is link-local.
        scope: Option<String>,
    },
}

impl HostAddress {
    /// The host address `address`, on interface `scope` if it is link-local. `::` is [`Any`](Self::Any).
    ///
    /// # Errors
    ///
    /// A multicast or IPv4-mapped address, a link-local one without an interface, another one with
    /// an interface, and what can't be an interface's name.
    pub fn new(address: Ipv6Addr, scope: Option<&str>) -> Result<Self, SpecError> {
        if let Some(ipv4) = address.to_ipv4_mapped() {
            return Err(SpecError::HostIsIpv4(ipv4));
        }
        if address.is_multicast() {
            return Err(SpecError::HostIsMulticast(address));
        }
        match (address.is_unicast_link_local(), scope) {
            (true, None) => Err(SpecError::HostNeedsInterface(address)),
            (false, Some(_)) => Err(SpecError::HostTakesNoInterface(address)),
            (true, Some(scope)) => {
                Ok(Self::One { address, scope: Some(interface_name(scope)?.to_owned()) })
            }
            (false, None) if address.is_unspecified() => Ok(Self::Any),
            (false, None) => Ok(Self::One { address, scope: None }),
        }
    }

    /// The address: `::` for [`Any`](Self::Any).
    pub const fn address(&self) -> Ipv6Addr {
        match self {
            Self::Any => Ipv6Addr::UNSPECIFIED,
            Self::One { address, .. } => *address,
        }
    }

    /// The interface of a link-local address.
    pub fn scope(&self) -> Option<&str> {
        match self {
            Self::Any => None,
            Self::One { scope, .. } => scope.as_deref(),
        }
    }
}

/// Checks the rules of the kernel's `dev_valid_name`: 1 to 15 bytes, no `/`, `:` or white space,
/// neither `.` nor `..`. Stricter in one point: printable ASCII only, so that a name can be shown.
pub(crate) fn interface_name(name: &str) -> Result<&str, SpecError> {
    let fits = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b']'));
    if fits { Ok(name) } else { Err(SpecError::BadInterface(quoted(name))) }
}

/// Without brackets.
impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("::"),
            Self::One { address, scope: None } => write!(f, "{address}"),
            Self::One { address, scope: Some(scope) } => write!(f, "{address}%{scope}"),
        }
    }
}

/// Without brackets.
impl FromStr for HostAddress {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (address, scope) = match text.split_once('%') {
            Some((address, scope)) => (address, Some(scope)),
            None => (text, None),
        };
        match address.parse::<Ipv6Addr>() {
            Ok(address) => Self::new(address, scope),
            Err(_) => Err(match address.parse::<Ipv4Addr>() {
                Ok(ipv4) => SpecError::HostIsIpv4(ipv4),
                Err(_) => SpecError::BadHost(quoted(text)),
            }),
        }
    }
}

impl TryFrom<String> for HostAddress {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

impl From<HostAddress> for String {
    fn from(host: HostAddress) -> Self {
        host.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        text.parse::<HostAddress>().unwrap_err().to_string()
    }

    #[test]
    fn accepted() {
        assert_eq!("::".parse(), Ok(HostAddress::Any));
        assert_eq!("0:0::0".parse(), Ok(HostAddress::Any));
        for text in ["::1", "2001:db8::1", "fe80::1%eth0", "fe80::1%br-0123456789a"] {
            assert_eq!(text.parse::<HostAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refused_each_for_its_own_reason() {
        assert!(refused("127.0.0.1").contains("is IPv4"));
        assert!(refused("::ffff:127.0.0.1").contains("127.0.0.1 is IPv4"));
        assert!(refused("ff02::1").contains("multicast"));
        assert!(refused("fe80::1").contains("needs an interface"));
        assert!(refused("2001:db8::1%eth0").contains("takes no interface"));
        assert!(refused("::%eth0").contains("takes no interface"));
        for name in ["", ".", "..", "a/b", "a b", "a:b", "a]b", "sixteen-bytes-xx", "é"] {
            assert!(refused(&format!("fe80::1%{name}")).contains("interface name"), "{name}");
        }
        assert_eq!(refused("localhost"), "host address 'localhost' is not an IPv6 address");
        assert_eq!(refused(""), "host address '' is not an IPv6 address");
    }
}
