//! The daemon and the host, as `status` and `drops` show them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The daemon's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// The daemon's version.
    pub version: String,
    /// The version of the map layout.
    pub layout: u32,
    /// The daemon's process id.
    pub pid: u32,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// Interfaces where clients arrive.
    pub uplinks: Vec<UplinkView>,
    /// Interfaces that targets are reached through.
    pub links: Vec<LinkView>,
    /// Where aliases come from, for instance `198.18.0.0/15`.
    pub alias_pool: String,
    /// How many publications there are.
    pub publications: u64,
    /// How full the maps are.
    pub tables: Vec<TableView>,
    /// What the session log lacks.
    #[serde(default)]
    pub events: EventsView,
    /// What the running kernel offers.
    pub features: Vec<FeatureView>,
    /// The loaded programs.
    pub programs: Vec<ProgramView>,
    /// What the host's owner should know, one line each.
    pub warnings: Vec<String>,
}

/// Events of the session log that are missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsView {
    /// Events that the daemon didn't come to read in time.
    pub lost: u64,
    /// Events that couldn't be written to the log's file.
    pub not_written: u64,
}

/// An uplink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkView {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// The MTU that the datapath reckons with, in bytes: the configured one, else its own.
    pub mtu: u32,
    /// How the programs are attached.
    pub attach: Attach,
    /// Whether its frames have Ethernet headers.
    pub ethernet: bool,
}

/// A container link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// How the programs are attached.
    pub attach: Attach,
}

/// How a program hangs on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attach {
    /// By a tcx link.
    Tcx,
    /// As a filter of a clsact qdisc.
    Clsact,
}

impl fmt::Display for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

/// What a container link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// The host side of a veth pair.
    Veth,
    /// A bridge.
    Bridge,
    /// The end of the slow lane, where packets are fragmented.
    SlowLane,
    /// The loopback interface, where local processes' packets are taken.
    Loopback,
    /// Anything else.
    Other,
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Veth => "veth",
            Self::Bridge => "bridge",
            Self::SlowLane => "slow-lane",
            Self::Loopback => "loopback",
            Self::Other => "other",
        })
    }
}

/// How full a map is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableView {
    /// Its name.
    pub name: String,
    /// Entries in it.
    pub used: u64,
    /// Entries it can hold.
    pub capacity: u64,
    /// Bytes it takes in the kernel, where that is known.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
}

/// A feature of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureView {
    /// Its name.
    pub name: String,
    /// Whether the running kernel has it.
    pub available: bool,
    /// What follows from that.
    pub means: String,
}

/// A loaded program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramView {
    /// Its name.
    pub name: String,
    /// Instructions that the verifier looked at; 0 where the kernel doesn't say.
    pub verified_instructions: u64,
    /// Nanoseconds spent in it in all; 0 while `kernel.bpf_stats_enabled` is off.
    pub run_ns: u64,
    /// How often it ran; 0 while `kernel.bpf_stats_enabled` is off.
    pub run_count: u64,
}

/// Packets that were dropped for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropView {
    /// The reason's name.
    pub reason: String,
    /// How many packets.
    pub count: u64,
    /// What the reason means.
    pub meaning: String,
}
