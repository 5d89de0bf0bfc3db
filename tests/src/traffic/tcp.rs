//! TCP servers with a behaviour, and connection attempts with a named outcome.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;

/// How long one read or write of a test may take: longer is a stall, and fails.
pub const STALL: Duration = Duration::from_secs(10);

/// A listening server; dropping it closes the listener. Connections end by themselves.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `address` inside `ns` and runs `serve` on a thread for each connection.
    ///
    /// # Errors
    /// When the address can't be bound.
    pub fn start(
        ns: &Netns,
        address: impl Into<SocketAddr>,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Result<Self> {
        let address = address.into();
        let listener = ns.run(|| listen(address)).with_context(|| format!("listen {address}"))?;
        let peers = Arc::new(Mutex::new(Vec::new()));
        let (accepting, seen) = (listener.try_clone()?, Arc::clone(&peers));
        let serve = Arc::new(serve);
        let thread = std::thread::spawn(move || {
            while let Ok((stream, peer)) = accepting.accept() {
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(peer);
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(STALL));
                    let _ = stream.set_write_timeout(Some(STALL));
                    serve(stream);
                });
            }
        });
        Ok(Self { listener, peers, thread: Some(thread) })
    }

    /// A server that sends back what it receives.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn echo(ns: &Netns, address: impl Into<SocketAddr>) -> Result<Self> {
        Self::start(ns, address, echo)
    }

    /// A server that waits for a line and answers with `page` and the address it saw.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn page(ns: &Netns, address: impl Into<SocketAddr>, page: &'static str) -> Result<Self> {
        Self::start(ns, address, move |mut stream| {
            let mut request = [0; 512];
            let peer = stream.peer_addr().map_or_else(|e| e.to_string(), |a| a.to_string());
            if stream.read(&mut request).is_ok_and(|length| length > 0) {
                let _ = stream.write_all(format!("{page} for {peer}\n").as_bytes());
            }
        })
    }

    /// The addresses that connections came from, in order.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The address of the last connection.
    ///
    /// # Errors
    /// When there was none.
    pub fn last_peer(&self) -> Result<SocketAddr> {
        self.peers().last().copied().context("nobody has connected to the server")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the accepting thread up: its accept fails from now on.
        let _ = rustix::net::shutdown(self.listener.as_fd(), rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Sends back what it receives until the other side closes.
pub fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length) = stream.read(&mut buffer) {
        if length == 0 || stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// What became of a connection attempt.
#[derive(Debug)]
pub enum Outcome {
    /// Connected.
    Connected(TcpStream),
    /// A RST answered.
    Refused,
    /// Nothing answered in time.
    TimedOut,
    /// Something else, such as an ICMP error.
    Failed(io::Error),
}

impl Outcome {
    /// The connection.
    ///
    /// # Errors
    /// When there is none; the error says what happened instead.
    pub fn connected(self) -> Result<TcpStream> {
        match self {
            Self::Connected(stream) => Ok(stream),
            other => anyhow::bail!("expected a connection: {other:?}"),
        }
    }
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, Default)]
pub struct From {
    /// The local address, or the kernel's choice.
    pub address: Option<Ipv6Addr>,
    /// The local port, or the kernel's choice (0).
    pub port: u16,
}

/// Tries to connect from `ns` for at most `limit`.
pub fn try_connect(ns: &Netns, to: impl Into<SocketAddr>, limit: Duration) -> Outcome {
    try_connect_from(ns, From::default(), to.into(), limit)
}

/// Tries to connect from a given address or port in `ns` for at most `limit`.
pub fn try_connect_from(ns: &Netns, from: From, to: SocketAddr, limit: Duration) -> Outcome {
    let attempt = || -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        if from.port != 0 || from.address.is_some() {
            socket.set_reuse_address(true)?;
            let address = from.address.unwrap_or(Ipv6Addr::UNSPECIFIED);
            socket.bind(&SocketAddr::from((IpAddr::V6(address), from.port)).into())?;
        }
        socket.connect_timeout(&to.into(), limit)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STALL))?;
        stream.set_write_timeout(Some(STALL))?;
        Ok(stream)
    };
    match ns.run(attempt) {
        Ok(stream) => Outcome::Connected(stream),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => Outcome::Refused,
            io::ErrorKind::TimedOut => Outcome::TimedOut,
            _ => Outcome::Failed(error),
        },
    }
}

/// Connects from `ns`; a test's normal way.
///
/// # Errors
/// When nothing accepts within 3 s.
pub fn connect(ns: &Netns, to: impl Into<SocketAddr>) -> Result<TcpStream> {
    let to = to.into();
    try_connect(ns, to, Duration::from_secs(3)).connected().with_context(|| format!("to {to}"))
}

/// Sends `line` and returns the answer up to the end of the connection or of the line.
///
/// # Errors
/// When the connection breaks or stalls.
pub fn ask(stream: &mut TcpStream, line: &str) -> Result<String> {
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut byte = [0; 1];
    while !answer.ends_with(b"\n") && stream.read(&mut byte).context("no answer")? == 1 {
        answer.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
}

/// Connects, asks one line, returns the answer.
///
/// # Errors
/// When there is no connection or no answer.
pub fn fetch(ns: &Netns, to: impl Into<SocketAddr>) -> Result<String> {
    ask(&mut connect(ns, to)?, "GET /")
}

/// Ends the connection with a RST, so that neither side keeps it in TIME-WAIT.
///
/// # Errors
/// When the socket refuses the option.
pub fn abort(stream: TcpStream) -> Result<()> {
    let socket = Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO))?;
    Ok(())
}

/// Waits for the other side's RST.
///
/// # Errors
/// When something else comes, or nothing within 2 s.
pub fn is_reset(stream: &mut TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    match stream.read(&mut [0; 1]) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        other => anyhow::bail!("expected a reset: {other:?}"),
    }
}

/// Closes the sending half.
///
/// # Errors
/// When the connection is gone.
pub fn half_close(stream: &TcpStream) -> Result<()> {
    stream.shutdown(Shutdown::Write).context("half-close")
}
