//! Notices of changes, gathered over a moment so that a burst costs one round of work.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt;
use tokio::io::unix::AsyncFd;

use super::{
    netlink::{self, Message, attribute, u16_at, u32_at},
    types::Changes,
    uapi::{nda, rtn},
};

/// A notice is held back until nothing happened for this long…
const QUIET: Duration = Duration::from_millis(20);
/// … but never longer than this.
const LATEST: Duration = Duration::from_millis(100);
/// Receive buffer in bytes: several thousand notices.
const RECEIVE_BUFFER: usize = 8 << 20;
/// More neighbours than this are forgotten; the next change of each then counts as news.
const NEIGHBOURS_REMEMBERED: usize = 65_536;

/// `RTNLGRP_*`: link, neighbour, traffic control, addresses and routes of both families, IPv4
/// rules, next hops.
const GROUPS: [u32; 9] = [1, 3, 4, 5, 7, 8, 9, 11, 32];

/// linux/rtnetlink.h
const NEWNEXTHOP: u16 = 104;
const DELNEXTHOP: u16 = 105;

/// A stream of [`Changes`].
pub struct Watcher {
    socket: AsyncFd<Socket>,
    gathered: Gathered,
}

impl Watcher {
    /// Subscribes in the calling thread's network namespace. Has to be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// When netlink or the runtime's poller can't be used.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(libc::NETLINK_ROUTE as isize)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        // Past the system's limit where we may, else up to it.
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
        }
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        // SAFETY: the socket owns its descriptor, gives the same one every time, and closes it only
        // when it is dropped, which `AsyncFd` does after it has deregistered.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Self { socket, gathered: Gathered::new() })
    }

    /// Waits for the next changes: until nothing more happened for 20 ms, at most 100 ms after
    /// the first. Nothing is lost when the returned future is dropped and `next` is called again.
    ///
    /// # Errors
    /// When the socket fails for good; lost notices are [`Changes::OVERRUN`] instead.
    pub async fn next(&mut self) -> io::Result<Changes> {
        loop {
            if self.gathered.changes.is_empty() {
                let mut ready = self.socket.readable().await?;
                if self.gathered.read(ready.get_inner())? {
                    ready.clear_ready();
                }
                continue;
            }
            let (now, due) = (Instant::now(), self.gathered.due());
            if now >= due {
                return Ok(std::mem::take(&mut self.gathered.changes));
            }
            // Reading again afterwards is enough: the kernel keeps what comes.
            tokio::time::sleep(due - now).await;
            self.gathered.read(self.socket.get_ref())?;
        }
    }
}

/// Changes that haven't been handed on.
struct Gathered {
    changes: Changes,
    /// When the first and the last of them came.
    first: Instant,
    last: Instant,
    neighbours: Neighbours,
    buffer: Vec<u8>,
}

impl Gathered {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            changes: Changes::default(),
            first: now,
            last: now,
            neighbours: Neighbours::default(),
            buffer: Vec::with_capacity(64 * 1024),
        }
    }

    fn due(&self) -> Instant {
        (self.last + QUIET).min(self.first + LATEST)
    }

    fn add(&mut self, changes: Changes) {
        if changes.is_empty() {
            return;
        }
        self.last = Instant::now();
        if self.changes.is_empty() {
            self.first = self.last;
        }
        self.changes.merge(changes);
    }

    /// Takes in what the kernel has for us. Returns whether that was all of it: a storm must not
    /// keep us here past the latest moment.
    fn read(&mut self, socket: &Socket) -> io::Result<bool> {
        loop {
            self.buffer.clear();
            match socket.recv(&mut self.buffer, 0) {
                Ok(_) => {
                    let mut changes = Changes::default();
                    for message in netlink::messages(&self.buffer) {
                        changes.merge(classify(message, &mut self.neighbours));
                    }
                    self.add(changes);
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(true),
                    Some(libc::EINTR) => {}
                    Some(libc::ENOBUFS) => {
                        self.neighbours.known.clear();
                        self.add(Changes::OVERRUN);
                    }
                    _ => return Err(error),
                },
            }
            if !self.changes.is_empty() && self.first.elapsed() >= LATEST {
                return Ok(false);
            }
        }
    }
}

/// Where each neighbour was last: entries change their state all the time without news for us.
#[derive(Debug, Default)]
struct Neighbours {
    /// Hardware address by family, interface and address; for forwarding entries the key is the
    /// hardware address and the value is empty.
    known: BTreeMap<(u8, u32, Vec<u8>), Option<Vec<u8>>>,
}

impl Neighbours {
    /// Whether a message says something new.
    fn is_news(&mut self, message: Message<'_>) -> bool {
        let body = message.body;
        let parse = || {
            let attributes = body.get(12..)?;
            let mac = attribute(attributes, nda::LLADDR).map(<[u8]>::to_vec);
            let family = *body.first()?;
            let (address, mac) = match i32::from(family) {
                libc::AF_BRIDGE => (mac?, None),
                libc::AF_INET => (attribute(attributes, nda::DST)?.to_vec(), mac),
                _ => return None,
            };
            Some(((family, u32_at(body, 4)?, address), u16_at(body, 8)?, mac))
        };
        let Some((key, state, mac)) = parse() else { return false };
        let bridge = i32::from(key.0) == libc::AF_BRIDGE;
        if message.kind == libc::RTM_DELNEIGH {
            // An entry that was only being asked for goes without news: resolving a dead target
            // makes such entries, and mustn't be the reason to resolve it again.
            return self.known.remove(&key).flatten().is_some() || bridge;
        }
        let mac = mac.filter(|_| state & nda::NUD_VALID != 0);
        if self.known.len() >= NEIGHBOURS_REMEMBERED {
            self.known.clear();
        }
        match self.known.insert(key, mac.clone()) {
            Some(before) => before != mac,
            // An entry that is only being asked for is no news.
            None => bridge || mac.is_some(),
        }
    }
}

fn classify(message: Message<'_>, neighbours: &mut Neighbours) -> Changes {
    let none = Changes::default();
    match message.kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => Changes { links: true, ..none },
        libc::RTM_NEWADDR | libc::RTM_DELADDR => Changes { addresses: true, ..none },
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => match message.body.get(7) {
            Some(&rtn::LOCAL) => Changes { addresses: true, ..none },
            _ => Changes { routes: true, ..none },
        },
        libc::RTM_NEWRULE | libc::RTM_DELRULE => Changes { routes: true, ..none },
        NEWNEXTHOP | DELNEXTHOP => Changes { routes: true, ..none },
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => {
            Changes { neighbours: neighbours.is_news(message), ..none }
        }
        libc::RTM_NEWQDISC..=libc::RTM_GETTFILTER => Changes { traffic_control: true, ..none },
        _ => none,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IPV4: u8 = libc::AF_INET as u8;
    const BRIDGE: u8 = libc::AF_BRIDGE as u8;
    const IPV6: u8 = libc::AF_INET6 as u8;
    const REACHABLE: u16 = 2;
    const STALE: u16 = 4;
    const INCOMPLETE: u16 = 1;
    const FAILED: u16 = 0x20;

    fn neighbour(family: u8, state: u16, mac: Option<u8>) -> Vec<u8> {
        let mut body = vec![family, 0, 0, 0, 3, 0, 0, 0];
        body.extend_from_slice(&state.to_ne_bytes());
        body.extend_from_slice(&[0, 0]);
        if family != BRIDGE {
            body.extend_from_slice(&[8, 0, 1, 0, 172, 17, 0, 2]);
        }
        if let Some(last) = mac {
            body.extend_from_slice(&[10, 0, 2, 0, 2, 0, 0, 0, 0, last, 0, 0]);
        }
        body
    }

    fn news(known: &mut Neighbours, kind: u16, body: &[u8]) -> bool {
        let message = Message { kind, flags: 0, sequence: 0, body };
        classify(message, known).neighbours
    }

    #[test]
    fn only_a_neighbour_that_moved_is_news() {
        let mut known = Neighbours::default();
        let new = libc::RTM_NEWNEIGH;
        for (state, mac, expected) in [
            (INCOMPLETE, None, false),
            (REACHABLE, Some(1), true),
            (STALE, Some(1), false),
            (REACHABLE, Some(1), false),
            (REACHABLE, Some(2), true),
            (FAILED, Some(2), true),
            (FAILED, None, false),
            (REACHABLE, Some(2), true),
        ] {
            let body = neighbour(IPV4, state, mac);
            assert_eq!(news(&mut known, new, &body), expected, "{state} {mac:?}");
        }
        assert!(news(&mut known, libc::RTM_DELNEIGH, &neighbour(IPV4, STALE, Some(2))));
        assert!(!news(&mut known, new, &neighbour(IPV6, REACHABLE, Some(2))));
    }

    #[test]
    fn asking_for_one_that_doesnt_answer_is_no_news() {
        let mut known = Neighbours::default();
        for _ in 0..3 {
            for (kind, state) in [
                (libc::RTM_NEWNEIGH, INCOMPLETE),
                (libc::RTM_NEWNEIGH, FAILED),
                (libc::RTM_DELNEIGH, FAILED),
            ] {
                assert!(!news(&mut known, kind, &neighbour(IPV4, state, None)), "{kind} {state}");
            }
        }
    }

    #[test]
    fn a_learned_forwarding_entry_is_news_once() {
        let mut known = Neighbours::default();
        let body = neighbour(BRIDGE, REACHABLE, Some(1));
        assert!(news(&mut known, libc::RTM_NEWNEIGH, &body));
        assert!(!news(&mut known, libc::RTM_NEWNEIGH, &body));
        assert!(news(&mut known, libc::RTM_DELNEIGH, &body));
        assert!(news(&mut known, libc::RTM_NEWNEIGH, &body));
    }

    #[test]
    fn local_routes_count_as_addresses() {
        let mut known = Neighbours::default();
        let mut route = [0; 12];
        for (kind, changes) in [
            (rtn::UNICAST, Changes { routes: true, ..Changes::default() }),
            (rtn::LOCAL, Changes { addresses: true, ..Changes::default() }),
        ] {
            route[7] = kind;
            let message = Message { kind: libc::RTM_NEWROUTE, flags: 0, sequence: 0, body: &route };
            assert_eq!(classify(message, &mut known), changes);
        }
    }
}
