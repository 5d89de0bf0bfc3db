//! The daemon's engine: it keeps the datapath as what is published and the host's network ask for.
//!
//! Facts change (an `add`, a netlink notice, a timer), [`reconcile`] works out a plan and carries it
//! out. Requests of the API come by [`control`].

mod bans;
mod check;
mod clients;
mod clock;
mod control;
mod drain;
mod events;
mod log;
mod passes;
mod pool;
mod probe;
mod proxied;
mod reconcile;
mod reload;
mod reserved;
mod run;
mod start;
mod views;

use crate::config::Config;
use crate::datapath::{Datapath, Sessions};
use crate::plan::{Desired, Draining, LinkTable, Resolutions};
use crate::proxy::Proxy;
use crate::store::{State, Store};
use crate::topology::{FirewallFinding, Snapshot, Topology};
use bans::Bans;
use events::Events;
use ipnet::Ipv4Net;
use log::LogReader;
use proxied::Proxied;
use reserved::Reserved;
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};
use std::time::Instant;
use tokio::sync::{Mutex, Notify};

pub use check::check;
pub use start::StartError;

/// The engine; shared by the API and the tasks that follow the host.
pub struct Engine {
    /// Replaced as a whole, by [`Engine::reload`].
    config: RwLock<Arc<Config>>,
    topology: Topology,
    /// The network that aliases come from.
    pool: Ipv4Net,
    started: Instant,
    /// One reconciliation at a time, so that an older view of the host never overwrites a newer one.
    reconciling: Mutex<()>,
    inner: Mutex<Inner>,
    /// The maps of sessions, to be used without the lock.
    sessions: Sessions,
    events: Arc<Events>,
    proxy: Proxy,
    /// The datapath's session log, until its reader starts, and the reader.
    log: std::sync::Mutex<LogReader>,
    /// One pass over the sessions at a time.
    passing: Mutex<()>,
    tally: std::sync::Mutex<passes::Tally>,
    /// Told when sessions must end that don't wait for the next pass: a link has changed.
    must_end: Notify,
    /// Told when a pass has found that the plan may have changed.
    changed: Notify,
    /// Set when the daemon ends.
    stopping: Arc<AtomicBool>,
    /// Told when the daemon is to exit.
    exit: Notify,
}

/// What changes while the daemon runs.
struct Inner {
    /// `None` once it has been uninstalled.
    datapath: Option<Datapath>,
    store: Store,
    state: State,
    bans: Bans,
    draining: Vec<Draining>,
    links: LinkTable,
    /// What was last carried out.
    applied: Desired,
    snapshot: Snapshot,
    resolutions: Resolutions,
    firewall: Vec<FirewallFinding>,
    proxied: Proxied,
    /// Whether local processes can be served in the kernel, or why not.
    loopback: Result<(), String>,
    reserved: Reserved,
    /// What the host's owner should know since the start: damaged files, a pool in use.
    notices: Vec<String>,
    /// What went wrong in the last reconciliation.
    failures: Vec<String>,
    /// What went wrong in the one before, which has been logged.
    logged: Vec<String>,
}

impl Engine {
    /// An address of the alias pool, for route look-ups.
    fn alias_probe(&self) -> Ipv4Addr {
        self.pool.hosts().next().unwrap_or(self.pool.network())
    }

    /// Ready when the daemon is to exit.
    pub async fn exit_requested(&self) {
        self.exit.notified().await;
    }
}
