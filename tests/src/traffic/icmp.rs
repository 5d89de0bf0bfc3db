//! Ping, and raw IPv6 sockets for any protocol: exchanges that the datapath must not touch.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;

/// ICMPv6 as a protocol number.
pub const ICMPV6: u8 = 58;
/// ESP as a protocol number.
pub const ESP: u8 = 50;
/// GRE as a protocol number.
pub const GRE: u8 = 47;

/// A raw IPv6 socket of one protocol.
#[derive(Debug)]
pub struct RawSocket(Socket);

impl RawSocket {
    /// Opens it in `ns`.
    ///
    /// # Errors
    /// Without root.
    pub fn open(ns: &Netns, protocol: u8) -> Result<Self> {
        let protocol = Protocol::from(i32::from(protocol));
        let open = || Socket::new(Domain::IPV6, Type::RAW, Some(protocol));
        let socket = ns.run(open).context("raw IPv6 socket")?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok(Self(socket))
    }

    /// Sends `payload` (what follows the IPv6 header; the kernel computes an ICMPv6 checksum).
    /// `scope` is the interface index for link-local addresses, else 0.
    ///
    /// # Errors
    /// When there is no route.
    pub fn send(&self, to: Ipv6Addr, scope: u32, payload: &[u8]) -> Result<()> {
        let to = SocketAddr::V6(SocketAddrV6::new(to, 0, 0, scope));
        self.0.send_to(payload, &to.into()).with_context(|| format!("raw send to {to}"))?;
        Ok(())
    }

    /// Receives the next payload and its sender.
    ///
    /// # Errors
    /// When none comes within a second.
    pub fn receive(&self) -> io::Result<(Vec<u8>, Ipv6Addr)> {
        let mut buffer = vec![MaybeUninit::new(0u8); 65_536];
        let (length, from) = self.0.recv_from(&mut buffer)?;
        // SAFETY: every byte of the buffer was initialised when it was made.
        let bytes = buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
        let from = from.as_socket_ipv6().map_or(Ipv6Addr::UNSPECIFIED, |address| *address.ip());
        Ok((bytes, from))
    }
}

/// Pings `to` from `ns` with `payload` and checks that the same bytes come back.
///
/// # Errors
/// When no reply comes within 2 s or it differs.
pub fn ping(ns: &Netns, to: Ipv6Addr, scope: u32, payload: &[u8]) -> Result<()> {
    const ECHO_REPLY: u8 = 129;
    let socket = RawSocket::open(ns, ICMPV6)?;
    let request = [&[128, 0, 0, 0, 0x70, 0x75, 0, 1], payload].concat();
    socket.send(to, scope, &request)?;
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        let Ok((reply, from)) = socket.receive() else { continue };
        if from == to && reply[0] == ECHO_REPLY && reply[4..8] == request[4..8] {
            if reply[8..] != *payload {
                bail!("the echo reply of {to} differs from the request");
            }
            return Ok(());
        }
    }
    bail!("no echo reply from {to}")
}
