//! UDP servers and clients.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Netns;

/// How long a client waits for a reply.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Sender and content of a datagram.
pub type Datagram = (SocketAddr, Vec<u8>);

/// A UDP server that records what came and from whom.
#[derive(Debug)]
pub struct Server {
    socket: UdpSocket,
    seen: Arc<Mutex<Vec<Datagram>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Sends every datagram back.
    ///
    /// # Errors
    /// When the address can't be bound.
    pub fn echo(ns: &Netns, address: impl Into<SocketAddr>) -> Result<Self> {
        Self::start(ns, address.into(), true)
    }

    /// Only records what comes; replies are sent with [`Server::reply`].
    ///
    /// # Errors
    /// When the address can't be bound.
    pub fn sink(ns: &Netns, address: impl Into<SocketAddr>) -> Result<Self> {
        Self::start(ns, address.into(), false)
    }

    fn start(ns: &Netns, address: SocketAddr, echo: bool) -> Result<Self> {
        let socket = ns.run(|| UdpSocket::bind(address));
        let socket = socket.with_context(|| format!("bind udp {address}"))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (receiving, into, ended) = (socket.try_clone()?, Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !ended.load(Ordering::Relaxed) {
                let Ok((length, peer)) = receiving.recv_from(&mut buffer) else { continue };
                let datagram = buffer[..length].to_vec();
                // Recorded first: who has the reply may look at the record.
                let recorded = (peer, datagram.clone());
                into.lock().unwrap_or_else(PoisonError::into_inner).push(recorded);
                if echo {
                    let _ = receiving.send_to(&datagram, peer);
                }
            }
        });
        Ok(Self { socket, seen, stop, thread: Some(thread) })
    }

    /// Sets an option of the server's socket, which takes an int.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_option(
        &self,
        level: libc::c_int,
        name: libc::c_int,
        value: libc::c_int,
    ) -> Result<()> {
        // SAFETY: the option takes an int, which lives through the call.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        let error = io::Error::last_os_error();
        if result == 0 { Ok(()) } else { Err(error).with_context(|| format!("option {name}")) }
    }

    /// Senders and contents of the datagrams so far.
    pub fn seen(&self) -> Vec<Datagram> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a datagram with this content and returns its sender.
    ///
    /// # Errors
    /// When none comes within 2 s.
    pub fn wait_for(&self, content: &[u8]) -> Result<SocketAddr> {
        let mut found = None;
        crate::shell::wait_until(PATIENCE, || {
            found = self.seen().into_iter().find(|(_, data)| data == content).map(|(from, _)| from);
            found.is_some()
        });
        found.with_context(|| format!("{:?} never came", String::from_utf8_lossy(content)))
    }

    /// Sends a datagram from the server's address and port.
    ///
    /// # Errors
    /// When it can't be sent.
    pub fn reply(&self, to: SocketAddr, content: &[u8]) -> Result<()> {
        self.socket.send_to(content, to).context("reply")?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A client socket in `ns`, on a port of the kernel's choice or on `port`.
///
/// # Errors
/// When the port is taken.
pub fn client(ns: &Netns, port: u16) -> Result<UdpSocket> {
    let socket = ns.run(|| UdpSocket::bind(("::", port))).context("bind a udp client")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Sends `content` to `to` and returns the reply and where it came from.
///
/// # Errors
/// When no reply comes within 2 s.
pub fn ask(socket: &UdpSocket, to: SocketAddr, content: &[u8]) -> Result<(Vec<u8>, SocketAddr)> {
    socket.send_to(content, to).with_context(|| format!("send to {to}"))?;
    let mut buffer = vec![0; 65_536];
    let (length, from) =
        socket.recv_from(&mut buffer).with_context(|| format!("no reply from {to}"))?;
    buffer.truncate(length);
    Ok((buffer, from))
}

/// True when nothing comes to the socket within `quiet`.
///
/// # Errors
/// When the socket fails otherwise.
pub fn silent(socket: &UdpSocket, quiet: Duration) -> Result<bool> {
    socket.set_read_timeout(Some(quiet))?;
    let answer = socket.recv_from(&mut [0; 2048]);
    socket.set_read_timeout(Some(PATIENCE))?;
    match answer {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error).context("udp client"),
    }
}
