//! Veth pairs of our own, made by netlink.

use crate::topology::netlink::{Client, Request};
use crate::topology::uapi::{ifa, ifla};
use std::io;
use std::net::Ipv6Addr;

/// Makes a pair, both ends down.
///
/// # Errors
/// The kernel's: no privilege, or an interface has one of the names.
pub fn create(netlink: &Client, names: [&str; 2], mtu: u32) -> io::Result<()> {
    let mtu = mtu.to_ne_bytes();
    let [name, peer] = names.map(zero_ended);
    let peer = [&header(0, 0, 0)[..], &attribute(ifla::IFNAME, &peer), &attribute(ifla::MTU, &mtu)];
    let info = [
        attribute(ifla::INFO_KIND, b"veth"),
        attribute(ifla::INFO_DATA, &attribute(ifla::VETH_INFO_PEER, &peer.concat())),
    ];
    let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL | libc::NLM_F_ACK;
    let request = Request::new(libc::RTM_NEWLINK, create, &header(0, 0, 0))
        .attr(ifla::IFNAME, &name)
        .attr(ifla::MTU, &mtu)
        .attr(ifla::LINKINFO, &info.concat());
    netlink.request(request).map(drop)
}

/// Sets flags (`IFF_*`) of an interface, `IFF_UP` among them.
///
/// # Errors
/// The kernel's.
pub fn set_up(netlink: &Client, ifindex: u32, flags: i32) -> io::Result<()> {
    let flags = (libc::IFF_UP | flags) as u32;
    let header = header(ifindex, flags, flags);
    netlink.request(Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &header)).map(drop)
}

/// Keeps an interface from giving itself a link-local address, and so from saying anything by itself.
pub fn silence(netlink: &Client, ifindex: u32) {
    let none = attribute(ifla::INET6_ADDR_GEN_MODE, &[ifla::ADDR_GEN_MODE_NONE]);
    let family = attribute(libc::AF_INET6 as u16, &none);
    let request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &header(ifindex, 0, 0));
    // Refused where the kernel has no IPv6, which then says nothing anyway.
    let _ = netlink.request(request.attr(ifla::AF_SPEC, &family));
}

/// Gives an interface an address with a /64, to be used at once.
///
/// # Errors
/// The kernel's.
pub fn add_address(netlink: &Client, ifindex: u32, address: Ipv6Addr) -> io::Result<()> {
    let [a, b, c, d] = ifindex.to_ne_bytes();
    // struct ifaddrmsg: family, prefix length, flags, scope, interface.
    let header = [libc::AF_INET6 as u8, 64, ifa::NODAD, 0, a, b, c, d];
    let request = Request::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_ACK, &header)
        .attr(ifa::LOCAL, &address.octets());
    netlink.request(request).map(drop)
}

/// Removes an interface; a veth's other end goes with it.
///
/// # Errors
/// The kernel's.
pub fn remove(netlink: &Client, ifindex: u32) -> io::Result<()> {
    let request = Request::new(libc::RTM_DELLINK, libc::NLM_F_ACK, &header(ifindex, 0, 0));
    match netlink.request(request) {
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

/// The index of an interface of the calling thread's namespace.
///
/// # Errors
/// Where there is none of that name.
pub fn index(name: &str) -> io::Result<u32> {
    use rustix::net::{AddressFamily, SocketType};
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    Ok(rustix::net::netdevice::name_to_index(socket, name)?)
}
