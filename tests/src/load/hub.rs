//! The service in the container: one thread for all connections, which gives or takes verified bytes
//! or answers one request, as the client asks; and an echo for datagrams.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;
use crate::traffic::bulk::next_random;

/// What a client sends first when it wants to receive.
pub const DOWN: u8 = b'd';
/// What it sends first when it wants to send.
pub const UP: u8 = b'u';
/// The whole answer to a request, which is a line that begins with another letter.
pub const ANSWER: &[u8] = b"HTTP/1.0 200 OK\r\n\r\nthe answer to a request\n";
/// Bytes of one read or write.
pub const BLOCK: usize = 64 * 1024;
/// Bytes after which the data repeats: a prime number, so that nothing lost or repeated looks right.
const PERIOD: usize = 65_521;
/// Bytes that a socket may hold: hundreds of them share the memory.
const BUFFER: usize = 256 * 1024;
const LISTENER: u64 = 0;

/// What clients and service send each other.
#[derive(Debug)]
pub struct Data(Vec<u8>);

impl Default for Data {
    fn default() -> Self {
        let mut state = 77;
        let words = (0..PERIOD.div_ceil(8)).flat_map(|_| next_random(&mut state).to_le_bytes());
        let mut bytes: Vec<u8> = words.take(PERIOD).collect();
        bytes.extend_from_within(..);
        bytes.extend_from_within(..PERIOD);
        Self(bytes)
    }
}

impl Data {
    /// The bytes from `position` on.
    pub fn at(&self, position: u64) -> &[u8] {
        let start = (position % PERIOD as u64) as usize;
        &self.0[start..start + BLOCK]
    }
}

/// One end of a transfer, or a request.
#[derive(Debug)]
pub struct End {
    stream: TcpStream,
    role: Role,
    /// Bytes given or taken so far.
    position: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Unknown,
    Give,
    Take,
}

/// What came of one turn of an [`End`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// So many bytes were taken, and they were the right ones.
    Verified(usize),
    /// Bytes were given, or there was nothing to do.
    Idle,
    /// The other side closed.
    Closed,
}

impl End {
    /// The client's end of a transfer: `way` is [`DOWN`] or [`UP`].
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn of_client(mut stream: TcpStream, way: u8) -> io::Result<Self> {
        stream.write_all(&[way])?;
        stream.set_nonblocking(true)?;
        let role = if way == DOWN { Role::Take } else { Role::Give };
        Ok(Self { stream, role, position: 0 })
    }

    /// Its socket.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether it waits for room to write, not for something to read.
    pub fn gives(&self) -> bool {
        self.role == Role::Give
    }

    /// Bytes given or taken so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Gives or takes what goes at once.
    ///
    /// # Errors
    /// When the connection breaks, or wrong bytes come.
    pub fn turn(&mut self, data: &Data, room: &mut [u8]) -> io::Result<Turn> {
        match self.role {
            Role::Give => match self.stream.write(data.at(self.position)) {
                Ok(length) => {
                    self.position += length as u64;
                    Ok(Turn::Idle)
                }
                Err(error) => later(error),
            },
            Role::Take => match self.stream.read(room) {
                Ok(0) => Ok(Turn::Closed),
                Ok(length) if room[..length] == data.at(self.position)[..length] => {
                    self.position += length as u64;
                    Ok(Turn::Verified(length))
                }
                Ok(length) => {
                    let place = format!("{length} wrong bytes at {}", self.position);
                    Err(io::Error::new(io::ErrorKind::InvalidData, place))
                }
                Err(error) => later(error),
            },
            Role::Unknown => self.learn(),
        }
    }

    /// Reads what the client wants; a request is answered at once.
    fn learn(&mut self) -> io::Result<Turn> {
        let mut first = [0; 512];
        // A byte of its own: data may follow at once.
        match self.stream.read(&mut first[..1]) {
            Ok(0) => return Ok(Turn::Closed),
            Ok(_) => {}
            Err(error) => return later(error),
        }
        match first[0] {
            DOWN => self.role = Role::Give,
            UP => self.role = Role::Take,
            _ => {
                // The rest of the line; unread bytes would make the close a reset.
                let _ = self.stream.read(&mut first);
                self.stream.write_all(ANSWER)?;
                return Ok(Turn::Closed);
            }
        }
        Ok(Turn::Idle)
    }
}

fn later(error: io::Error) -> io::Result<Turn> {
    if error.kind() == io::ErrorKind::WouldBlock { Ok(Turn::Idle) } else { Err(error) }
}

/// A socket with the congestion control of the tests, which doesn't pace, and small buffers.
///
/// # Errors
/// When the kernel has no cubic.
pub fn socket(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_congestion(b"cubic")?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)?;
    Ok(socket)
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    verified: AtomicU64,
    answered: AtomicU64,
    faults: Mutex<Vec<String>>,
}

/// The running service; dropping it ends it.
#[derive(Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Hub {
    /// Listens on `address` inside `ns` for TCP, and echoes datagrams there.
    ///
    /// # Errors
    /// When the address can't be bound.
    pub fn start(ns: &Netns, address: impl Into<SocketAddr>) -> Result<Self> {
        let address = address.into();
        let (listener, udp) = ns
            .run(|| Ok::<_, io::Error>((listen(address)?, UdpSocket::bind(address)?)))
            .with_context(|| format!("listen on {address}"))?;
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        watch(&poll, &listener, LISTENER, false)?;
        udp.set_read_timeout(Some(Duration::from_millis(50)))?;
        let shared = Arc::new(Shared::default());
        let (of_tcp, of_udp) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            std::thread::spawn(move || serve(&listener, &poll, &of_tcp)),
            std::thread::spawn(move || echo(&udp, &of_udp)),
        ];
        Ok(Self { shared, threads })
    }

    /// Bytes that have come in uploads so far, all of them the right ones.
    pub fn verified(&self) -> u64 {
        self.shared.verified.load(Ordering::Relaxed)
    }

    /// Datagrams sent back so far.
    pub fn echoed(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// What has gone wrong so far in transfers.
    pub fn faults(&self) -> Vec<String> {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(Domain::for_address(address))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Has `poll` tell of `socket` under `name`.
///
/// # Errors
/// When the kernel refuses.
pub fn watch(poll: &OwnedFd, socket: &impl AsFd, name: u64, writes: bool) -> io::Result<()> {
    let flags = if writes { epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
    Ok(epoll::add(poll, socket, epoll::EventData::new_u64(name), flags)?)
}

/// The names of sockets that have something to do, after 50 ms at most.
///
/// # Errors
/// When the kernel refuses.
pub fn ready(poll: &OwnedFd, events: &mut Vec<epoll::Event>) -> io::Result<Vec<u64>> {
    events.clear();
    let limit = rustix::time::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    match epoll::wait(poll, spare_capacity(events), Some(&limit)) {
        Ok(_) => Ok(events.iter().map(|event| event.data.u64()).collect()),
        Err(rustix::io::Errno::INTR) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn serve(listener: &TcpListener, poll: &OwnedFd, shared: &Shared) {
    let (data, mut room) = (Data::default(), vec![0; BLOCK]);
    let mut ends: HashMap<u64, End> = HashMap::new();
    let mut events = Vec::with_capacity(256);
    let mut next = LISTENER;
    while !shared.ended.load(Ordering::Relaxed) {
        let Ok(names) = ready(poll, &mut events) else { return };
        for name in names {
            if name == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    next += 1;
                    let watched = stream.set_nonblocking(true).is_ok()
                        && watch(poll, &stream, next, false).is_ok();
                    if watched {
                        ends.insert(next, End { stream, role: Role::Unknown, position: 0 });
                    }
                }
                continue;
            }
            let Some(end) = ends.get_mut(&name) else { continue };
            let role = end.role;
            match end.turn(&data, &mut room) {
                Ok(Turn::Verified(length)) => {
                    shared.verified.fetch_add(length as u64, Ordering::Relaxed);
                }
                Ok(Turn::Idle) if end.role != role && end.gives() => {
                    let data = epoll::EventData::new_u64(name);
                    let _ = epoll::modify(poll, &end.stream, data, epoll::EventFlags::OUT);
                }
                Ok(Turn::Idle) => {}
                Ok(Turn::Closed) => drop(ends.remove(&name)),
                Err(error) => {
                    // A giver learns by an error that the client has gone: that is the client's to
                    // judge.
                    if end.role == Role::Take {
                        let fault = format!("upload at {}: {error}", end.position);
                        shared.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
                    }
                    ends.remove(&name);
                }
            }
        }
    }
}

/// Sends datagrams back when the processors have nothing better to do: a flood must not be paid for
/// here, where what it costs the path is measured.
fn echo(udp: &UdpSocket, shared: &Shared) {
    let _ = rustix::process::setpriority_process(None, 19);
    let mut room = [0; 2048];
    while !shared.ended.load(Ordering::Relaxed) {
        if let Ok((length, from)) = udp.recv_from(&mut room)
            && udp.send_to(&room[..length], from).is_ok()
        {
            shared.answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}
