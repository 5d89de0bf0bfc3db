//! The socket proxy. It answers a published port wherever the kernel path doesn't: for processes of the
//! host itself and for containers, for IPv4 clients, and for publications that the host's firewall is to
//! see or that speak the PROXY protocol.
//!
//! Each published port is held by a socket of its own ([`held`]): nobody else can take it, and a port that
//! somebody has is noticed. A socket that an `sk_lookup` program steers to would need one descriptor for
//! all ports, but it reserves none of them and can't answer UDP from the port that was asked.
//! All sockets of a protocol wait in one epoll set and are served by one task ([`listeners`]), so that
//! 10,000 ports are 10,000 descriptors and nothing else.

mod batch;
mod budget;
mod guard;
mod header;
mod held;
mod listeners;
mod owner;
mod pipes;
mod relay;
mod session;
mod socket;
mod table;
mod tcp;
mod udp;

use crate::api::types::CloseReason;
use crate::datapath::Entry;
use crate::model::{ClientPrefix, Publication};
use budget::Budget;
use guard::Guard;
use held::Held;
use listeners::Listeners;
use pipes::Pipes;
use publisher_common::reason::Reason;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use table::Table;
use tokio::task::JoinSet;

pub use held::{Occupied, Unheld};

/// Who is told of sessions.
pub trait Log: Send + Sync {
    /// One was opened.
    fn opened(&self, session: &Entry);
    /// One has ended.
    fn closed(&self, session: &Entry, reason: CloseReason);
}

/// The proxy.
#[derive(Clone)]
pub struct Proxy(Arc<Shared>);

/// What all tasks of the proxy share.
struct Shared {
    tcp: Listeners,
    udp: Listeners,
    held: Held,
    table: Table,
    guard: Guard,
    pipes: Pipes,
    budget: Arc<Budget>,
    flows: udp::Flows,
    log: Box<dyn Log>,
}

impl Proxy {
    /// A proxy that holds nothing yet. UDP sessions end after `udp_idle` without a datagram.
    ///
    /// # Errors
    /// When there is no epoll set to be had.
    pub fn new(udp_idle: Duration, log: Box<dyn Log>) -> io::Result<Self> {
        let budget = Arc::new(Budget::new());
        Ok(Self(Arc::new(Shared {
            tcp: Listeners::new()?,
            udp: Listeners::new()?,
            held: Held::default(),
            table: Table::default(),
            guard: Guard::default(),
            pipes: Pipes::new(Arc::clone(&budget)),
            flows: udp::Flows::new(udp_idle, budget.limit()),
            budget,
            log,
        })))
    }

    /// Serves what is held, for as long as the daemon runs.
    ///
    /// # Panics
    /// When a task does.
    pub async fn run(&self) {
        // Tasks of their own: what waits beside this one isn't asked at each packet.
        let mut tasks = JoinSet::new();
        let shared = || Arc::clone(&self.0);
        let (accepting, receiving, ending) = (shared(), shared(), shared());
        tasks.spawn(async move { tcp::accept(&accepting).await });
        tasks.spawn(async move { udp::receive(&receiving).await });
        tasks.spawn(async move { udp::end_idle(&ending).await });
        tasks.join_all().await;
    }

    /// Holds the ports of `publication` that aren't yet, and changes who may use them. `scope` is the
    /// interface index of a link-local host address, otherwise 0.
    ///
    /// # Errors
    /// [`Unheld`]: the first of its ports that can't be had, and why. The others are held.
    pub fn hold(&self, publication: &Publication, scope: u32) -> Result<(), Unheld> {
        self.0.held.hold(&self.0, publication, scope)
    }

    /// Lets go of everything but the publications `kept`. What was accepted goes on.
    pub fn keep(&self, kept: impl Fn(u32) -> bool) {
        self.0.held.keep(&self.0, kept);
    }

    /// The ports of a publication that aren't held; `None` where none is.
    pub fn missing(&self, publication: &Publication) -> Option<BTreeSet<u16>> {
        self.0.held.missing(publication)
    }

    /// Keeps these clients out of everything.
    pub fn set_bans(&self, bans: Vec<ClientPrefix>) {
        self.0.guard.set_bans(bans);
    }

    /// How many sessions a /64 may have; 0 for no limit.
    pub fn set_per_source(&self, limit: u32) {
        self.0.guard.set_per_source(limit);
    }

    /// The idle time of UDP sessions.
    pub fn set_udp_idle(&self, idle: Duration) {
        self.0.flows.set_idle(idle);
    }

    /// Every session.
    pub fn sessions(&self) -> Vec<Entry> {
        self.0.table.all()
    }

    /// Sessions by publication.
    pub fn counts(&self) -> BTreeMap<u32, u64> {
        self.0.table.counts()
    }

    /// Ends sessions that `reason` gives a reason for; says how many.
    pub fn end(&self, reason: impl Fn(&Entry) -> Option<CloseReason>) -> u64 {
        self.0.table.end(reason)
    }

    /// What was refused, by reason.
    pub fn refused(&self) -> Vec<(Reason, u64)> {
        self.0.guard.refused()
    }

    /// What its owner should know.
    pub fn trouble(&self) -> Option<String> {
        self.0.budget.trouble()
    }
}
