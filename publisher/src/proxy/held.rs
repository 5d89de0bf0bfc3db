//! Which ports are held, for which publication.

use super::budget::Share;
use super::guard::Use;
use super::listeners::{Bound, Listeners, Token, next_token};
use super::{Shared, owner, socket};
use crate::model::{Protocol, Publication};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddrV6;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// A publication whose ports are held.
pub(super) struct Port {
    /// Replaced as a whole when its guards change.
    publication: RwLock<Arc<Publication>>,
    /// What counts against its limits.
    pub used: Use,
}

impl Port {
    pub fn new(publication: &Publication) -> Self {
        Self { publication: RwLock::new(Arc::new(publication.clone())), used: Use::default() }
    }

    pub fn publication(&self) -> Arc<Publication> {
        Arc::clone(&self.publication.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why a port can't be held.
#[derive(Debug, thiserror::Error)]
pub enum Unheld {
    /// A process has it.
    #[error(transparent)]
    Occupied(#[from] Occupied),
    /// A connection of the host's own happens to have it.
    #[error(
        "port {port}/{protocol} can't be held as long as a connection of the host's own has it"
    )]
    Busy {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
    },
    /// The daemon may not open so many files.
    #[error(
        "{ports} {protocol} ports can't be held: publisherd may have {limit} files open (LimitNOFILE=)"
    )]
    Descriptors {
        /// How many ports were to be held.
        ports: u32,
        /// Their protocol.
        protocol: Protocol,
        /// The limit.
        limit: u64,
    },
    /// Something else.
    #[error("can't hold port {port}/{protocol}: {error}")]
    Failed {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// The reason.
        error: io::Error,
    },
}

/// A port that another process has.
#[derive(Debug)]
pub struct Occupied {
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The process, where it could be found: its name and number.
    pub process: Option<(String, u32)>,
}

impl std::error::Error for Occupied {}

impl fmt::Display for Occupied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}/{} is held by ", self.port, self.protocol)?;
        match &self.process {
            Some((name, pid)) => write!(f, "{name} (process {pid})"),
            None => f.write_str("another process"),
        }
    }
}

/// Everything that is held, by publication.
#[derive(Default)]
pub(super) struct Held(Mutex<BTreeMap<u32, Range>>);

/// The ports of a publication.
struct Range {
    port: Arc<Port>,
    /// The interface index of a link-local address.
    scope: u32,
    /// The number of each port that is held in the set of sockets.
    held: BTreeMap<u16, Token>,
}

impl Held {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u32, Range>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ports of a publication that aren't held; `None` where none is.
    pub fn missing(&self, publication: &Publication) -> Option<BTreeSet<u16>> {
        let ports = publication.spec.ports();
        let all = self.all();
        let held = &all.get(&publication.id).filter(|range| !range.held.is_empty())?.held;
        if held.len() == ports.len() as usize {
            return Some(BTreeSet::new());
        }
        Some(ports.iter().filter(|port| !held.contains_key(port)).collect())
    }

    /// Whether a publication is known here.
    pub fn has(&self, publication: u32) -> bool {
        self.all().contains_key(&publication)
    }

    pub fn hold(
        &self,
        shared: &Shared,
        publication: &Publication,
        scope: u32,
    ) -> Result<(), Unheld> {
        let spec = &publication.spec;
        let address = spec.host().address();
        let mut all = self.all();
        let range = all.entry(publication.id).or_insert_with(|| Range {
            scope,
            port: Arc::new(Port::new(publication)),
            held: BTreeMap::new(),
        });
        let Range { port, scope: before, held } = range;
        if *before != scope {
            // The interface went, and came back as another one.
            let listeners = shared.listeners(spec.protocol());
            std::mem::take(held).into_values().for_each(|token| listeners.remove(token));
            *before = scope;
        }
        {
            let mut now = port.publication.write().unwrap_or_else(PoisonError::into_inner);
            if **now != *publication {
                *now = Arc::new(publication.clone());
            }
        }
        let mut failure = None;
        let missing = spec.ports().len() as usize - held.len();
        if missing > 0 {
            let (ports, protocol) = (spec.ports().len(), spec.protocol());
            let full = || Unheld::Descriptors { ports, protocol, limit: shared.budget.limit() };
            if !shared.budget.allows_ports(missing) {
                return Err(full());
            }
            for number in spec.ports().iter() {
                let address = SocketAddrV6::new(address, number, 0, scope);
                let Entry::Vacant(entry) = held.entry(number) else { continue };
                let descriptor = shared.budget.take(1).ok_or_else(full)?;
                match bind(shared, spec.protocol(), address, port, descriptor) {
                    Ok(token) => _ = entry.insert(token),
                    Err(error) => _ = failure.get_or_insert((address, error)),
                }
            }
        }
        failure.map_or(Ok(()), |(address, error)| Err(unheld(spec.protocol(), address, error)))
    }

    pub fn keep(&self, shared: &Shared, kept: impl Fn(u32) -> bool) {
        for (_, Range { port, held, .. }) in self.all().extract_if(.., |id, _| !kept(*id)) {
            let listeners = shared.listeners(port.publication().spec.protocol());
            held.into_values().for_each(|token| listeners.remove(token));
        }
    }
}

impl Shared {
    const fn listeners(&self, protocol: Protocol) -> &Listeners {
        match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
        }
    }
}

fn bind(
    shared: &Shared,
    protocol: Protocol,
    address: SocketAddrV6,
    port: &Arc<Port>,
    descriptor: Share,
) -> io::Result<Token> {
    let listeners = shared.listeners(protocol);
    // The same port may be published on every address and on one: the kernel prefers the second. Only
    // for the moment of binding do they say that they share it, so that nobody else joins them.
    let others = listeners.at(address.port());
    let share = |on: bool| others.iter().try_for_each(|it| it.socket.set_reuse_port(on));
    share(true)?;
    let bound = match protocol {
        Protocol::Tcp => socket::listen(address, !others.is_empty()).map(|socket| (socket, None)),
        Protocol::Udp => socket::bind_udp(address, !others.is_empty())
            .map(|(socket, state)| (socket, Some(state))),
    };
    share(false)?;
    let (socket, udp) = bound?;
    listeners.add(Bound {
        socket,
        token: next_token(),
        port: Arc::clone(port),
        number: address.port(),
        udp,
        is_gone: AtomicBool::new(false),
        _descriptor: descriptor,
    })
}

fn unheld(protocol: Protocol, address: SocketAddrV6, error: io::Error) -> Unheld {
    let port = address.port();
    if error.kind() != io::ErrorKind::AddrInUse {
        return Unheld::Failed { port, protocol, error };
    }
    match owner::of(protocol, address) {
        Some(owner) => Occupied { port, protocol, process: owner.process }.into(),
        None => Unheld::Busy { port, protocol },
    }
}
