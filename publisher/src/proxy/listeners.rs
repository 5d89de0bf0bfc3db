//! Bound sockets, all in one epoll set: one descriptor each, and one task for all of them.

use super::budget::Share;
use super::held::Port;
use quinn_udp::UdpSocketState;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use socket2::Socket;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Sockets that are looked after in one go.
const AT_ONCE: usize = 256;

/// A bound socket of one published port.
pub(super) struct Bound {
    pub socket: Socket,
    /// Never that of another one.
    pub token: Token,
    pub port: Arc<Port>,
    /// The published port.
    pub number: u16,
    /// Of UDP: what its kernel can do.
    pub udp: Option<UdpSocketState>,
    pub is_gone: AtomicBool,
    pub _descriptor: Share,
}

impl Bound {
    /// Whether its publication was removed, or is held by another socket.
    pub fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }
}

/// A bound socket's number.
pub(super) type Token = u64;

/// The next one's number.
pub(super) fn next_token() -> Token {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// All bound sockets of a protocol.
pub(super) struct Listeners {
    epoll: AsyncFd<OwnedFd>,
    bound: RwLock<Sockets>,
}

#[derive(Default)]
struct Sockets {
    by_token: HashMap<Token, Arc<Bound>>,
    by_port: HashMap<u16, Vec<Token>>,
}

impl Listeners {
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // SAFETY: the descriptor is owned, stays the same, and is closed only when it is dropped, which
        // `AsyncFd` does after it has deregistered.
        let epoll = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) }?;
        Ok(Self { epoll, bound: RwLock::default() })
    }

    pub fn add(&self, bound: Bound) -> io::Result<Token> {
        let token = bound.token;
        let bound = Arc::new(bound);
        // Known before the first event.
        let mut all = self.bound.write().unwrap_or_else(PoisonError::into_inner);
        let data = epoll::EventData::new_u64(token);
        epoll::add(self.epoll.get_ref(), &bound.socket, data, epoll::EventFlags::IN)?;
        all.by_port.entry(bound.number).or_default().push(token);
        all.by_token.insert(token, bound);
        Ok(token)
    }

    /// The sockets of a port.
    pub fn at(&self, port: u16) -> Vec<Arc<Bound>> {
        let all = self.bound.read().unwrap_or_else(PoisonError::into_inner);
        let tokens = all.by_port.get(&port).into_iter().flatten();
        tokens.filter_map(|token| all.by_token.get(token).cloned()).collect()
    }

    /// Closes a socket.
    pub fn remove(&self, token: Token) {
        let mut all = self.bound.write().unwrap_or_else(PoisonError::into_inner);
        let Some(gone) = all.by_token.remove(&token) else { return };
        gone.is_gone.store(true, Ordering::Release);
        if let Some(tokens) = all.by_port.get_mut(&gone.number) {
            tokens.retain(|other| *other != token);
            if tokens.is_empty() {
                all.by_port.remove(&gone.number);
            }
        }
        let _ = epoll::delete(self.epoll.get_ref(), &gone.socket);
    }

    /// Waits for sockets that have something; some of them, if there are many.
    pub async fn ready(&self) -> io::Result<Vec<Arc<Bound>>> {
        loop {
            let mut guard = self.epoll.readable().await?;
            match self.look() {
                Ok(None) => guard.clear_ready(),
                Ok(Some(found)) => return Ok(found),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sockets that have something now, if the set has.
    fn look(&self) -> rustix::io::Result<Option<Vec<Arc<Bound>>>> {
        let mut events = Vec::with_capacity(AT_ONCE);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(self.epoll.get_ref(), spare_capacity(&mut events), Some(&now))?;
        if events.is_empty() {
            return Ok(None);
        }
        let all = self.bound.read().unwrap_or_else(PoisonError::into_inner);
        let found = |event: &epoll::Event| all.by_token.get(&event.data.u64()).cloned();
        Ok(Some(events.iter().filter_map(found).collect()))
    }
}
