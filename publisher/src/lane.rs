//! The slow lane's interfaces: a veth pair whose way in has no offloads, so that the kernel completes
//! checksums and segments super-packets on the way through.
//!
//! They carry packets between two BPF programs and nothing else: no address, no neighbours, and what
//! isn't ours is dropped at the end.

use std::{collections::BTreeMap, io, ptr};

use crate::topology::LinkInfo;
use crate::topology::netlink::{Client, Request};
use crate::topology::uapi::{ethtool, ifla};

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
    let mtu = attribute(ifla::MTU, &MTU.to_ne_bytes());
    let named = |name: &str| [attribute(ifla::IFNAME, &zero_ended(name)), mtu.clone()].concat();
    let peer = [&header(0, 0, 0)[..], &named(END)].concat();
    let info = [
        attribute(ifla::INFO_KIND, b"veth"),
        attribute(ifla::INFO_DATA, &attribute(ifla::VETH_INFO_PEER, &peer)),
    ];
    let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL | libc::NLM_F_ACK;
    let request = Request::new(libc::RTM_NEWLINK, create, &header(0, 0, 0))
        .attr(ifla::IFNAME, &zero_ended(ENTRY))
        .attr(ifla::MTU, &MTU.to_ne_bytes())
        .attr(ifla::LINKINFO, &info.concat());
    netlink.request(request)?;
    // Before they are up: no link-local address, so nothing that the host would say there by itself.
    let none = attribute(ifla::INET6_ADDR_GEN_MODE, &[ifla::ADDR_GEN_MODE_NONE]);
    let family = attribute(libc::AF_INET6 as u16, &none);
    let up = (libc::IFF_UP | libc::IFF_NOARP) as u32;
    for name in [END, ENTRY] {
        let ifindex = index(name)?;
        let quiet = Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &header(ifindex, 0, 0));
        // Refused where the kernel has no IPv6, which then says nothing anyway.
        let _ = netlink.request(quiet.attr(ifla::AF_SPEC, &family));
        for command in [ethtool::STXCSUM, ethtool::STSO, ethtool::SGSO] {
            switch_off(name, command)?;
        }
        netlink.request(Request::new(
            libc::RTM_NEWLINK,
            libc::NLM_F_ACK,
            &header(ifindex, up, up),
        ))?;
    }
    Ok(())
}

/// Removes the pair, if it is there.
///
/// # Errors
/// The kernel's.
pub fn close(links: &BTreeMap<u32, LinkInfo>) -> io::Result<()> {
    let Some((entry, _)) = pair(links) else { return Ok(()) };
    let netlink = Client::open(libc::NETLINK_ROUTE)?;
    let header = header(entry.ifindex, 0, 0);
    match netlink.request(Request::new(libc::RTM_DELLINK, libc::NLM_F_ACK, &header)) {
        // It has gone since.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        result => result.map(drop),
    }
}

/// `struct ifinfomsg`.
fn header(ifindex: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&change.to_ne_bytes());
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn zero_ended(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

fn socket() -> io::Result<std::os::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketType};
    Ok(rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?)
}

fn index(name: &str) -> io::Result<u32> {
    Ok(rustix::net::netdevice::name_to_index(socket()?, name)?)
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
    let socket = socket()?;
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
