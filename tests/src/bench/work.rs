//! What every contender has to carry, seen from the client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

use super::machine;
use super::service::{ANSWER, BLOCK, DOWN, REQUEST, Service, UP, prepare};
use crate::interrupt;
use crate::netns::Netns;

/// What passes before the measuring begins: the congestion window opens, caches fill.
const WARM_UP: Duration = Duration::from_millis(300);
/// Threads of the client that open short connections.
const CLIENTS: usize = 4;

/// The way of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the client to the container.
    Up,
    /// From the container to the client.
    Down,
}

/// What one stream came to.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    /// Throughput in gigabits (10⁹ bits) of payload per second.
    pub gigabits: f64,
    /// Processor time of the whole machine per gigabyte (10⁹ bytes) of payload, in seconds.
    pub cpu_per_gigabyte: f64,
}

/// What short connections came to.
#[derive(Debug, Clone, Copy)]
pub struct Connections {
    /// Connections that got their whole answer, per second.
    pub per_second: f64,
    /// Those that didn't, in all.
    pub failed: u64,
}

/// Sends or receives as fast as it goes through one connection from `client` to `to`, whose other
/// end is `service`.
///
/// # Errors
/// When there is no connection, it breaks, or nothing arrives; on Ctrl-C.
pub fn stream(
    client: &Netns,
    to: SocketAddr,
    service: &Service,
    direction: Direction,
    duration: Duration,
) -> Result<Stream> {
    let mut connection = client.run(|| connect(to)).with_context(|| format!("connect to {to}"))?;
    connection.write_all(&[if direction == Direction::Up { UP } else { DOWN }])?;
    let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
    let arrived = || match direction {
        Direction::Up => service.received(),
        Direction::Down => received.load(Ordering::Relaxed),
    };
    let measured = thread::scope(|scope| -> Result<Stream> {
        let pump = scope.spawn(|| pump(connection, direction, &stop, &received));
        let measured = (|| {
            pass(WARM_UP)?;
            let (start, busy, bytes) = (Instant::now(), machine::busy()?, arrived());
            pass(duration)?;
            let (seconds, used) = (start.elapsed().as_secs_f64(), machine::busy()? - busy);
            let bytes = (arrived() - bytes) as f64;
            ensure!(bytes > 0.0, "nothing arrived in {duration:?}");
            Ok(Stream {
                gigabits: bytes * 8.0 / 1e9 / seconds,
                cpu_per_gigabyte: used.as_secs_f64() / (bytes / 1e9),
            })
        })();
        stop.store(true, Ordering::Relaxed);
        let pumped = pump.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        pumped.context("the stream broke").and(measured)
    });
    service.settle()?;
    measured
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    prepare(&socket)?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// The client's end of a stream; the connection is closed when it returns.
fn pump(
    mut stream: TcpStream,
    direction: Direction,
    stop: &AtomicBool,
    received: &AtomicU64,
) -> Result<()> {
    let mut block = vec![0; BLOCK];
    while !stop.load(Ordering::Relaxed) {
        match direction {
            Direction::Up => _ = stream.write(&block)?,
            Direction::Down => {
                let length = stream.read(&mut block)?;
                ensure!(length > 0, "the container closed it");
                received.fetch_add(length as u64, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

/// Opens short connections from `client` to `to` one after the other, on several threads: connect,
/// a small request, a small answer, and the container closes.
///
/// # Errors
/// When not a single one succeeds; on Ctrl-C.
pub fn connections(client: &Netns, to: SocketAddr, duration: Duration) -> Result<Connections> {
    let (stop, done, failed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let last_error = std::sync::Mutex::new(None);
    let counted = client.run(|| {
        // Threads made here are in the client's namespace too.
        thread::scope(|scope| -> Result<(u64, f64)> {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        match one_connection(to) {
                            Ok(()) => _ = done.fetch_add(1, Ordering::Relaxed),
                            Err(error) => {
                                failed.fetch_add(1, Ordering::Relaxed);
                                if let Ok(mut last) = last_error.lock() {
                                    *last = Some(error);
                                }
                            }
                        }
                    }
                });
            }
            let counted = (|| {
                pass(WARM_UP)?;
                let (start, before) = (Instant::now(), done.load(Ordering::Relaxed));
                pass(duration)?;
                let count = done.load(Ordering::Relaxed) - before;
                Ok((count, start.elapsed().as_secs_f64()))
            })();
            stop.store(true, Ordering::Relaxed);
            counted
        })
    });
    let (count, seconds) = counted?;
    let last_error = last_error.into_inner().ok().flatten();
    if let Some(error) = last_error.as_ref().filter(|_| count > 0) {
        eprintln!(
            "bench: {} connections to {to} failed: {error:#}",
            failed.load(Ordering::Relaxed)
        );
    }
    match last_error {
        Some(error) if count == 0 => Err(error.context(format!("no connection to {to}"))),
        _ => {
            ensure!(count > 0, "no connection to {to} in {duration:?}");
            let failed = failed.into_inner();
            Ok(Connections { per_second: count as f64 / seconds, failed })
        }
    }
}

fn one_connection(to: SocketAddr) -> Result<()> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    // Bounds the connect as well.
    socket.set_write_timeout(Some(Duration::from_secs(3)))?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    socket.connect(&to.into()).context("connect")?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(&[b'q'; REQUEST]).context("request")?;
    let (mut answer, mut length) = ([0; ANSWER * 2], 0);
    loop {
        match stream.read(&mut answer[length..]).context("answer")? {
            0 => break,
            part => length += part,
        }
    }
    ensure!(length == ANSWER, "answer of {length} bytes, expected {ANSWER}");
    Ok(())
}

/// Sleeps, but not on after Ctrl-C.
fn pass(duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        thread::sleep(left.min(Duration::from_millis(250)));
        interrupt::check()?;
    }
    Ok(())
}
