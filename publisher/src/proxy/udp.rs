//! UDP: a session for each client and asked address, with a connected socket towards the container.
//!
//! Replies leave from the address that was asked. A session lives as long as either side sends; where all
//! of them are in use, one whose client has not been heard of since the container replied makes way.

use super::batch::{Batch, datagrams, send, transmit};
use super::budget::Share;
use super::listeners::{Bound, Token};
use super::session::Session;
use super::table::{Connection, Ends, now};
use super::{Shared, header, socket};
use crate::api::types::CloseReason;
use crate::model::{Protocol, Publication};
use crate::topology::reserved_ports::read_ephemeral;
use publisher_common::wire::protocol;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::{debug, error};

/// Receive calls for one socket before others have their turn.
const IN_A_ROW: usize = 8;
/// Sessions that there may be, as far as descriptors and ports go.
const SESSIONS: usize = 65_536;
/// Sessions that are looked at for one that can make way.
const CANDIDATES: usize = 256;

thread_local! {
    static REPLIES: RefCell<Batch> = RefCell::new(Batch::new());
}

/// A client at an address that it asked, by the socket that heard it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    client: SocketAddrV6,
    host: Ipv6Addr,
    bound: Token,
}

/// A session.
struct Flow {
    connection: Arc<Connection>,
    /// Towards the container.
    socket: UdpSocket,
    state: UdpSocketState,
    target: SocketAddrV4,
    /// What each datagram to the container begins with.
    header: Option<Vec<u8>>,
    /// The client was heard of after a reply: it is who it says it is.
    is_confirmed: AtomicBool,
    _descriptor: Share,
}

/// All sessions.
pub(super) struct Flows {
    all: Mutex<HashMap<Key, Arc<Flow>>>,
    most: usize,
    idle: AtomicU64,
}

impl Flows {
    /// Sessions take a source port of the host each: at least half of them are left to others.
    pub fn new(idle: Duration, descriptors: u64) -> Self {
        let ports = read_ephemeral().map_or(0, |range| range.end() - range.start());
        let most = (usize::from(ports) / 2).min(descriptors as usize / 2).min(SESSIONS);
        Self { all: Mutex::default(), most, idle: AtomicU64::new(idle.as_secs()) }
    }

    pub fn set_idle(&self, idle: Duration) {
        self.idle.store(idle.as_secs(), Ordering::Relaxed);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Key, Arc<Flow>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for one more by ending one of a client that may not even exist.
    fn make_way(&self) {
        let all = self.all();
        let unconfirmed = all
            .values()
            .take(CANDIDATES)
            .filter(|flow| !flow.is_confirmed.load(Ordering::Relaxed))
            .filter(|flow| !flow.connection.is_ending())
            .min_by_key(|flow| flow.connection.last_seen());
        if let Some(flow) = unconfirmed {
            flow.connection.end(CloseReason::Idle);
        }
    }
}

/// Receives datagrams of clients for as long as the daemon runs.
pub(super) async fn receive(shared: &Arc<Shared>) {
    let mut batch = Batch::new();
    loop {
        let bound = match shared.udp.ready().await {
            Ok(bound) => bound,
            Err(error) => {
                error!("can't wait for datagrams: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        for bound in bound {
            receive_some(shared, &bound, &mut batch);
        }
        tokio::task::coop::consume_budget().await;
    }
}

fn receive_some(shared: &Arc<Shared>, bound: &Arc<Bound>, batch: &mut Batch) {
    let Some(state) = &bound.udp else { return };
    let publication = bound.port.publication();
    for _ in 0..IN_A_ROW {
        if bound.is_gone() {
            return;
        }
        let count = match batch.receive(state, (&bound.socket).into()) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                debug!("port {}/udp: {error}", bound.number);
                return;
            }
        };
        batch.each(count, |meta, bytes| {
            let (SocketAddr::V6(client), Some(host)) = (meta.addr, meta.dst_ip) else { return };
            let host = match host {
                IpAddr::V6(host) => host,
                IpAddr::V4(host) => host.to_ipv6_mapped(),
            };
            // A flow label would make a client of its own of each of its values.
            let client = SocketAddrV6::new(*client.ip(), client.port(), 0, client.scope_id());
            let key = Key { client, host, bound: bound.token };
            let known = shared.flows.all().get(&key).cloned();
            let flow = known.or_else(|| open(shared, bound, &publication, key));
            if let Some(flow) = flow {
                flow.forward(meta, bytes);
            }
        });
        if count < BATCH_SIZE {
            return;
        }
    }
}

fn open(
    shared: &Arc<Shared>,
    bound: &Arc<Bound>,
    publication: &Publication,
    key: Key,
) -> Option<Arc<Flow>> {
    // Nobody can be answered from a link-local address but on its own link.
    if key.host.is_unicast_link_local() && key.client.scope_id() == 0 {
        return None;
    }
    if shared.flows.all().len() >= shared.flows.most {
        shared.flows.make_way();
        return None;
    }
    let Some(descriptor) = shared.budget.take(1) else {
        shared.budget.note_shortage();
        shared.flows.make_way();
        return None;
    };
    let counted = shared.guard.admit(&bound.port, publication, *key.client.ip(), now())?;
    let spec = &publication.spec;
    let target = SocketAddrV4::new(spec.target(), spec.target_port(bound.number)?);
    let made = socket::connect_udp(target).and_then(|(socket, state)| {
        let source = socket.local_addr()?.as_socket_ipv4().ok_or(io::ErrorKind::Unsupported)?;
        Ok((UdpSocket::from_std(socket.into())?, state, source))
    });
    let (socket, state, source) = match made {
        Ok(made) => made,
        Err(error) => {
            debug!("no session with {target} for {}: {error}", key.client);
            shared.flows.make_way();
            return None;
        }
    };
    if *source.ip() == spec.target() && !shared.udp.at(target.port()).is_empty() {
        debug!("{target} leads back to the proxy");
        return None;
    }
    let host = SocketAddrV6::new(key.host, bound.number, 0, 0);
    let ends = Ends { protocol: protocol::UDP, client: key.client, host, source, target };
    let session = Session::enter(shared, publication, ends, counted)?;
    let header = spec.proxy_protocol().map(|_| {
        let client = (*key.client.ip(), key.client.port());
        header::header(Protocol::Udp, client, (key.host, bound.number))
    });
    let flow = Arc::new(Flow {
        connection: Arc::clone(&session.connection),
        socket,
        state,
        target,
        header,
        is_confirmed: AtomicBool::new(false),
        _descriptor: descriptor,
    });
    shared.flows.all().insert(key, Arc::clone(&flow));
    // The port is let go of while its sessions end.
    let (shared, bound, task) = (Arc::clone(shared), Arc::downgrade(bound), Arc::clone(&flow));
    tokio::spawn(async move {
        let reason = tokio::select! {
            reason = task.connection.ended() => reason,
            () = task.answer(&bound, &key) => CloseReason::Removed,
        };
        shared.flows.all().remove(&key);
        session.end(reason);
    });
    Some(flow)
}

impl Flow {
    /// Passes a client's datagrams on: one, or several of the same length in one piece.
    fn forward(&self, meta: &RecvMeta, bytes: &[u8]) {
        let count = datagrams(meta);
        let Connection { from_client, from_container, .. } = &*self.connection;
        if !from_container.is_nothing() {
            self.is_confirmed.store(true, Ordering::Relaxed);
        }
        from_client.add(count, bytes.len());
        self.connection.touch(now());
        // What the container's socket has no room for is lost, as it would be in a network. So is what
        // nobody takes there: the client asks again, perhaps when somebody does.
        let socket = &self.socket;
        if let Some(header) = &self.header {
            let stride = meta.stride.max(1);
            let each: Vec<_> =
                if bytes.is_empty() { vec![bytes] } else { bytes.chunks(stride).collect() };
            for datagram in each {
                let _ = rustix::net::send(
                    socket,
                    &[header, datagram].concat(),
                    rustix::net::SendFlags::empty(),
                );
            }
        } else if count == 1 {
            let _ = rustix::net::send(socket, bytes, rustix::net::SendFlags::empty());
        } else {
            let transmit = transmit(self.target.into(), meta, bytes, None);
            let _ = send(&self.state, || socket.into(), transmit);
        }
    }

    /// Passes the container's datagrams on, for as long as the port is held.
    async fn answer(&self, bound: &Weak<Bound>, key: &Key) {
        loop {
            let receive = || {
                REPLIES.with_borrow_mut(|batch| {
                    let count = batch.receive(&self.state, (&self.socket).into())?;
                    let Some(bound) = bound.upgrade() else { return Ok(false) };
                    batch.each(count, |meta, bytes| self.reply(&bound, key, meta, bytes));
                    Ok(true)
                })
            };
            match self.socket.async_io(Interest::READABLE, receive).await {
                Ok(true) => {}
                Ok(false) => return,
                // Where nobody listens (an ICMP error said so), somebody may later.
                Err(error) => debug!("{}: {error}", self.target),
            }
        }
    }

    fn reply(&self, bound: &Bound, key: &Key, meta: &RecvMeta, bytes: &[u8]) {
        let Some(state) = &bound.udp else { return };
        self.connection.from_container.add(datagrams(meta), bytes.len());
        self.connection.touch(now());
        let client = key.client.into();
        let answer = transmit(client, meta, bytes, Some(key.host.into()));
        if let Err(error) = send(state, || (&bound.socket).into(), answer) {
            debug!("no reply to {client}: {error}");
        }
    }
}

/// Ends sessions that nothing has come for, for as long as the daemon runs.
pub(super) async fn end_idle(shared: &Arc<Shared>) {
    loop {
        let idle = shared.flows.idle.load(Ordering::Relaxed);
        let pause = Duration::from_secs(idle).div_f64(8.0);
        tokio::time::sleep(pause.clamp(Duration::from_millis(250), Duration::from_secs(10))).await;
        let now = now();
        for flow in shared.flows.all().values() {
            let age = now.wrapping_sub(flow.connection.last_seen());
            if u64::from(age) >= idle && age <= u32::MAX / 2 {
                flow.connection.end(CloseReason::Idle);
            }
        }
    }
}
