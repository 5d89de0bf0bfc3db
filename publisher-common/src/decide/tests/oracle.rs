//! What etherparse makes of a translated packet: strict about lengths, and every checksum is summed
//! again.

use crate::layout::{ForwardKey, ReplyKey};
use crate::native::Outcome;
use crate::wire::protocol;
use etherparse::{NetSlice, SlicedPacket, TcpOptionElement, TransportSlice};
use std::vec::Vec;

/// A valid packet, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Source and destination, 4 or 16 bytes each.
    pub addresses: (Vec<u8>, Vec<u8>),
    pub ports: (u16, u16),
    pub protocol: u8,
    pub hops: u8,
    /// IPv4 only.
    pub dont_fragment: bool,
    pub mss: Option<u16>,
    pub payload: Vec<u8>,
}

impl Seen {
    /// Panics where a length or a checksum is wrong.
    pub fn of(bytes: &[u8]) -> Self {
        let parsed = SlicedPacket::from_ip(bytes).expect("a packet that parses");
        let (source, destination, hops, dont_fragment, length) = match parsed.net {
            Some(NetSlice::Ipv4(slice)) => {
                let header = slice.header();
                assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
                assert!(!header.is_fragmenting_payload(), "a fragment");
                (
                    header.source().to_vec(),
                    header.destination().to_vec(),
                    header.ttl(),
                    header.dont_fragment(),
                    usize::from(header.total_len()),
                )
            }
            Some(NetSlice::Ipv6(slice)) => {
                let header = slice.header();
                let length = usize::from(header.payload_length()) + 40;
                let (source, destination) = (header.source(), header.destination());
                (source.to_vec(), destination.to_vec(), header.hop_limit(), false, length)
            }
            other => panic!("no IP: {other:?}"),
        };
        assert_eq!(length, bytes.len(), "the IP header's length");
        let addresses = (source, destination);
        match parsed.transport.expect("a transport header") {
            TransportSlice::Tcp(tcp) => {
                let (header, payload) = (tcp.to_header(), tcp.payload());
                let sum = match by_family(&addresses) {
                    Family::V4(a, b) => header.calc_checksum_ipv4_raw(a, b, payload),
                    Family::V6(a, b) => header.calc_checksum_ipv6_raw(a, b, payload),
                };
                assert_eq!(tcp.checksum(), sum.expect("a sum"), "TCP checksum");
                let mss = tcp.options_iterator().find_map(|option| match option {
                    Ok(TcpOptionElement::MaximumSegmentSize(size)) => Some(size),
                    _ => None,
                });
                Self {
                    addresses,
                    ports: (tcp.source_port(), tcp.destination_port()),
                    protocol: protocol::TCP,
                    hops,
                    dont_fragment,
                    mss,
                    payload: payload.to_vec(),
                }
            }
            TransportSlice::Udp(udp) => {
                let (header, payload) = (udp.to_header(), udp.payload());
                assert_eq!(usize::from(header.length), payload.len() + 8, "UDP length");
                let sum = match by_family(&addresses) {
                    Family::V4(a, b) => header.calc_checksum_ipv4_raw(a, b, payload),
                    Family::V6(a, b) => header.calc_checksum_ipv6_raw(a, b, payload),
                };
                assert_eq!(udp.checksum(), sum.expect("a sum"), "UDP checksum");
                assert_ne!(udp.checksum(), 0, "no UDP checksum");
                Self {
                    addresses,
                    ports: (udp.source_port(), udp.destination_port()),
                    protocol: protocol::UDP,
                    hops,
                    dont_fragment,
                    mss: None,
                    payload: payload.to_vec(),
                }
            }
            other => panic!("neither TCP nor UDP: {other:?}"),
        }
    }

    /// A packet that goes to the container; panics on every other outcome.
    pub fn to_container(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::ToContainer(bytes, _) => Self::of(bytes),
            other => panic!("not to the container: {other:?}"),
        }
    }

    /// A packet that goes to the client; panics on every other outcome.
    pub fn to_client(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::ToClient(bytes, _) => Self::of(bytes),
            other => panic!("not to the client: {other:?}"),
        }
    }

    /// The key under which the container answers this packet.
    pub fn reply_key(&self) -> ReplyKey {
        let (alias, target) = &self.addresses;
        ReplyKey {
            target: target.as_slice().try_into().expect("IPv4"),
            alias: alias.as_slice().try_into().expect("IPv4"),
            target_port: self.ports.1.to_be_bytes(),
            alias_port: self.ports.0.to_be_bytes(),
            protocol: self.protocol,
            reserved: [0; 3],
        }
    }

    /// Whether this is what a client of `flow` expects to get.
    pub fn answers(&self, flow: &ForwardKey) -> bool {
        self.addresses == (flow.host.to_vec(), flow.client.to_vec())
            && self.ports
                == (u16::from_be_bytes(flow.host_port), u16::from_be_bytes(flow.client_port))
            && self.protocol == flow.protocol
    }
}

enum Family {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

fn by_family((source, destination): &(Vec<u8>, Vec<u8>)) -> Family {
    match (source.as_slice().try_into(), destination.as_slice().try_into()) {
        (Ok(a), Ok(b)) => Family::V4(a, b),
        _ => Family::V6(
            source.as_slice().try_into().expect("IPv6"),
            destination.as_slice().try_into().expect("IPv6"),
        ),
    }
}
