//! Notices of changes of nf_tables, and so of iptables-nft, ufw and firewalld. The older ip6_tables gives
//! none: it is looked at now and then.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h)
const GROUP: u32 = 7;
/// A transaction, and the next one of the same tool, are one change.
const QUIET: Duration = Duration::from_millis(50);

/// A stream of changes.
pub struct FirewallWatcher {
    socket: Option<AsyncFd<Socket>>,
    /// A change was heard of, and nobody has been told yet.
    pending: AtomicBool,
}

impl FirewallWatcher {
    /// Subscribes in the calling thread's network namespace, where the kernel has nf_tables.
    pub fn open() -> Self {
        Self { socket: subscribe().ok(), pending: AtomicBool::new(false) }
    }

    /// Waits for the next change. Never ready without nf_tables. Nothing is lost when the returned future
    /// is dropped and `changed` is called again.
    pub async fn changed(&self) {
        let Some(socket) = &self.socket else { return std::future::pending().await };
        while !self.pending.load(Ordering::Relaxed) {
            let Ok(mut ready) = socket.readable().await else {
                return std::future::pending().await;
            };
            if drain(socket.get_ref()) {
                self.pending.store(true, Ordering::Relaxed);
            }
            ready.clear_ready();
        }
        tokio::time::sleep(QUIET).await;
        drain(socket.get_ref());
        self.pending.store(false, Ordering::Relaxed);
    }
}

fn subscribe() -> io::Result<AsyncFd<Socket>> {
    let mut socket = Socket::new(libc::NETLINK_NETFILTER as isize)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    socket.add_membership(GROUP)?;
    // SAFETY: the socket owns its descriptor, gives the same one every time, and closes it only
    // when it is dropped, which `AsyncFd` does after it has deregistered.
    unsafe { AsyncFd::register(socket) }.map_err(Into::into)
}

/// Throws away what has come; says whether there was any. What was lost for want of room is a change too.
fn drain(socket: &Socket) -> bool {
    let mut buffer = Vec::with_capacity(64 * 1024);
    let mut any = false;
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Ok(_) => any = true,
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOBUFS) => any = true,
                Some(libc::EINTR) => {}
                _ => return any,
            },
        }
    }
}
