//! The proxy's sessions.

use super::guard::Counted;
use crate::api::types::CloseReason;
use crate::datapath::Entry;
use publisher_common::layout::{Class, ForwardKey, Handle, ReplyKey, Session, State, Usage};
use publisher_common::wire::protocol;
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddrV4, SocketAddrV6};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::Notify;

/// Seconds of the monotonic clock, as the datapath counts them.
pub(super) fn now() -> u32 {
    clock_gettime(ClockId::Monotonic).tv_sec as u32
}

/// What one side has sent.
#[derive(Default)]
pub(super) struct Sent {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Sent {
    /// Counts payload; a TCP proxy knows of no packets.
    pub fn add(&self, packets: u64, bytes: usize) {
        if packets > 0 {
            self.packets.fetch_add(packets, Ordering::Relaxed);
        }
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn is_nothing(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) == 0 && self.packets.load(Ordering::Relaxed) == 0
    }

    fn usage(&self) -> Usage {
        Usage {
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// A session's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub protocol: u8,
    /// The client; an IPv4 client by its mapped address.
    pub client: SocketAddrV6,
    /// What it asked for.
    pub host: SocketAddrV6,
    /// Whom the container sees.
    pub source: SocketAddrV4,
    /// The container.
    pub target: SocketAddrV4,
}

/// A session of the proxy.
pub(super) struct Connection {
    ends: Ends,
    publication: Handle,
    created: u32,
    /// When something last came from either side.
    last_seen: AtomicU32,
    pub from_client: Sent,
    pub from_container: Sent,
    /// Why it is to end.
    must_end: OnceLock<CloseReason>,
    told: Notify,
    _counted: Counted,
}

impl Connection {
    pub fn touch(&self, now: u32) {
        if self.last_seen.load(Ordering::Relaxed) != now {
            self.last_seen.store(now, Ordering::Relaxed);
        }
    }

    pub fn last_seen(&self) -> u32 {
        self.last_seen.load(Ordering::Relaxed)
    }

    /// Ready when somebody wants it to end.
    pub async fn ended(&self) -> CloseReason {
        loop {
            let told = self.told.notified();
            if let Some(reason) = self.must_end.get() {
                return *reason;
            }
            told.await;
        }
    }

    /// Whether it was told to end.
    pub fn is_ending(&self) -> bool {
        self.must_end.get().is_some()
    }

    pub fn end(&self, reason: CloseReason) {
        let _ = self.must_end.set(reason);
        self.told.notify_one();
    }

    /// The session as the kernel path would have it.
    pub fn entry(&self) -> Entry {
        let Ends { protocol, client, host, source, target } = self.ends;
        let is_half_open = protocol == protocol::UDP && self.from_container.is_nothing();
        Entry {
            forward: ForwardKey {
                client: client.ip().octets(),
                host: host.ip().octets(),
                client_port: client.port().to_be_bytes(),
                host_port: host.port().to_be_bytes(),
                scope: client.scope_id(),
                protocol,
                origin: 0,
                reserved: [0; 2],
            },
            reply: ReplyKey {
                target: target.ip().octets(),
                alias: source.ip().octets(),
                target_port: target.port().to_be_bytes(),
                alias_port: source.port().to_be_bytes(),
                protocol,
                reserved: [0; 3],
            },
            session: Session {
                link: Handle { index: 0, generation: 0 },
                publication: self.publication,
                uplink: 0,
                created: self.created,
                container_isn: 0,
                state: State::ESTABLISHED,
                flags: 0,
                reserved: [0; 2],
            },
            sent: self.from_client.usage(),
            received: self.from_container.usage(),
            last_seen: self.last_seen(),
            class: is_half_open.then_some(Class::HalfOpen),
        }
    }
}

/// All sessions, by number.
#[derive(Default)]
pub(super) struct Table {
    sessions: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
}

impl Table {
    fn sessions(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn insert(
        &self,
        ends: Ends,
        publication: Handle,
        counted: Counted,
    ) -> (u64, Arc<Connection>) {
        let now = now();
        let connection = Arc::new(Connection {
            ends,
            publication,
            created: now,
            last_seen: now.into(),
            from_client: Sent::default(),
            from_container: Sent::default(),
            must_end: OnceLock::new(),
            told: Notify::new(),
            _counted: counted,
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.sessions().insert(number, Arc::clone(&connection));
        (number, connection)
    }

    pub fn remove(&self, number: u64) {
        self.sessions().remove(&number);
    }

    pub fn all(&self) -> Vec<Entry> {
        self.sessions().values().map(|connection| connection.entry()).collect()
    }

    pub fn counts(&self) -> BTreeMap<u32, u64> {
        let mut counts = BTreeMap::new();
        for connection in self.sessions().values() {
            *counts.entry(connection.publication.index).or_default() += 1;
        }
        counts
    }

    pub fn end(&self, reason: impl Fn(&Entry) -> Option<CloseReason>) -> u64 {
        let mut ended = 0;
        for connection in self.sessions().values() {
            if let Some(reason) = reason(&connection.entry()) {
                connection.end(reason);
                ended += 1;
            }
        }
        ended
    }
}
