//! `publisherctl`'s command line.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::config::ConfigVerb;
use super::deny::DenyVerb;
use crate::config::DEFAULT_SOCKET;
use crate::model::{Access, ClientPrefix, Limits, PathMode, ProxyProtocol, SourceMode, SpecError};

/// Publishes container ports on the host's IPv6 addresses.
#[derive(Debug, Parser)]
#[command(
    name = "publisherctl",
    version,
    disable_help_subcommand = true,
    after_long_help = "Exit codes:\n  0  done\n  1  failed\n  2  the command line makes no sense\n  \
        3  no daemon answers on the socket\n  4  what was named isn't there\n  \
        5  something else is in the way\n  6  not allowed"
)]
pub(super) struct CtlArgs {
    #[command(flatten)]
    pub(super) global: GlobalArgs,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Args)]
pub(super) struct GlobalArgs {
    /// The daemon's socket
    #[arg(
        short = 'H',
        long,
        global = true,
        env = "PUBLISHER_HOST",
        hide_env_values = true,
        value_name = "unix:///PATH",
        value_parser = socket,
        default_value_t = default_host(),
        display_order = 100
    )]
    pub(super) host: Host,
    /// How to print [default: table; events: ndjson]
    #[arg(short, long, global = true, value_enum, display_order = 101)]
    pub(super) output: Option<Format>,
    /// Print names only, without a header; print nothing about what was done
    #[arg(short, long, global = true, display_order = 102)]
    pub(super) quiet: bool,
    /// Leave out a table's header
    #[arg(long, global = true, display_order = 103)]
    pub(super) no_headers: bool,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A table of what matters most
    #[default]
    Table,
    /// A table of everything
    Wide,
    /// One JSON document
    Json,
    /// One JSON document a line
    Ndjson,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Publish a port, or a range of ports
    Add {
        #[arg(
            help = "[HOST_ADDR:]PORT[-PORT][/PROTO]; without an address on every address of the host, \
                    without a protocol tcp"
        )]
        published: String,
        #[arg(help = "TARGET_IP:PORT[-PORT], the container by its IPv4 address")]
        target: String,
        /// The source address that the container sees: auto, alias or gateway
        #[arg(long, value_name = "SOURCE", default_value_t)]
        source: SourceMode,
        /// The way into the container: auto, kernel or proxy
        ///
        /// auto takes the kernel's where it serves, and the socket proxy for the rest: IPv4 clients, the host
        /// itself on older kernels, and all clients where the host's firewall is to decide. kernel has no
        /// socket: another process may have the port.
        #[arg(long, value_name = "PATH", default_value_t)]
        path: PathMode,
        /// Tell the container who the client is, by the PROXY protocol: v2
        #[arg(long, value_name = "VERSION")]
        proxy_protocol: Option<ProxyProtocol>,
        #[command(flatten)]
        guards: GuardArgs,
    },
    /// End a publication, named exactly as it was added
    Rm {
        #[arg(
            help = "[HOST_ADDR:]PORT[-PORT][/PROTO]",
            required_unless_present = "all",
            conflicts_with = "all"
        )]
        published: Option<String>,
        /// End every publication
        #[arg(long)]
        all: bool,
        /// End its TCP sessions too, at once
        #[arg(long)]
        kill: bool,
    },
    /// List publications
    Ls,
    /// List sessions
    Sessions {
        /// proto=udp, port=8080, client=2001:db8::5, alias=198.18.0.4, state=established, publication=3, limit=1000
        #[arg(value_name = "FILTER")]
        filters: Vec<String>,
    },
    /// Name the client behind an alias
    Whois {
        /// The source address that a container sees, with or without its port
        #[arg(value_name = "ALIAS[:PORT]")]
        alias: String,
    },
    /// Keep clients out at run time, and let them in again
    Deny {
        #[command(subcommand)]
        verb: DenyVerb,
    },
    /// Follow what happens to sessions: a line of JSON for each that is opened, closed or resumed
    ///
    /// Says nothing of what was before. `-o table` prints lines for people.
    Events,
    /// Show what the daemon is doing, and what to know about this host
    Status,
    /// Count dropped packets by reason
    Drops,
    /// Check a configuration file, or show the configuration in use
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// End everything and remove it from the kernel; the daemon stops
    Uninstall,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all of them to a directory
    Man {
        /// Where to write
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Who may connect to a publication, and how often.
#[derive(Debug, Args)]
pub(super) struct GuardArgs {
    /// Let these clients in, and nobody else unless another --allow says so; may be given several times
    ///
    /// The longest prefix decides: of --allow 2001:db8::/32 --deny 2001:db8:bad::/48, the second counts for
    /// the clients that it matches.
    #[arg(long, value_name = "CIDR")]
    pub(super) allow: Vec<String>,
    /// Keep these clients out; may be given several times
    ///
    /// Without an --allow, all others are let in.
    #[arg(long, value_name = "CIDR")]
    pub(super) deny: Vec<String>,
    /// Established sessions that there may be at once
    #[arg(long, value_name = "N")]
    pub(super) max_sessions: Option<NonZeroU32>,
    /// New sessions in a second
    #[arg(long, value_name = "N")]
    pub(super) rate: Option<NonZeroU32>,
    /// New sessions in a second from each /64
    #[arg(long, value_name = "N")]
    pub(super) source_rate: Option<NonZeroU32>,
}

impl GuardArgs {
    /// The same, checked.
    pub(super) fn read(&self) -> Result<(Access, Limits), SpecError> {
        let Self { allow, deny, max_sessions, rate, source_rate } = self;
        let prefixes = |list: &[String]| {
            list.iter().map(|text| text.parse()).collect::<Result<Vec<ClientPrefix>, _>>()
        };
        let access = Access::new(prefixes(allow)?, prefixes(deny)?)?;
        let limits = Limits { max_sessions: *max_sessions, rate: *rate, source_rate: *source_rate };
        Ok((access, limits))
    }
}

/// A daemon's address. Only unix sockets are spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host(pub(super) PathBuf);

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unix://{}", self.0.display())
    }
}

fn default_host() -> Host {
    Host(DEFAULT_SOCKET.into())
}

/// Reads `unix:///PATH`. An empty `PUBLISHER_HOST` counts as none.
fn socket(text: &str) -> Result<Host, String> {
    if text.is_empty() {
        return Ok(default_host());
    }
    match text.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(Host(path.into())),
        _ => Err(format!("write it as unix://{DEFAULT_SOCKET}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn clap_finds_no_mistake() {
        CtlArgs::command().debug_assert();
    }

    #[test]
    fn only_absolute_unix_sockets() {
        assert_eq!(socket("unix:///run/p.sock").unwrap(), Host("/run/p.sock".into()));
        assert_eq!(socket("").unwrap(), default_host());
        for text in ["/run/p.sock", "unix://run/p.sock", "tcp://[::1]:80", "http://x", "unix:"] {
            assert!(socket(text).is_err(), "{text}");
        }
    }
}
