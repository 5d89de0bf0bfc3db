//! Who may connect to a publication, and how often.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::error::{SpecError, quoted};

/// Clients by their prefix: `2001:db8::/32`, or `2001:db8::5`, which is a /128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClientPrefix(Ipv6Net);

impl ClientPrefix {
    /// Every client.
    pub const ALL: Self = Self(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0));

    /// The first `len` bits of `address`; all of them where there are no so many.
    pub fn of(address: Ipv6Addr, len: u8) -> Self {
        Self(Ipv6Net::new(address, len).map_or_else(|_| address.into(), |net| net.trunc()))
    }

    /// The first address.
    pub const fn address(self) -> Ipv6Addr {
        self.0.addr()
    }

    /// The length in bits.
    pub const fn bits(self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether a client is one of them.
    pub fn contains(self, client: Ipv6Addr) -> bool {
        self.0.contains(&client)
    }
}

impl fmt::Display for ClientPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bits() == 128 { f.pad(&self.address().to_string()) } else { self.0.fmt(f) }
    }
}

impl From<ClientPrefix> for String {
    fn from(prefix: ClientPrefix) -> Self {
        prefix.to_string()
    }
}

impl FromStr for ClientPrefix {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        if text.parse::<Ipv4Addr>().is_ok() || text.parse::<Ipv4Net>().is_ok() {
            return Err(SpecError::ClientIsIpv4(quoted(text)));
        }
        let net = text
            .parse::<Ipv6Net>()
            .or_else(|_| text.parse::<Ipv6Addr>().map(Ipv6Net::from))
            .map_err(|_| SpecError::BadClient(quoted(text)))?;
        if net.addr().to_ipv4_mapped().is_some() && net.prefix_len() > 96 {
            return Err(SpecError::ClientIsIpv4(quoted(text)));
        }
        if net.trunc() != net {
            return Err(SpecError::ClientHasHostBits { written: net, meant: net.trunc() });
        }
        Ok(Self(net))
    }
}

impl TryFrom<String> for ClientPrefix {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

/// The access rules of a publication. The longest prefix decides; whom none matches is let in unless
/// some are allowed by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawAccess", into = "RawAccess")]
pub struct Access {
    allow: BTreeSet<ClientPrefix>,
    deny: BTreeSet<ClientPrefix>,
}

impl Access {
    /// Rules that one publication can have.
    pub const MOST: usize = 256;

    /// Lets `allow` in and keeps `deny` out.
    ///
    /// # Errors
    ///
    /// [`SpecError::AllowedAndDenied`] and [`SpecError::TooManyRules`].
    pub fn new(
        allow: impl IntoIterator<Item = ClientPrefix>,
        deny: impl IntoIterator<Item = ClientPrefix>,
    ) -> Result<Self, SpecError> {
        let (allow, deny): (BTreeSet<_>, BTreeSet<_>) =
            (allow.into_iter().collect(), deny.into_iter().collect());
        if let Some(both) = allow.intersection(&deny).next() {
            return Err(SpecError::AllowedAndDenied(*both));
        }
        let count = allow.len() + deny.len();
        if count > Self::MOST {
            return Err(SpecError::TooManyRules(count));
        }
        Ok(Self { allow, deny })
    }

    /// Who is let in by name.
    pub const fn allow(&self) -> &BTreeSet<ClientPrefix> {
        &self.allow
    }

    /// Who is kept out by name.
    pub const fn deny(&self) -> &BTreeSet<ClientPrefix> {
        &self.deny
    }

    /// Whether there are no rules: everybody is let in.
    pub fn is_open(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Every rule with its verdict (`true` lets in), the one for whom no other matches among them.
    /// None where there are no rules.
    pub fn rules(&self) -> impl Iterator<Item = (ClientPrefix, bool)> {
        let named = self.allow.iter().map(|it| (*it, true));
        let named = named.chain(self.deny.iter().map(|it| (*it, false)));
        let all = ClientPrefix::ALL;
        let has_default = self.is_open() || self.allow.contains(&all) || self.deny.contains(&all);
        let default = (!has_default).then_some((all, self.allow.is_empty()));
        named.chain(default)
    }
}

/// `--allow 2001:db8::/32 --deny 2001:db8::5`; nothing where there are no rules.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allow = self.allow.iter().map(|it| format!("--allow {it}"));
        let deny = self.deny.iter().map(|it| format!("--deny {it}"));
        f.write_str(&allow.chain(deny).collect::<Vec<_>>().join(" "))
    }
}

/// The JSON form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAccess {
    #[serde(default)]
    allow: Vec<ClientPrefix>,
    #[serde(default)]
    deny: Vec<ClientPrefix>,
}

impl TryFrom<RawAccess> for Access {
    type Error = SpecError;

    fn try_from(RawAccess { allow, deny }: RawAccess) -> Result<Self, SpecError> {
        Self::new(allow, deny)
    }
}

impl From<Access> for RawAccess {
    fn from(Access { allow, deny }: Access) -> Self {
        Self { allow: allow.into_iter().collect(), deny: deny.into_iter().collect() }
    }
}

/// How many sessions a publication may have.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Established ones at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<NonZeroU32>,
    /// New ones in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<NonZeroU32>,
    /// New ones in a second from each /64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_rate: Option<NonZeroU32>,
}

impl Limits {
    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// `--max-sessions 100 --rate 10`; nothing where there are no limits.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { max_sessions, rate, source_rate } = self;
        let limits = [("max-sessions", max_sessions), ("rate", rate), ("source-rate", source_rate)]
            .into_iter()
            .filter_map(|(name, limit)| limit.map(|limit| format!("--{name} {limit}")));
        f.write_str(&limits.collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> ClientPrefix {
        text.parse().unwrap()
    }

    fn access(allow: &[&str], deny: &[&str]) -> Result<Access, SpecError> {
        let parse = |list: &[&str]| list.iter().map(|it| prefix(it)).collect::<Vec<_>>();
        Access::new(parse(allow), parse(deny))
    }

    #[test]
    fn prefixes_as_written() {
        for text in ["2001:db8::/32", "::/0", "fe80::/10", "2001:db8::5"] {
            assert_eq!(prefix(text).to_string(), text);
        }
        assert_eq!(prefix("2001:db8::5/128").to_string(), "2001:db8::5");
        assert_eq!(prefix("2001:DB8:0::/48").to_string(), "2001:db8::/48");
    }

    #[test]
    fn prefixes_refused() {
        for (text, said, hint) in [
            ("10.0.0.0/8", "'10.0.0.0/8' is IPv4: clients are IPv6", "IPv4"),
            ("192.0.2.1", "'192.0.2.1' is IPv4: clients are IPv6", "IPv4"),
            ("::ffff:192.0.2.1", "is IPv4: clients are IPv6", "IPv4"),
            ("2001:db8::5/64", "2001:db8::5/64 has host bits", "did you mean 2001:db8::/64?"),
            ("2001:db8::/129", "'2001:db8::/129' is not an IPv6 prefix", "2001:db8::/64"),
            ("fe80::1%eth0", "'fe80::1%eth0' is not an IPv6 prefix", "2001:db8::/64"),
            ("web", "'web' is not an IPv6 prefix", "2001:db8::/64"),
            ("", "'' is not an IPv6 prefix", "2001:db8::/64"),
        ] {
            let error = text.parse::<ClientPrefix>().unwrap_err();
            assert!(error.to_string().contains(said), "{text}: {error}");
            assert!(error.hint().unwrap().contains(hint), "{text}: {:?}", error.hint());
        }
    }

    #[test]
    fn whom_no_rule_matches() {
        let default = |allow: &[&str], deny: &[&str]| {
            let access = access(allow, deny).unwrap();
            access.rules().find(|(prefix, _)| *prefix == ClientPrefix::ALL).map(|it| it.1)
        };
        assert_eq!(default(&[], &[]), None);
        assert_eq!(default(&["2001:db8::/32"], &[]), Some(false));
        assert_eq!(default(&["2001:db8::/32"], &["2001:db8::5"]), Some(false));
        assert_eq!(default(&[], &["2001:db8::5"]), Some(true));
        assert_eq!(default(&["::/0"], &["2001:db8::5"]), Some(true));
        assert_eq!(default(&["2001:db8::5"], &["::/0"]), Some(false));
    }

    #[test]
    fn the_same_prefix_cant_be_both() {
        let error = access(&["2001:db8::/32"], &["::1", "2001:db8::/32"]).unwrap_err();
        assert_eq!(error.to_string(), "2001:db8::/32 is both allowed and denied");
        assert!(access(&["2001:db8::/32"], &["2001:db8::/33"]).is_ok());
    }

    #[test]
    fn rules_have_a_bound() {
        let many =
            |count: u16| (0..count).map(|n| ClientPrefix::of([0, 0, 0, 0, 0, 0, 0, n].into(), 128));
        assert!(Access::new(many(256), []).is_ok());
        assert_eq!(Access::new(many(257), []), Err(SpecError::TooManyRules(257)));
        let json = format!(
            "{{\"allow\":{}}}",
            serde_json::to_string(&many(257).collect::<Vec<_>>()).unwrap()
        );
        assert!(serde_json::from_str::<Access>(&json).is_err());
    }

    #[test]
    fn written_as_flags() {
        let access = access(&["2001:db8::/32"], &["2001:db8::5"]).unwrap();
        assert_eq!(access.to_string(), "--allow 2001:db8::/32 --deny 2001:db8::5");
        let limits = Limits { rate: NonZeroU32::new(7), ..Limits::default() };
        assert_eq!(limits.to_string(), "--rate 7");
        assert_eq!(
            (Access::default().to_string(), Limits::default().to_string()),
            Default::default()
        );
    }
}
