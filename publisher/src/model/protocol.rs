//! The two small words of a publication: its protocol, and the source that the container is shown.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::{SpecError, quoted};

/// A protocol that is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Protocol {
    /// TCP, protocol number 6.
    Tcp,
    /// UDP, protocol number 17.
    Udp,
}

impl Protocol {
    /// The protocol's number in an IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// The protocol's name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<Protocol> for &'static str {
    fn from(protocol: Protocol) -> Self {
        protocol.name()
    }
}

impl FromStr for Protocol {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            other @ ("sctp" | "dccp" | "udplite" | "icmp" | "icmpv6") => {
                Err(SpecError::UnsupportedProtocol(other.to_owned()))
            }
            _ => Err(SpecError::BadProtocol(quoted(text))),
        }
    }
}

impl TryFrom<String> for Protocol {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

/// Which IPv4 source the container is to see, as asked for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "&'static str")]
pub enum SourceMode {
    /// An alias, unless the container's route to the alias pool leads elsewhere.
    #[default]
    Auto,
    /// An address of the alias pool, one for each client.
    Alias,
    /// The container link's own address, with ports of the gateway range.
    Gateway,
}

impl SourceMode {
    /// The word of the command line and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Alias => "alias",
            Self::Gateway => "gateway",
        }
    }
}

impl fmt::Display for SourceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<SourceMode> for &'static str {
    fn from(mode: SourceMode) -> Self {
        mode.name()
    }
}

impl FromStr for SourceMode {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match text {
            "auto" => Ok(Self::Auto),
            "alias" => Ok(Self::Alias),
            "gateway" => Ok(Self::Gateway),
            _ => Err(SpecError::BadSource(quoted(text))),
        }
    }
}

impl TryFrom<String> for SourceMode {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols() {
        assert_eq!("tcp".parse(), Ok(Protocol::Tcp));
        assert_eq!("UDP".parse(), Ok(Protocol::Udp));
        assert_eq!(Protocol::Tcp.number(), 6);
        assert_eq!(Protocol::Udp.number(), 17);
        assert_eq!(
            "sctp".parse::<Protocol>().unwrap_err().to_string(),
            "protocol sctp is not supported: only tcp and udp are published"
        );
        assert_eq!(
            "tpc".parse::<Protocol>().unwrap_err().to_string(),
            "'tpc' is not a protocol: use tcp or udp"
        );
    }

    #[test]
    fn sources() {
        for mode in [SourceMode::Auto, SourceMode::Alias, SourceMode::Gateway] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("Alias".parse::<SourceMode>().is_err());
    }
}
