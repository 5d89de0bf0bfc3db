//! The start: everything that can be refused is refused here, with its cause and the next step.

use super::bans::Bans;
use super::events::Events;
use super::log::LogReader;
use super::proxied::Proxied;
use super::reload::lay_over;
use super::reserved::Reserved;
use super::{Engine, Inner, clock, drain, pool};
use crate::cli::Exit;
use crate::config::{Config, Sessions};
use crate::datapath::{Capacities, Datapath, DatapathError, NoRoom, check_room};
use crate::plan::{Desired, LinkTable, Resolutions};
use crate::proxy::Proxy;
use crate::store::{Opened, Store, StoreError};
use crate::topology::{Snapshot, Topology};
use ipnet::Ipv4Net;
use publisher_common::layout::{self, Timeouts, config_flags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, RwLock};
use std::time::Instant;
use tokio::sync::{Mutex, Notify};
use tracing::info;

/// The daemon can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process lacks privileges.
    #[error("publisherd needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    Privileges,
    /// The state directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kernel's side.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The tables' memory.
    #[error(transparent)]
    Memory(#[from] NoRoom),
    /// Netlink.
    #[error("can't read the host's network: {0}")]
    Network(#[from] io::Error),
    /// No network for aliases.
    #[error("no network is left for aliases: {}", .0.join("; "))]
    Pool(Vec<String>),
}

impl StartError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Privileges => Some("sudo publisherd".into()),
            Self::Store(error) => error.hint(),
            Self::Datapath(error) => error.hint(),
            Self::Memory(error) => Some(error.hint()),
            Self::Network(_) => None,
            Self::Pool(_) => {
                Some("--alias-pool CIDR names another one; nothing of the host may be in it".into())
            }
        }
    }

    /// The daemon's exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Privileges | Self::Datapath(DatapathError::Permission(_)) => Exit::Permission,
            _ => Exit::Failed,
        }
    }
}

fn check_privileges() -> Result<(), StartError> {
    let effective =
        capabilities(None).map_err(|errno| StartError::Network(errno.into()))?.effective;
    let bpf = CapabilitySet::BPF | CapabilitySet::PERFMON;
    let may_bpf = effective.contains(bpf) || effective.contains(CapabilitySet::SYS_ADMIN);
    if may_bpf && effective.contains(CapabilitySet::NET_ADMIN) {
        Ok(())
    } else {
        Err(StartError::Privileges)
    }
}

impl Engine {
    /// Takes over or makes the state and the datapath. [`Engine::run`](Self::run) keeps it up.
    ///
    /// # Errors
    /// [`StartError`] says why the daemon can't start; nothing has been changed then, but for
    /// directories that were made.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        check_privileges()?;
        let Opened { store, state, secret, mut damage } = Store::open(&config.state_dir)?;
        let bans = Bans::new(store.load_bans(&mut damage)?);
        let capacities = capacities(&config);
        check_room(&config.pin_dir, &capacities)?;
        let mut datapath = Datapath::open(&config.pin_dir, &capacities)?;
        let loopback = datapath.probe_loopback();
        if let Err(reason) = &loopback {
            info!("local processes are served by the socket proxy: {reason}");
        }
        let topology = Topology::connect()?;
        let kept = pool_of(&datapath.tables().config()?);
        let pools = config.alias.pools();
        let (pool, in_the_way) =
            pool::choose(&topology, &pools, kept).await?.map_err(StartError::Pool)?;

        let before = datapath.tables().config()?;
        let slow_lane = before.slow_lane;
        // Those of before hold until they are compared with what is on disk.
        let has_bans = before.has(config_flags::BANS);
        let fixed = layout::Config {
            pool: pool.network().octets(),
            pool_mask: pool.netmask().octets(),
            key: secret,
            gateway_first: config.gateway.ports.first(),
            gateway_last: config.gateway.ports.last(),
            timeouts: Timeouts::default(),
            ready: 1,
            slow_lane,
            flags: before.flags & config_flags::BANS,
            sessions_per_source: 0,
            aliases_per_source: 0,
            reserved: [0; 16],
        };
        datapath.tables().set_config(&lay_over(&config, pool, fixed))?;
        let access = datapath.tables().access()?;
        let log = datapath.tables().take_log();
        let events = Arc::new(Events::new(&config.log));
        raise_descriptors();
        let proxy = Proxy::new(config.proxy.udp_idle, Box::new(Arc::clone(&events)))?;
        proxy.set_per_source(config.sessions.per_source());
        proxy.set_bans(bans.list().iter().map(|ban| ban.clients).collect());
        let links = LinkTable::new(datapath.tables().links()?);
        let until = clock::now().wrapping_add(config.drain.as_secs() as u32);
        let sessions = datapath.tables().sessions();
        let draining = drain::collect(&sessions, &drain::ids(state.publications()), &[], until)?;
        let inner = Inner {
            datapath: Some(datapath),
            reserved: Reserved::open(store.dir()),
            store,
            state,
            bans,
            draining,
            links,
            applied: Desired { slow_lane, access, has_bans, ..Desired::default() },
            snapshot: Snapshot::default(),
            resolutions: Resolutions::new(),
            firewall: Vec::new(),
            proxied: Proxied::default(),
            loopback,
            notices: damage.into_iter().chain(in_the_way).chain(config.warnings()).collect(),
            failures: Vec::new(),
            logged: Vec::new(),
        };
        Ok(Self {
            config: RwLock::new(Arc::new(config)),
            topology,
            pool,
            started: Instant::now(),
            reconciling: Mutex::new(()),
            inner: Mutex::new(inner),
            sessions,
            events,
            proxy,
            log: std::sync::Mutex::new(LogReader::Waiting(log.map(Box::new))),
            passing: Mutex::new(()),
            tally: std::sync::Mutex::default(),
            must_end: Notify::new(),
            changed: Notify::new(),
            stopping: Arc::default(),
            exit: Notify::new(),
        })
    }
}

/// Lets the daemon open as many files as it may.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // With fewer the proxy says so when it runs out of them.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Entries that the tables are to take.
pub(super) const fn capacities(config: &Config) -> Capacities {
    let Sessions { capacity, half_open, closing, per_source: _ } = config.sessions;
    Capacities { sessions: capacity, half_open, closing }
}

/// The pool of a configuration that an earlier daemon has written.
fn pool_of(config: &layout::Config) -> Option<Ipv4Net> {
    let mask = Ipv4Addr::from(config.pool_mask);
    (config.ready != 0).then(|| Ipv4Net::with_netmask(config.pool.into(), mask).ok()).flatten()
}
