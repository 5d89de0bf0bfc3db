//! `/etc/publisher/publisher.toml`: what it may say, its defaults, and where in it a mistake is.

mod error;
mod values;

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::Ipv4Net;
use publisher_common::layout;
use serde::{Deserialize, Serialize};

pub use error::ConfigError;
pub use values::{AliasPool, AliasPrefix, InterfaceName};

use crate::model::PortRange;

/// Read if it is there and no other file is named.
pub const DEFAULT_FILE: &str = "/etc/publisher/publisher.toml";
/// Where the daemon listens.
pub const DEFAULT_SOCKET: &str = "/run/publisher/publisher.sock";
/// Where publications and the alias key are kept.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/publisher";
/// Where maps, programs and links are pinned.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/publisher";

/// The alias pools that are tried in this order where the configuration names none: benchmarking
/// addresses (RFC 2544), then shared address space (RFC 6598).
pub const DEFAULT_POOLS: [Ipv4Net; 2] = [
    Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
];

/// The daemon's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The unix socket of the API.
    #[serde(deserialize_with = "values::absolute_path")]
    pub socket: PathBuf,
    /// The state directory.
    #[serde(deserialize_with = "values::absolute_path")]
    pub state_dir: PathBuf,
    /// The directory for pins, on a bpf file system.
    #[serde(deserialize_with = "values::absolute_path")]
    pub pin_dir: PathBuf,
    /// The uplinks' names. Empty: they are chosen by themselves.
    pub uplinks: Vec<InterfaceName>,
    /// What a client's alias is made of.
    pub alias: Alias,
    /// How the container link's own address serves as a source.
    pub gateway: Gateway,
    /// MTUs to reckon with in place of the interfaces' and routes' own.
    pub mtu: Mtu,
    /// How long sessions live without a packet.
    #[serde(deserialize_with = "values::timers")]
    pub timers: Timers,
    /// How many sessions there can be.
    pub sessions: Sessions,
    /// The socket proxy.
    pub proxy: ProxyConfig,
    /// Where the session log goes.
    pub log: Log,
    /// How long TCP sessions may go on after `rm`. In the file: seconds.
    #[serde(deserialize_with = "values::drain", serialize_with = "values::seconds")]
    pub drain: Duration,
    /// What to do about a host firewall that could block a publication.
    pub host_firewall: HostFirewall,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: DEFAULT_SOCKET.into(),
            state_dir: DEFAULT_STATE_DIR.into(),
            pin_dir: DEFAULT_PIN_DIR.into(),
            uplinks: Vec::new(),
            alias: Alias::default(),
            gateway: Gateway::default(),
            mtu: Mtu::default(),
            timers: Timers::default(),
            sessions: Sessions::default(),
            proxy: ProxyConfig::default(),
            log: Log::default(),
            drain: Duration::from_secs(300),
            host_firewall: HostFirewall::default(),
        }
    }
}

/// `[alias]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alias {
    /// The pool, if one is configured. It is used or refused, never replaced by another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<AliasPool>,
    /// Whom an alias stands for.
    pub prefix: AliasPrefix,
    /// Aliases that the clients of one /64 may have to themselves before they share them.
    #[serde(deserialize_with = "values::share", skip_serializing_if = "Option::is_none")]
    pub share: Option<u32>,
}

impl Alias {
    /// The pools to try, best first: the configured one only, otherwise [`DEFAULT_POOLS`].
    pub fn pools(&self) -> Vec<Ipv4Net> {
        self.pool.map_or_else(|| DEFAULT_POOLS.to_vec(), |pool| vec![pool.net()])
    }

    /// How many aliases of `pool` one /64 may have: a sixteenth where nothing else is configured. 0 where
    /// a /64 is one client, which there is no limit for.
    pub fn share_of(&self, pool: Ipv4Net) -> u32 {
        let size = 1u32 << (32 - u32::from(pool.prefix_len())).min(31);
        match self.prefix {
            AliasPrefix::Client => self.share.unwrap_or((size / 16).max(1)),
            AliasPrefix::Network => 0,
        }
    }
}

/// `[gateway]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gateway {
    /// The source ports on the container link's own address that sessions get.
    #[serde(deserialize_with = "values::port_range", serialize_with = "values::text")]
    pub ports: PortRange,
}

impl Default for Gateway {
    fn default() -> Self {
        Self { ports: PortRange::new(61_000, 64_999).expect("a constant range") }
    }
}

/// `[mtu]`, in bytes. What isn't named is as the interfaces and routes say, and follows them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mtu {
    /// Of every uplink. At least 1280 (RFC 8200 §5).
    #[serde(deserialize_with = "values::mtu_ipv6", skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<u32>,
    /// Of the way to every container. At least 68 (RFC 791).
    #[serde(deserialize_with = "values::mtu_ipv4", skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<u32>,
}

/// `[timers]`: the timers of RFC 6146 §4, in the file in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timers {
    /// UDP_DEFAULT: a UDP session without a packet.
    #[serde(deserialize_with = "values::timer", serialize_with = "values::seconds")]
    pub udp: Duration,
    /// TCP_EST: an open TCP session without a packet, its last TCP_TRANS included.
    #[serde(deserialize_with = "values::timer", serialize_with = "values::seconds")]
    pub tcp_established: Duration,
    /// TCP_TRANS: a TCP session that is being opened, is closing, or was reset.
    #[serde(deserialize_with = "values::timer", serialize_with = "values::seconds")]
    pub tcp_transitory: Duration,
    /// FRAGMENT_MIN: between two fragments of a datagram.
    #[serde(deserialize_with = "values::timer", serialize_with = "values::seconds")]
    pub fragments: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            udp: Duration::from_secs(300),
            tcp_established: Duration::from_secs(7440),
            tcp_transitory: Duration::from_secs(240),
            fragments: Duration::from_secs(5),
        }
    }
}

/// `[sessions]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sessions {
    /// How many established sessions fit.
    #[serde(deserialize_with = "values::capacity")]
    pub capacity: u32,
    /// How many half-open sessions fit. A flood of SYNs must not push one out before its client answers.
    #[serde(deserialize_with = "values::capacity")]
    pub half_open: u32,
    /// How many closing sessions fit.
    #[serde(deserialize_with = "values::capacity")]
    pub closing: u32,
    /// How many established sessions a /64 may have; 0 for no limit.
    #[serde(deserialize_with = "values::per_source", skip_serializing_if = "Option::is_none")]
    pub per_source: Option<u32>,
}

impl Sessions {
    /// How many established sessions a /64 may have: a quarter of them all where nothing else is
    /// configured; 0 for no limit.
    pub fn per_source(&self) -> u32 {
        self.per_source.unwrap_or(self.capacity / 4)
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            capacity: layout::SESSIONS,
            half_open: layout::HALF_OPEN,
            closing: layout::CLOSING,
            per_source: None,
        }
    }
}

/// `[proxy]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyConfig {
    /// How long a UDP session of the proxy lives without a datagram of either side. In the file: seconds.
    #[serde(deserialize_with = "values::timer", serialize_with = "values::seconds")]
    pub udp_idle: Duration,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self { udp_idle: Duration::from_secs(90) }
    }
}

/// `[log]`: the session log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The file that events are written to, a line of JSON each; none by default.
    #[serde(deserialize_with = "values::optional_path", skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The size at which it is renamed to `.1` and begun anew, in MiB.
    #[serde(deserialize_with = "values::log_size")]
    pub max_size: u32,
    /// Sessions that `whois` knows of after their end, for an hour at most. Each takes 40 bytes.
    #[serde(deserialize_with = "values::history")]
    pub history: u32,
}

impl Default for Log {
    fn default() -> Self {
        Self { file: None, max_size: 64, history: 262_144 }
    }
}

impl Log {
    /// The largest size of the file, in bytes.
    pub const fn max_bytes(&self) -> u64 {
        (self.max_size as u64) << 20
    }
}

/// What to do about a host firewall that could block a publication.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostFirewall {
    /// The firewall's word counts.
    #[default]
    Honour,
    /// What is published is reachable, whatever the firewall says.
    Bypass,
}

impl fmt::Display for HostFirewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Honour => "honour",
            Self::Bypass => "bypass",
        })
    }
}

impl Config {
    /// Reads `path`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Read`], and [`ConfigError::Invalid`] with the line and the column.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Reads [`DEFAULT_FILE`]; the defaults where there is no such file.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), except for a file that isn't there.
    pub fn read_default() -> Result<Self, ConfigError> {
        match Self::read(Path::new(DEFAULT_FILE)) {
            Err(ConfigError::Read { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(Self::default())
            }
            other => other,
        }
    }

    /// Reads `text`, which is called `path` in errors.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::invalid(path, text, &error))
    }

    /// What works and is worth a second thought, one line each.
    pub fn warnings(&self) -> Vec<String> {
        let Timers { udp, tcp_established, tcp_transitory, fragments } = &self.timers;
        [
            ("udp", udp, 120, "RFC 4787 REQ-5"),
            ("tcp_established", tcp_established, 7440, "RFC 5382 REQ-5"),
            ("tcp_transitory", tcp_transitory, 240, "RFC 5382 REQ-5"),
            ("fragments", fragments, 2, "RFC 6146 §4"),
        ]
        .into_iter()
        .filter(|(_, set, least, _)| set.as_secs() < *least)
        .map(|(name, set, least, rule)| {
            let set = set.as_secs();
            format!("timers.{name} is {set} s: {rule} asks for at least {least} s")
        })
        .collect()
    }
}

#[cfg(test)]
mod tests;
