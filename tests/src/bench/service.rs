//! What runs in the container: a server for one stream at a time, and one for short connections.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;
use crate::shell;
use crate::traffic::tcp::STALL;

/// The port of short connections, in the container.
pub const SHORT_PORT: u16 = 80;
/// The port of streams, in the container.
pub const STREAM_PORT: u16 = 81;
/// What a client of a stream sends first when it wants to send.
pub const UP: u8 = b'u';
/// What it sends first when it wants to receive.
pub const DOWN: u8 = b'd';
/// Bytes of one read or write of a stream.
pub const BLOCK: usize = 128 * 1024;
/// Bytes of a short connection's request.
pub const REQUEST: usize = 64;
/// Bytes of its answer.
pub const ANSWER: usize = 256;

/// Threads that accept short connections: more than processors, so that none waits for another.
const ACCEPTING: usize = 4;

/// Both servers; dropping it ends them.
#[derive(Debug)]
pub struct Service {
    listeners: Vec<TcpListener>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    /// Bytes of streams received so far.
    received: AtomicU64,
    /// Streams that go on.
    streams: AtomicUsize,
    last_peer: Mutex<Option<IpAddr>>,
}

impl Service {
    /// Starts both servers on `address` inside `ns`.
    ///
    /// # Errors
    /// When a port can't be bound, or the kernel has no cubic.
    pub fn start(ns: &Netns, address: IpAddr) -> Result<Self> {
        let listen = |port| {
            let address = SocketAddr::from((address, port));
            ns.run(|| listen(address)).with_context(|| format!("listen on {address}"))
        };
        let (short, stream) = (listen(SHORT_PORT)?, listen(STREAM_PORT)?);
        let shared = Arc::new(Shared::default());
        let mut threads = Vec::new();
        for _ in 0..ACCEPTING {
            let (listener, shared) = (short.try_clone()?, Arc::clone(&shared));
            threads.push(thread::spawn(move || answer_connections(&listener, &shared)));
        }
        let (listener, of_streams) = (stream.try_clone()?, Arc::clone(&shared));
        threads.push(thread::spawn(move || serve_streams(&listener, &of_streams)));
        Ok(Self { listeners: vec![short, stream], threads, shared })
    }

    /// Bytes that streams have brought so far.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// Who the last stream came from.
    ///
    /// # Errors
    /// When there was none.
    pub fn last_peer(&self) -> Result<IpAddr> {
        let peer = *self.shared.last_peer.lock().unwrap_or_else(PoisonError::into_inner);
        peer.context("no stream has reached the container")
    }

    /// Waits until no stream goes on, so that the next work has the machine for itself.
    ///
    /// # Errors
    /// When one still does after 10 s.
    pub fn settle(&self) -> Result<()> {
        let over = || self.shared.streams.load(Ordering::Relaxed) == 0;
        ensure!(shell::wait_until(STALL, over), "a stream doesn't end in the container");
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for listener in &self.listeners {
            // Wakes the accepting threads up: their accept fails from now on.
            let _ = rustix::net::shutdown(listener.as_fd(), rustix::net::Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    prepare(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Gives a socket the benchmark's congestion control, which doesn't pace, and its limit for one
/// read, write or connect. What is accepted from it has both too.
///
/// # Errors
/// When the kernel has no cubic.
pub fn prepare(socket: &Socket) -> Result<()> {
    socket.set_tcp_congestion(b"cubic").context("congestion control cubic")?;
    socket.set_read_timeout(Some(STALL))?;
    socket.set_write_timeout(Some(STALL))?;
    Ok(())
}

fn answer_connections(listener: &TcpListener, shared: &Shared) {
    while !shared.ended.load(Ordering::Relaxed) {
        // Fails when nobody came for a while, too; what goes wrong later is the client's to count.
        if let Ok((mut stream, _)) = listener.accept() {
            let mut request = [0; REQUEST];
            if stream.read_exact(&mut request).is_ok() {
                let _ = stream.write_all(&[b'a'; ANSWER]);
            }
        }
    }
}

fn serve_streams(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.ended.load(Ordering::Relaxed) {
        let Ok((stream, peer)) = listener.accept() else { continue };
        *shared.last_peer.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer.ip());
        shared.streams.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            serve_stream(stream, &shared);
            shared.streams.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Takes or gives bytes until the client goes away.
fn serve_stream(mut stream: TcpStream, shared: &Shared) {
    let mut direction = [0; 1];
    if stream.read_exact(&mut direction).is_err() {
        return;
    }
    let mut block = vec![0; BLOCK];
    if direction[0] == DOWN {
        while stream.write(&block).is_ok() {}
        return;
    }
    while let Ok(length @ 1..) = stream.read(&mut block) {
        shared.received.fetch_add(length as u64, Ordering::Relaxed);
    }
}
