//! Clients that are kept out of every publication, for a time or for good.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::error::{SpecError, quoted};
use super::{ClientPrefix, timestamp};

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ban {
    /// Who is kept out.
    pub clients: ClientPrefix,
    /// The alias that they were named by.
    #[serde(default)]
    pub alias: Option<Ipv4Addr>,
    /// The port of that alias, where it was named too.
    #[serde(default)]
    pub alias_port: Option<u16>,
    /// When it was made, to the second.
    #[serde(with = "timestamp")]
    pub created: SystemTime,
    /// When it ends; none for a ban without an end.
    #[serde(default, with = "timestamp::optional")]
    pub until: Option<SystemTime>,
}

impl Ban {
    /// Whether it is over at `now`.
    pub fn is_over(&self, now: SystemTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Whether it was made by this name.
    pub fn is_named(&self, who: &Banned) -> bool {
        match *who {
            Banned::Clients(clients) => self.clients == clients,
            Banned::Alias(alias, port) => {
                self.alias == Some(alias) && (port.is_none() || port == self.alias_port)
            }
        }
    }
}

/// `2001:db8::5 (alias 198.18.0.4)`
impl fmt::Display for Ban {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.clients)?;
        match self.alias {
            Some(alias) => write!(f, " (alias {})", Banned::Alias(alias, self.alias_port)),
            None => Ok(()),
        }
    }
}

/// Who is to be banned: `2001:db8::/64`, or whoever is behind `198.18.0.4` or `198.18.0.4:40000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Banned {
    /// Clients by their prefix.
    Clients(ClientPrefix),
    /// The client behind an alias, or behind a port of it.
    Alias(Ipv4Addr, Option<u16>),
}

impl fmt::Display for Banned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clients(clients) => clients.fmt(f),
            Self::Alias(alias, None) => alias.fmt(f),
            Self::Alias(alias, Some(port)) => write!(f, "{alias}:{port}"),
        }
    }
}

impl FromStr for Banned {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        if let Ok(alias) = text.parse() {
            return Ok(Self::Alias(alias, None));
        }
        match text.parse::<SocketAddrV4>() {
            Ok(end) if end.port() == 0 => Err(SpecError::PortZero),
            Ok(end) => Ok(Self::Alias(*end.ip(), Some(end.port()))),
            Err(_) => text.parse().map(Self::Clients),
        }
    }
}

impl TryFrom<String> for Banned {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

impl From<Banned> for String {
    fn from(who: Banned) -> Self {
        who.to_string()
    }
}

/// How long a ban holds, in whole seconds: `90s`, `10m`, `2h`, `7d`, or `600`, which are seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct BanTime(u32);

impl BanTime {
    /// Ten years: what is longer has no end, and says so.
    const LONGEST: u64 = 3_650 * 86_400;

    /// The duration.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl TryFrom<u64> for BanTime {
    type Error = SpecError;

    fn try_from(seconds: u64) -> Result<Self, SpecError> {
        match u32::try_from(seconds) {
            Ok(short) if (1..=Self::LONGEST).contains(&seconds) => Ok(Self(short)),
            _ => Err(SpecError::BadBanTime(format!("{seconds} s"))),
        }
    }
}

impl From<BanTime> for u64 {
    fn from(BanTime(seconds): BanTime) -> Self {
        seconds.into()
    }
}

impl FromStr for BanTime {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let bad = || SpecError::BadBanTime(quoted(text));
        let (number, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
            Some(number) => (number, &text[number.len()..]),
            None => (text, "s"),
        };
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad());
        }
        let seconds = match unit {
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => 1,
        };
        let number: u64 = number.parse().map_err(|_| bad())?;
        number.checked_mul(seconds).and_then(|it| Self::try_from(it).ok()).ok_or_else(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, seconds) in [
            ("90s", 90),
            ("10m", 600),
            ("2h", 7_200),
            ("7d", 604_800),
            ("600", 600),
            ("3650d", 315_360_000),
        ] {
            assert_eq!(text.parse::<BanTime>().unwrap(), BanTime(seconds), "{text}");
        }
        for text in [
            "",
            "s",
            "0",
            "0s",
            "-1",
            "-1s",
            "+5s",
            "1.5h",
            "10 m",
            "10M",
            "3651d",
            "1w",
            "18446744073709551615d",
            "é",
        ] {
            let error = text.parse::<BanTime>().unwrap_err();
            assert!(error.to_string().contains("is not a time to deny for"), "{text}: {error}");
        }
        assert!(serde_json::from_str::<BanTime>("0").is_err());
    }

    #[test]
    fn names() {
        for text in ["2001:db8::/64", "2001:db8::5", "198.18.0.4", "198.18.0.4:40000"] {
            assert_eq!(text.parse::<Banned>().unwrap().to_string(), text);
        }
        for text in
            ["198.18.0.0/15", "198.18.0.4:0", "198.18.0.4:65536", "2001:db8::5/64", "web", ""]
        {
            assert!(text.parse::<Banned>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_alias_names_its_bans_with_and_without_a_port() {
        let who = |text: &str| text.parse::<Banned>().unwrap();
        let ban = Ban {
            clients: "2001:db8::5".parse().unwrap(),
            alias: Some(Ipv4Addr::new(198, 18, 0, 4)),
            alias_port: Some(7),
            created: timestamp::now(),
            until: None,
        };
        for name in ["2001:db8::5", "198.18.0.4", "198.18.0.4:7"] {
            assert!(ban.is_named(&who(name)), "{name}");
        }
        for name in ["2001:db8::/64", "198.18.0.5", "198.18.0.4:8"] {
            assert!(!ban.is_named(&who(name)), "{name}");
        }
        assert_eq!(ban.to_string(), "2001:db8::5 (alias 198.18.0.4:7)");
        let json = serde_json::to_string(&ban).unwrap();
        assert_eq!(serde_json::from_str::<Ban>(&json).unwrap(), ban);
    }
}
