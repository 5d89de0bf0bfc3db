//! The slow lane's interfaces: a veth pair whose way in has no offloads, so that the kernel completes
//! checksums and segments super-packets on the way through.
//!
//! They carry packets between two BPF programs and nothing else: no address, no neighbours, and what
//! isn't ours is dropped at the end.

use std::{collections::BTreeMap, io, ptr};

use crate::topology::LinkInfo;
use crate::topology::netlink::Client;
use crate::topology::uapi::ethtool;
use crate::veth;

/// Name of the way in.
pub const ENTRY: &str = "publisher0";
/// Name of the end.
pub const END: &str = "publisher1";
/// The largest MTU of a veth: packets have the size that they have.
const MTU: u32 = 65_535;

/// The pair, by interface index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowLane {
    /// Where packets go in.
    pub entry: u32,
    /// Where they come out.
    pub end: u32,
}

/// Finds the pair among the host's interfaces, whole and up.
pub fn find(links: &BTreeMap<u32, LinkInfo>) -> Option<SlowLane> {
    let (entry, end) = pair(links)?;
    (entry.is_up() && end.is_up() && entry.mtu == MTU && end.mtu == MTU)
        .then_some(SlowLane { entry: entry.ifindex, end: end.ifindex })
}

fn pair(links: &BTreeMap<u32, LinkInfo>) -> Option<(&LinkInfo, &LinkInfo)> {
    let named = |name| links.values().find(|link| link.name == name && link.is_kind("veth"));
    let (entry, end) = (named(ENTRY)?, named(END)?);
    (entry.link == Some(end.ifindex)).then_some((entry, end))
}

/// Makes the pair, in place of one that was left half-made.
///
/// # Errors
/// The kernel's: no privilege, or an interface of somebody else's has the name.
pub fn open(links: &BTreeMap<u32, LinkInfo>) -> io::Result<()> {
    close(links)?;
    let netlink = Client::open(libc::NETLINK_ROUTE)?;
    veth::create(&netlink, [ENTRY, END], MTU)?;
    for name in [END, ENTRY] {
        let ifindex = veth::index(name)?;
        // Before they are up: nothing that the host would say there by itself.
        veth::silence(&netlink, ifindex);
        for command in [ethtool::STXCSUM, ethtool::STSO, ethtool::SGSO] {
            switch_off(name, command)?;
        }
        veth::set_up(&netlink, ifindex, libc::IFF_NOARP)?;
    }
    Ok(())
}

/// Removes the pair, if it is there.
///
/// # Errors
/// The kernel's.
pub fn close(links: &BTreeMap<u32, LinkInfo>) -> io::Result<()> {
    let Some((entry, _)) = pair(links) else { return Ok(()) };
    veth::remove(&Client::open(libc::NETLINK_ROUTE)?, entry.ifindex)
}

/// Switches an offload of an interface off (`SIOCETHTOOL`).
fn switch_off(name: &str, command: u32) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    /// `struct ethtool_value`
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    use rustix::net::{AddressFamily, SocketType};
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut value = Value { command, data: 0 };
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = ptr::from_mut(&mut value).cast();
    // SAFETY: the kernel reads the name, ended by zero, and reads and writes `value`, which outlives the
    // call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), ethtool::SIOCETHTOOL, &mut request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
