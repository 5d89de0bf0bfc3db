//! The PROXY protocol, version 2 (haproxy's proxy-protocol.txt, §2.2): who the client of a connection is.

use crate::model::Protocol;
use std::net::{IpAddr, Ipv6Addr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_AND_COMMAND: u8 = 0x21;
/// Length of the largest header that is written here.
pub(super) const LONGEST: usize = 16 + 36;

/// The header for a session of `client` with `host`, addresses and ports. Both are IPv6 addresses, those of
/// an IPv4 client mapped ones (RFC 4291 §2.5.5.2); the header has them as what they are.
pub(super) fn header(
    protocol: Protocol,
    client: (Ipv6Addr, u16),
    host: (Ipv6Addr, u16),
) -> Vec<u8> {
    let mut header = Vec::with_capacity(LONGEST);
    header.extend(SIGNATURE);
    header.push(VERSION_AND_COMMAND);
    let transport = match protocol {
        Protocol::Tcp => 1,
        Protocol::Udp => 2,
    };
    let addresses = match (client.0.to_canonical(), host.0.to_canonical()) {
        (IpAddr::V4(client), IpAddr::V4(host)) => {
            header.extend([0x10 | transport, 0, 12]);
            [client.octets(), host.octets()].concat()
        }
        _ => {
            header.extend([0x20 | transport, 0, 36]);
            [client.0.octets(), host.0.octets()].concat()
        }
    };
    header.extend(addresses);
    header.extend(client.1.to_be_bytes());
    header.extend(host.1.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use ppp::v2::{Addresses, Command, Header, IPv4, IPv6, Protocol as Transport, Version};

    #[test]
    fn another_implementation_reads_what_was_written() {
        let (client, host): (Ipv6Addr, Ipv6Addr) =
            ("2001:db8::5".parse().unwrap(), "fe80::1".parse().unwrap());
        let bytes = header(Protocol::Tcp, (client, 40_000), (host, 8080));
        let read = Header::try_from(bytes.as_slice()).unwrap();
        assert_eq!((read.version, read.command), (Version::Two, Command::Proxy));
        assert_eq!(read.protocol, Transport::Stream);
        let addresses = IPv6::new(client, host, 40_000, 8080);
        assert_eq!((read.addresses, read.len()), (Addresses::IPv6(addresses), bytes.len()));

        let (client, host) = ([192, 0, 2, 1], [198, 51, 100, 7]);
        let mapped = |octets: [u8; 4]| std::net::Ipv4Addr::from(octets).to_ipv6_mapped();
        let bytes = header(Protocol::Udp, (mapped(client), 53), (mapped(host), 5353));
        let read = Header::try_from(bytes.as_slice()).unwrap();
        assert_eq!(read.protocol, Transport::Datagram);
        let addresses = IPv4::new(client, host, 53, 5353);
        assert_eq!((read.addresses, read.len()), (Addresses::IPv4(addresses), bytes.len()));
    }
}
