//! TCP connections one after the other, by real sockets: connect, a request, the whole answer, close.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use super::hub::ANSWER;
use crate::netns::Netns;

/// How long one connection may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Faults that are kept for the report.
const SHOWN: usize = 5;

/// How connections are made.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Threads that make them.
    pub threads: usize,
    /// The most in a second, all threads together.
    pub per_second: f64,
    /// After how many it is over.
    pub count: u64,
    /// After how long it is over.
    pub duration: Duration,
}

/// What became of the connections.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Those that got their whole answer.
    pub answered: u64,
    /// Those that didn't.
    pub failed: u64,
    /// What went wrong with some of them.
    pub faults: Vec<String>,
    /// How long it took.
    pub took: Duration,
    /// The longest that one took.
    pub longest: Duration,
}

impl Outcome {
    /// Connections in a second.
    pub fn per_second(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }
}

/// Makes connections from `ns` to `to`, whose other end is a [`super::hub::Hub`]. They come from
/// `sources` in turn: a closed connection keeps its port for a minute (TIME-WAIT), and one address
/// has 64 thousand.
///
/// # Errors
/// When there is no source.
pub fn run(ns: &Netns, to: SocketAddr, sources: &[Ipv6Addr], plan: &Plan) -> Result<Outcome> {
    ensure!(!sources.is_empty(), "connections come from somewhere");
    let (next, answered, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let faults = Mutex::new((0, Vec::new()));
    let longest = AtomicU64::new(0);
    let start = Instant::now();
    let work = || {
        while !over.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= plan.count || start.elapsed() >= plan.duration {
                return;
            }
            let due = Duration::from_secs_f64(number as f64 / plan.per_second);
            if let Some(early) = due.checked_sub(start.elapsed()) {
                std::thread::sleep(early);
            }
            let begun = Instant::now();
            match connection(sources[number as usize % sources.len()], to) {
                Ok(()) => _ = answered.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    let mut faults = faults.lock().expect("no thread panics with it");
                    faults.0 += 1;
                    if faults.1.len() < SHOWN {
                        faults.1.push(format!("connection {number}: {error:#}"));
                    }
                }
            }
            longest.fetch_max(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
        }
    };
    ns.run(|| {
        // Threads made here are in the namespace too.
        std::thread::scope(|scope| {
            for _ in 0..plan.threads {
                scope.spawn(work);
            }
        });
    });
    let (failed, faults) = faults.into_inner().expect("no thread panics with it");
    Ok(Outcome {
        answered: answered.into_inner(),
        failed,
        faults,
        took: start.elapsed(),
        longest: Duration::from_micros(longest.into_inner()),
    })
}

fn connection(from: Ipv6Addr, to: SocketAddr) -> Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_congestion(b"cubic").context("congestion control cubic")?;
    // The port is chosen at connect: one that is free towards this destination is enough.
    no_port_yet(&socket)?;
    socket.bind(&SocketAddr::from((from, 0)).into()).context("bind")?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    socket.connect(&to.into()).context("connect")?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"GET / HTTP/1.0\n").context("request")?;
    let mut answer = Vec::with_capacity(2 * ANSWER.len());
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            return Err(error).context("no answer in time");
        }
        Err(error) => return Err(error).context("answer"),
    }
    ensure!(answer == ANSWER, "another answer, of {} bytes", answer.len());
    Ok(())
}

fn no_port_yet(socket: &Socket) -> Result<()> {
    use std::os::fd::AsRawFd as _;
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    ensure!(result == 0, "IP_BIND_ADDRESS_NO_PORT: {}", std::io::Error::last_os_error());
    Ok(())
}
