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
use std::time::Duration;

/// The program.
const PROGRAM: &str = "route_probe";
/// The interface that has the addresses, and its other end.
const INTERFACES: [&str; 2] = ["probe0", "probe1"];
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// One that arrives in any case.
const GLOBAL: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
/// The smallest MTU of IPv6.
const MTU: u32 = 1_280;
/// How long the packet that arrives in any case may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much longer the other one may take, which was sent before it.
const GRACE: Duration = Duration::from_millis(20);

/// Tries it out.
///
/// # Errors
/// Why local processes have to be served by the socket proxy.
pub(super) fn probe(programs: &mut Ebpf) -> Result<(), String> {
    let tried = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("loopback-probe".to_owned());
        let thread = thread.spawn_scoped(scope, || try_out(programs));
        let joined = thread.map_err(Failure::Host)?.join();
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    match tried {
        Ok(true) => Ok(()),
        Ok(false) => Err("this kernel leaves the route on a packet whose family is changed".into()),
        Err(Failure::Host(error)) => Err(format!("it couldn't be tried out: {error}")),
        Err(Failure::Program(error)) => Err(format!("it couldn't be tried out: {}", chain(&error))),
    }
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
    let left = attach::while_attached(probe, "lo", || leaves_route(ifindex));
    // Its descriptor isn't needed any more.
    let _ = probe.unload();
    Ok(!left.map_err(Failure::Program)??)
}

/// Whether a packet to a link-local address of `ifindex` comes by its own route.
fn leaves_route(ifindex: u32) -> io::Result<bool> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    let port = socket.local_addr()?.port();
    let link_local = SocketAddrV6::new(LINK_LOCAL, port, 0, ifindex);
    socket.send_to(&[0], link_local)?;
    socket.send_to(&[1], SocketAddrV6::new(GLOBAL, port, 0, 0))?;
    let mut byte = [0];
    let (mut comes, mut others) = (false, false);
    while !others {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.recv_from(&mut byte)?;
        (comes, others) = (comes || byte == [0], byte == [1]);
    }
    socket.set_read_timeout(Some(GRACE))?;
    Ok(comes || socket.recv_from(&mut byte).is_ok())
}
