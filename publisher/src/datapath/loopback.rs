//! Whether packets of local processes can be translated at the loopback interface: tried out, in a
//! network namespace of its own.
//!
//! The host routes such a packet before it sends it, and the packet keeps that IPv6 route. A kernel that
//! leaves the route on a packet whose family is changed then handles IPv4 as IPv6, and may crash; since
//! `net: clear the dst when changing skb protocol` (ba9db6f907ac, June 2025, also in stable kernels) the
//! change takes the route off. The program `route_probe` changes a packet there and back, which harms
//! nothing: where the route is left on, a packet to a link-local address of the host arrives by the
//! interface that has it; where it is taken off, it doesn't.

use super::attach;
use super::error::{DatapathError, chain};
use super::object::program;
use crate::topology::netlink::Client;
use crate::veth;
use aya::Ebpf;
use publisher_common::layout::LOOPBACK;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

/// The program.
const PROGRAM: &str = "route_probe";
/// The interface that has the addresses, and its other end.
const INTERFACES: [&str; 2] = ["probe0", "probe1"];
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// One that arrives in any case.
const GLOBAL: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
/// The smallest MTU of IPv6.
const MTU: u32 = 1_280;
/// How long a packet may take that must arrive; an address is usable only a moment after it was given.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one packet is waited for.
const GRACE: Duration = Duration::from_millis(20);
/// How often it is tried: one packet could be late.
const TRIES: u32 = 3;

/// Tries it out.
///
/// # Errors
/// Why local processes have to be served by the socket proxy.
pub(super) fn probe(programs: &mut Ebpf) -> Result<(), String> {
    // Once more where something else came in between.
    match on_a_thread(programs).or_else(|_| on_a_thread(programs)) {
        Ok(true) => Ok(()),
        Ok(false) => Err("this kernel leaves the route on a packet whose family is changed".into()),
        Err(Failure::Host(error)) => Err(format!("it couldn't be tried out: {error}")),
        Err(Failure::Program(error)) => Err(format!("it couldn't be tried out: {}", chain(&error))),
    }
}

fn on_a_thread(programs: &mut Ebpf) -> Result<bool, Failure> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("loopback-probe".to_owned());
        let thread = thread.spawn_scoped(scope, || try_out(programs));
        let joined = thread.map_err(Failure::Host)?.join();
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

enum Failure {
    Host(io::Error),
    Program(DatapathError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

/// Whether the route is taken off. Runs on a thread of its own, which takes the namespace with it.
fn try_out(programs: &mut Ebpf) -> Result<bool, Failure> {
    // SAFETY: file descriptors stay shared; the thread's network namespace is its own matter.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)?;
    let netlink = Client::open(libc::NETLINK_ROUTE)?;
    veth::create(&netlink, INTERFACES, MTU)?;
    let [ifindex, other] = INTERFACES.map(veth::index);
    let (ifindex, other) = (ifindex?, other?);
    for each in [LOOPBACK, ifindex, other] {
        veth::set_up(&netlink, each, 0)?;
    }
    for address in [LINK_LOCAL, GLOBAL] {
        veth::add_address(&netlink, ifindex, address)?;
    }
    let probe = program(programs, PROGRAM).map_err(Failure::Program)?;
    let load = |error| {
        Failure::Program(DatapathError::Load { program: PROGRAM.into(), reason: chain(&error) })
    };
    probe.load().map_err(load)?;
    let socket = Socket::new(ifindex)?;
    socket.must_arrive(GLOBAL)?;
    socket.must_arrive(LINK_LOCAL)?;
    let comes = attach::while_attached(probe, "lo", || {
        (0..TRIES)
            .try_fold(false, |comes, _| Ok::<_, io::Error>(comes | socket.comes_before_another()?))
    });
    // Its descriptor isn't needed any more.
    let _ = probe.unload();
    Ok(!comes.map_err(Failure::Program)??)
}

/// A socket that sends to itself.
struct Socket {
    socket: UdpSocket,
    port: u16,
    ifindex: u32,
}

impl Socket {
    fn new(ifindex: u32) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(GRACE))?;
        let port = socket.local_addr()?.port();
        Ok(Self { socket, port, ifindex })
    }

    /// Waits until packets to an address arrive, which they do only a moment after it was given.
    fn must_arrive(&self, address: Ipv6Addr) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            self.send(address)?;
            if self.receive()? == Some(address) {
                return Ok(());
            }
        }
        let lost = format!("packets of a socket to itself are lost ({address})");
        Err(io::Error::new(io::ErrorKind::TimedOut, lost))
    }

    /// Whether a packet to the link-local address comes, given all the time that another one takes that was
    /// sent after it, and more.
    fn comes_before_another(&self) -> io::Result<bool> {
        let (mut comes, mut other) = (false, false);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if !other {
                self.send(LINK_LOCAL)?;
                self.send(GLOBAL)?;
            }
            match self.receive()? {
                Some(LINK_LOCAL) => comes = true,
                Some(_) => other = true,
                None if other => return Ok(comes),
                None => {}
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "packets of a socket to itself are lost"))
    }

    fn send(&self, address: Ipv6Addr) -> io::Result<()> {
        let scope = if address == LINK_LOCAL { self.ifindex } else { 0 };
        let to = SocketAddrV6::new(address, self.port, 0, scope);
        self.socket.send_to(&address.octets(), to).map(drop)
    }

    /// The address that the next packet was sent to, if one comes.
    fn receive(&self) -> io::Result<Option<Ipv6Addr>> {
        let mut address = [0; 16];
        match self.socket.recv_from(&mut address) {
            Ok(_) => Ok(Some(address.into())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}
