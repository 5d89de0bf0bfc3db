//! Moving data between two connections until both sides have said all they have to say.
//!
//! What fits a small buffer is copied: a request and its answer cost two system calls each. When a side
//! fills that buffer, data goes on through a pipe, without being copied (splice(2)), until there is no more.
//! Both are given back before a connection waits for data, so that one at rest costs no memory. A side that
//! reads slowly holds up the other one: at most a pipe is between them.

use super::pipes::{Pipe, Pipes, SIZE};
use super::table::{Connection, Sent, now};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::pipe::{SpliceFlags, splice};
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::pin::pin;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What is copied in one go. A side that has more to say is worth a pipe.
const SMALL: usize = 16 << 10;
/// What is read before there is a connection to the container; it always finds room in a new one.
const FIRST: usize = 4 << 10;
/// Less than this in one go isn't.
const WORTH_A_PIPE: usize = 8 << 10;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SMALL].into());
}

/// One direction of a connection.
struct Way<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    pipes: &'a Pipes,
    connection: &'a Connection,
    sent: &'a Sent,
}

/// What a container has sent before it was reset may take so long to reach its client.
const REST: Duration = Duration::from_secs(2);

/// Moves data both ways until both sides have closed theirs.
///
/// # Errors
/// When either side was reset, or went away. What the container had sent before that is delivered: a server
/// that answers and doesn't read on resets its connection (RFC 1122 §4.2.2.13).
pub(super) async fn relay(
    client: &TcpStream,
    container: &TcpStream,
    pipes: &Pipes,
    connection: &Connection,
) -> io::Result<()> {
    let Connection { from_client, from_container, .. } = connection;
    let up = Way { from: client, to: container, pipes, connection, sent: from_client };
    let down = Way { from: container, to: client, pipes, connection, sent: from_container };
    let mut down = pin!(down.run());
    let failure = {
        let mut up = pin!(up.run());
        let (mut up_ended, mut down_ended) = (false, false);
        loop {
            tokio::select! {
                done = &mut up, if !up_ended => match done {
                    Ok(()) => up_ended = true,
                    // All of it has been passed on: there is no rest to wait for.
                    Err(error) if down_ended => return Err(error),
                    Err(error) => break error,
                },
                done = &mut down, if !down_ended => match done {
                    Ok(()) => down_ended = true,
                    Err(error) => return Err(error),
                },
                // A side that has sent its FIN isn't read any more; a RST that follows would go unnoticed.
                error = broken(client) => return Err(error),
                error = broken(container) => {
                    if down_ended {
                        return Err(error);
                    }
                    break error;
                }
            }
            if up_ended && down_ended {
                return Ok(());
            }
        }
    };
    let rest = async {
        let _ = down.await;
        while unsent(client) > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(REST, rest) => Err(failure),
        error = broken(client) => Err(error),
    }
}

/// Ready when a connection was reset. The error is left for those who read.
async fn broken(stream: &TcpStream) -> io::Error {
    match stream.ready(Interest::ERROR).await {
        Ok(_) => io::ErrorKind::ConnectionReset.into(),
        Err(error) => error,
    }
}

/// Bytes that the other side hasn't acknowledged.
fn unsent(stream: &TcpStream) -> libc::c_int {
    let mut count: libc::c_int = 0;
    // SAFETY: SIOCOUTQ writes an int, which lives through the call.
    let done = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if done == 0 { count } else { 0 }
}

async fn write_all(to: &TcpStream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        to.writable().await?;
        match to.try_write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Tells a side that the other one has said all.
fn shut(to: &TcpStream) -> io::Result<()> {
    match rustix::net::shutdown(to, rustix::net::Shutdown::Write) {
        // It has been reset, or has closed already.
        Ok(()) | Err(rustix::io::Errno::NOTCONN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What one step has found.
struct Step {
    /// So much was there.
    count: usize,
    /// More than the other side takes now: this is left.
    left: Vec<u8>,
    /// What came behind it: nothing yet, the side's end, or its failure.
    then: io::Result<Then>,
}

/// What comes behind data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    More,
    End,
}

/// What a client has sent already; nothing where it has sent nothing, or has closed.
pub(super) fn what_is_there(stream: &TcpStream) -> io::Result<Vec<u8>> {
    BUFFER.with_borrow_mut(|buffer| match recv(stream, &mut buffer[..FIRST], RecvFlags::DONTWAIT) {
        Ok((_, count)) => Ok(buffer[..count].to_vec()),
        Err(Errno::AGAIN) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    })
}

impl Way<'_> {
    async fn run(&self) -> io::Result<()> {
        let mut is_bulk = false;
        loop {
            // A side that always has a little more keeps the other one waiting no longer than its turn.
            tokio::task::coop::consume_budget().await;
            self.from.readable().await?;
            if is_bulk && let Some(pipe) = self.pipes.borrow() {
                match self.through(pipe).await? {
                    None => break,
                    Some(moved) => is_bulk = moved >= WORTH_A_PIPE,
                }
                continue;
            }
            match self.copy() {
                Ok(Step { count, left, then }) => {
                    write_all(self.to, &left).await?;
                    if then? == Then::End {
                        break;
                    }
                    is_bulk = count == SMALL || !left.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        shut(self.to)
    }

    fn moved(&self, bytes: usize) {
        self.sent.add(0, bytes);
        self.connection.touch(now());
    }

    /// Copies what is there, as far as a small buffer goes.
    fn copy(&self) -> io::Result<Step> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut count = self.from.try_read(buffer)?;
            if count == 0 {
                return Ok(Step { count, left: Vec::new(), then: Ok(Then::End) });
            }
            let mut then = Ok(Then::More);
            if count < SMALL {
                match self.from.try_read(&mut buffer[count..]) {
                    Ok(0) => then = Ok(Then::End),
                    Ok(more) => count += more,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => then = Err(error),
                }
            }
            self.moved(count);
            // An answer is often the last one: then its end goes with it, in one packet.
            let is_last = matches!(then, Ok(Then::End));
            let flags = if is_last { SendFlags::MORE } else { SendFlags::empty() };
            let (to, data) = (self.to, &buffer[..count]);
            let send = || Ok(send(to, data, flags | SendFlags::NOSIGNAL)?);
            let written = match to.try_io(Interest::WRITABLE, send) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            Ok(Step { count, left: buffer[written..count].to_vec(), then })
        })
    }

    /// Moves what is there and what comes meanwhile through a pipe; says how much that was, and nothing if
    /// it was the last.
    async fn through(&self, pipe: Pipe) -> io::Result<Option<usize>> {
        let mut all = 0;
        loop {
            let (from, into) = (self.from.as_fd(), pipe.writes.as_fd());
            let count = match self.from.try_io(Interest::READABLE, || shift(from, into, SIZE)) {
                Ok(0) => {
                    self.pipes.give_back(pipe);
                    return Ok(None);
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.pipes.give_back(pipe);
                    return Ok(Some(all));
                }
                Err(error) => return Err(error),
            };
            self.moved(count);
            all += count;
            let mut held = count;
            while held > 0 {
                let (out, to) = (pipe.reads.as_fd(), self.to.as_fd());
                match self.to.try_io(Interest::WRITABLE, || shift(out, to, held)) {
                    Ok(count) => held -= count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.to.writable().await?;
                    }
                    Err(error) => return Err(error),
                }
            }
            // Others have their turn.
            tokio::task::coop::consume_budget().await;
        }
    }
}

fn shift(from: BorrowedFd<'_>, to: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    Ok(splice(from, None, to, None, count, flags)?)
}
