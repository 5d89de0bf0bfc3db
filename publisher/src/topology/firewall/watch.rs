//! Notices of changes of nf_tables, and so of iptables-nft, ufw and firewalld. The older ip6_tables gives
//! none: it is looked at now and then.

use std::io;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h)
const GROUP: u32 = 7;
/// A transaction, and the next one of the same tool, are one change.
const QUIET: Duration = Duration::from_millis(50);

/// A stream of changes.
pub struct FirewallWatcher(Option<AsyncFd<Socket>>);

impl FirewallWatcher {
    /// Subscribes in the calling thread's network namespace, where the kernel has nf_tables.
    pub fn open() -> Self {
        Self(subscribe().ok())
    }

    /// Waits for the next change. Never ready without nf_tables.
    pub async fn changed(&self) {
        let Some(socket) = &self.0 else { return std::future::pending().await };
        loop {
            let Ok(mut ready) = socket.readable().await else {
                return std::future::pending().await;
            };
            let any = drain(socket.get_ref());
            ready.clear_ready();
            if any {
                tokio::time::sleep(QUIET).await;
                drain(socket.get_ref());
                return;
            }
        }
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
