//! Which process has a port.

use crate::model::Protocol;
use std::fs;
use std::net::{Ipv6Addr, SocketAddrV6};

/// Who has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// Its name and number, where they can be found.
    pub process: Option<(String, u32)>,
}

/// Whose listener, or bound UDP socket, stands in the way of a socket bound to `address`. Nobody's if only
/// a connection does.
pub(super) fn of(protocol: Protocol, address: SocketAddrV6) -> Option<Owner> {
    // A socket for IPv4 alone keeps nobody from the IPv6 addresses.
    let table = match protocol {
        Protocol::Tcp => "tcp6",
        Protocol::Udp => "udp6",
    };
    let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok()?;
    let inode = text.lines().skip(1).find_map(|line| in_the_way(line, address))?;
    Some(Owner { process: process(&format!("socket:[{inode}]")) })
}

/// The inode of a line of `/proc/net/tcp6` and its like, if that socket has the port of `address`.
fn in_the_way(line: &str, address: SocketAddrV6) -> Option<&str> {
    let mut words = line.split_whitespace();
    let (host, port) = words.nth(1)?.split_once(':')?;
    let state = words.nth(1)?;
    let inode = words.nth(5)?;
    // TCP_LISTEN, and TCP_CLOSE of UDP sockets that aren't connected.
    let holds = matches!(state, "0A" | "07");
    let same_port = u16::from_str_radix(port, 16).is_ok_and(|port| port == address.port());
    let host = host_of(host)?;
    let is_ipv4 = host.to_ipv4_mapped().is_some();
    let meets =
        host.is_unspecified() || host == *address.ip() || address.ip().is_unspecified() && !is_ipv4;
    (holds && same_port && meets && inode != "0").then_some(inode)
}

/// An address as the kernel prints it: words of 32 bits, each in the machine's byte order.
fn host_of(text: &str) -> Option<Ipv6Addr> {
    let mut octets = [0; 16];
    for (index, word) in octets.chunks_exact_mut(4).enumerate() {
        let digits = text.get(8 * index..8 * index + 8)?;
        word.copy_from_slice(&u32::from_str_radix(digits, 16).ok()?.to_ne_bytes());
    }
    Some(octets.into())
}

/// The process that has a descriptor of this name.
fn process(socket: &str) -> Option<(String, u32)> {
    let has = |pid: u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let mut links = descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        links.any(|link| link.as_os_str() == socket).then_some(pid)
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pid =
        processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find_map(has)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((name.trim_end().to_owned(), pid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn a_listener_of_this_process_is_found_by_its_port() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let ipv4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let (tcp_port, udp_port) =
            (listener.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
        let me = Some(std::process::id());
        let who = |protocol, address: &str, port| {
            let address = SocketAddrV6::new(address.parse().unwrap(), port, 0, 0);
            of(protocol, address)?.process.map(|(_, pid)| pid)
        };
        assert_eq!(who(Protocol::Tcp, "::", tcp_port), me);
        assert_eq!(who(Protocol::Tcp, "::1", tcp_port), me);
        assert_eq!(who(Protocol::Tcp, "2001:db8::1", tcp_port), None);
        assert_eq!(who(Protocol::Udp, "::", udp_port), me);
        assert_eq!(who(Protocol::Tcp, "::", ipv4.local_addr().unwrap().port()), None);
        drop(listener);
        assert_eq!(who(Protocol::Tcp, "::", tcp_port), None);
    }

    #[test]
    fn addresses_are_read_as_the_kernel_prints_them() {
        let hex = |octets: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(octets));
        let loopback = [[0; 4], [0; 4], [0; 4], [0, 0, 0, 1]].map(hex).concat();
        assert_eq!(host_of(&loopback), Some(Ipv6Addr::LOCALHOST));
        for text in ["", "0100007F", &"g".repeat(32)] {
            assert_eq!(host_of(text), None, "{text}");
        }
    }
}
