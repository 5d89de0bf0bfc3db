//! A small netlink client: requests, dumps, and a walk over attributes.
//!
//! It blocks, since the kernel answers within the call that sends the request; callers on an
//! async thread use it by `spawn_blocking`. Its socket stays in the network namespace it was
//! opened in, whatever the calling thread does later.

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use netlink_sys::{Socket, SocketAddr};

const HEADER: usize = 16;
/// The kernel fills at most 32 KiB of a dump at once.
const BUFFER: usize = 64 * 1024;
/// A dump that the kernel marks as inconsistent is read again this often at most.
const DUMP_ATTEMPTS: usize = 8;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// One request in the making: a netlink header, the family's own header, attributes.
#[derive(Debug, Clone)]
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request of the given message type with the family's header; `flags` are added to
    /// `NLM_F_REQUEST`.
    pub fn new(message_type: u16, flags: i32, header: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&message_type.to_ne_bytes());
        let flags = (flags | libc::NLM_F_REQUEST) as u16;
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(header);
        bytes.resize(align(bytes.len()), 0);
        Self { bytes }
    }

    /// Appends an attribute.
    pub fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (4 + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(align(self.bytes.len()), 0);
        self
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// A netlink socket on which one request runs at a time.
pub struct Client {
    inner: Mutex<Inner>,
}

struct Inner {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Client {
    /// Opens a socket of the given protocol (`NETLINK_ROUTE`, …) in the calling thread's
    /// network namespace.
    pub fn open(protocol: i32) -> io::Result<Self> {
        let mut socket = Socket::new(protocol as isize)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Never reached with a working kernel; without it a lost answer would block for ever.
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Recv,
            Some(Duration::from_secs(5)),
        )?;
        let inner = Inner { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER) };
        Ok(Self { inner: Mutex::new(inner) })
    }

    /// Sends a request that answers with at most one message, and returns that message's body
    /// (family header and attributes), empty when it is a plain acknowledgement.
    ///
    /// # Errors
    /// The kernel's answer as an OS error (`ENOENT`, `ENETUNREACH`, …).
    pub fn request(&self, request: Request) -> io::Result<Vec<u8>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answer = Vec::new();
        inner.run(request, &mut |body| answer = body.to_vec())?;
        Ok(answer)
    }

    /// Sends a dump request and returns the body of each message. A dump that was disturbed by
    /// a change is read again.
    ///
    /// # Errors
    /// As [`Self::request`]; `EINTR` when the tables don't stand still for eight reads.
    pub fn dump(&self, request: &Request) -> io::Result<Vec<Vec<u8>>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..DUMP_ATTEMPTS {
            let mut bodies = Vec::new();
            if inner.run(request.clone(), &mut |body| bodies.push(body.to_vec()))? {
                return Ok(bodies);
            }
        }
        Err(io::Error::from_raw_os_error(libc::EINTR))
    }
}

impl Inner {
    /// Runs one request to its end. Returns false when a dump was disturbed.
    fn run(&mut self, request: Request, each: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let dump = u16::from_ne_bytes([request.bytes[6], request.bytes[7]])
            & libc::NLM_F_DUMP as u16
            == libc::NLM_F_DUMP as u16;
        self.socket.send(&request.finish(sequence), 0)?;
        let mut consistent = true;
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            for message in messages(&self.buffer) {
                if message.sequence != sequence {
                    // The rest of a request that ended early.
                    continue;
                }
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => {
                        return match error_code(message.body) {
                            0 => Ok(consistent),
                            code => Err(io::Error::from_raw_os_error(code)),
                        };
                    }
                    NLMSG_ERROR => {
                        return match error_code(message.body) {
                            0 => Ok(consistent),
                            code => Err(io::Error::from_raw_os_error(code)),
                        };
                    }
                    NLMSG_OVERRUN => return Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                    _ => {
                        each(message.body);
                        if !dump {
                            return Ok(consistent);
                        }
                    }
                }
            }
        }
    }
}

/// The errno of an error or done message, as a positive number; 0 for none.
fn error_code(body: &[u8]) -> i32 {
    body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code).saturating_neg())
}

/// One message of a datagram.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Message type (`RTM_*`, or a control type).
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// Number of the request that it answers.
    pub sequence: u32,
    /// Family header and attributes.
    pub body: &'a [u8],
}

/// Splits a datagram into its messages; stops at the first that isn't whole.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let length = u32_at(header, 0)? as usize;
        let message = Message {
            kind: u16_at(header, 4)?,
            flags: u16_at(header, 6)?,
            sequence: u32_at(header, 8)?,
            body: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some(message)
    })
}

/// Walks over the attributes of a message body or of a nested attribute: type without its flag
/// bits, value. Stops at the first that isn't whole.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        // NLA_F_NESTED and NLA_F_NET_BYTEORDER.
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of that type.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A native-endian 16-bit number at `offset`.
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|value| u16::from_ne_bytes(*value))
}

/// A native-endian 32-bit number at `offset`.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|value| u32::from_ne_bytes(*value))
}

/// A string without its closing NUL.
pub fn string(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}
