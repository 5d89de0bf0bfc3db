//! Why a publication can't be what was asked for, in one line, with the next thing to try.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

use super::{Access, ClientPrefix};

/// A publication, or a part of one, that was refused.
///
/// The `Display` text is one line without a prefix; [`hint`](Self::hint) is the line that follows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Port 0 stands for "any port" in the socket API and can't be published.
    #[error("port 0 can't be published: ports are 1 to 65535")]
    PortZero,
    /// A number that no port can have.
    #[error("port {0} is out of range: ports are 1 to 65535")]
    PortTooLarge(String),
    /// What stands in the port's place isn't a number.
    #[error("{0} is not a port number")]
    NotAPort(String),
    /// `8010-8000`.
    #[error("port range {first}-{last} runs backwards")]
    ReversedRange {
        /// The first port as it was written.
        first: u16,
        /// The last port as it was written.
        last: u16,
    },
    /// Published and target ranges of different lengths.
    #[error(
        "{published} has {} port{}, but target ports {target} are {}: both ranges must be as long as each other",
        .published_len, if *.published_len == 1 { "" } else { "s" }, .target_len
    )]
    UnequalRanges {
        /// The published ports.
        published: String,
        /// How many they are.
        published_len: u32,
        /// The target's ports.
        target: String,
        /// How many they are.
        target_len: u32,
    },
    /// A protocol that exists and isn't translated.
    #[error("protocol {0} is not supported: only tcp and udp are published")]
    UnsupportedProtocol(String),
    /// Not a way that packets can take.
    #[error("{0} is not a path: use auto, kernel or proxy")]
    BadPath(String),
    /// Not a version of the PROXY protocol that is spoken.
    #[error("{0} is not a version of the PROXY protocol that is spoken: use v2")]
    BadProxyProtocol(String),
    /// The PROXY protocol without a proxy.
    #[error("the PROXY protocol is spoken by the proxy: --path kernel has none")]
    ProxyProtocolInKernel,
    /// Not a protocol's name.
    #[error("{0} is not a protocol: use tcp or udp")]
    BadProtocol(String),
    /// An IPv4 host address: this version publishes IPv6 addresses.
    #[error("host address {0} is IPv4: this version publishes on the host's IPv6 addresses")]
    HostIsIpv4(Ipv4Addr),
    /// `2001:db8::1:8080`: where the address ends can't be told.
    #[error("IPv6 address in {0} is not in brackets")]
    HostWithoutBrackets(String),
    /// A name, or anything else that isn't an address.
    #[error("host address {0} is not an IPv6 address")]
    BadHost(String),
    /// A multicast host address.
    #[error("host address [{0}] is multicast: only an address of the host can be published")]
    HostIsMulticast(Ipv6Addr),
    /// A link-local address names a host only together with an interface.
    #[error("host address [{0}] is link-local: it needs an interface")]
    HostNeedsInterface(Ipv6Addr),
    /// An interface behind an address that isn't link-local.
    #[error("host address [{0}] takes no interface: only link-local addresses do")]
    HostTakesNoInterface(Ipv6Addr),
    /// What stands behind `%` can't name an interface.
    #[error("{0} is not an interface name")]
    BadInterface(String),
    /// `172.17.0.2` without a port, or nothing that looks like a target.
    #[error("target {0} has no port")]
    TargetWithoutPort(String),
    /// An IPv6 target needs no translation.
    #[error("target {0} is IPv6: this publishes IPv4-only containers")]
    TargetIsIpv6(String),
    /// A host name: names can change under a publication.
    #[error("target {0} is not an IPv4 address")]
    BadTarget(String),
    /// An address that no container can have.
    #[error("target {address} is {what}: it can't be a container's address")]
    TargetNotUnicast {
        /// The refused address.
        address: Ipv4Addr,
        /// What kind of address it is.
        what: &'static str,
    },
    /// `--source` (or the API's `source`) with an unknown word.
    #[error("{0} is not a source: use auto, alias or gateway")]
    BadSource(String),
    /// An IPv4 prefix in an access rule.
    #[error("{0} is IPv4: clients are IPv6")]
    ClientIsIpv4(String),
    /// What stands in the place of a client's prefix isn't one.
    #[error("{0} is not an IPv6 prefix")]
    BadClient(String),
    /// `2001:db8::5/64`: one client, or its whole network?
    #[error("{written} has host bits")]
    ClientHasHostBits {
        /// The prefix as it was written.
        written: Ipv6Net,
        /// The same without them.
        meant: Ipv6Net,
    },
    /// A prefix that is to be let in and kept out.
    #[error("{0} is both allowed and denied")]
    AllowedAndDenied(ClientPrefix),
    /// How long a ban is to hold.
    #[error("{0} is not a time to deny for")]
    BadBanTime(String),
    /// More rules than a publication can have.
    #[error("{0} access rules are too many: a publication can have {most}", most = Access::MOST)]
    TooManyRules(usize),
}

impl SpecError {
    /// What to try next, if there is something better than reading the message again.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::PortZero | Self::PortTooLarge(_) | Self::NotAPort(_) => {
                "write [HOST_ADDR:]PORT[-PORT][/PROTO], for instance 8080 or [2001:db8::1]:8080/udp"
                    .into()
            }
            Self::ReversedRange { first, last } => format!("did you mean {last}-{first}?"),
            Self::UnequalRanges { published_len, .. } => {
                format!("give the target {published_len} port{}", if *published_len == 1 { "" } else { "s" })
            }
            Self::UnsupportedProtocol(_) | Self::BadProtocol(_) => {
                "write 8080/tcp or 8080/udp".into()
            }
            Self::BadPath(_) => return None,
            Self::BadProxyProtocol(_) => "leave it out where the container doesn't speak it".into(),
            Self::ProxyProtocolInKernel => "leave --path out, or give --path proxy".into(),
            Self::HostIsIpv4(_) => {
                "leave the address out to publish on every IPv6 address, or write [ADDRESS]:PORT".into()
            }
            Self::HostWithoutBrackets(_) => "write it as [2001:db8::1]:8080".into(),
            Self::BadHost(_) | Self::HostIsMulticast(_) => {
                "leave the address out to publish on every address of the host, or write [2001:db8::1]:8080"
                    .into()
            }
            Self::HostNeedsInterface(address) => format!("write it as [{address}%INTERFACE]:8080"),
            Self::HostTakesNoInterface(address) => format!("write it as [{address}]:8080"),
            Self::BadInterface(_) => "`ip link` lists the interfaces".into(),
            Self::TargetWithoutPort(_) => "write it as 172.17.0.2:80".into(),
            Self::TargetIsIpv6(_) => {
                "give the container's IPv4 address; an IPv6 container is reached by routing".into()
            }
            Self::BadTarget(_) | Self::TargetNotUnicast { .. } => {
                "give the container's own IPv4 address, for instance 172.17.0.2:80".into()
            }
            Self::ClientIsIpv4(_) => {
                "only IPv6 clients come this way: IPv4 clients never meet this rule".into()
            }
            Self::BadClient(_) => "write 2001:db8::/64, or 2001:db8::5 for a single client".into(),
            Self::ClientHasHostBits { written, meant } => {
                format!("did you mean {meant}? A single client is {}", written.addr())
            }
            Self::AllowedAndDenied(prefix) => format!("leave --allow {prefix} or --deny {prefix} out"),
            Self::BadBanTime(_) => {
                "write 90s, 10m, 2h or 7d, up to 3650d; leave it out to deny for good".into()
            }
            Self::TooManyRules(_) => "allow or deny shorter prefixes that cover several".into(),
            Self::BadSource(_) => return None,
        })
    }
}

/// Text out of somebody else's hands, made fit for one line on a terminal.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().count() > LONGEST {
        shown.push('…');
    }
    format!("'{shown}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_leaves_no_control_characters_and_clips() {
        assert_eq!(quoted("a\x1b[31m\n"), r"'a\u{1b}[31m\n'");
        assert_eq!(quoted(&"x".repeat(1000)).chars().count(), 63);
    }

    #[test]
    fn unequal_ranges_are_counted() {
        let error = SpecError::UnequalRanges {
            published: "8080/tcp".into(),
            published_len: 1,
            target: "80-90".into(),
            target_len: 11,
        };
        assert_eq!(
            error.to_string(),
            "8080/tcp has 1 port, but target ports 80-90 are 11: both ranges must be as long as each other"
        );
        assert_eq!(error.hint().as_deref(), Some("give the target 1 port"));
    }
}
