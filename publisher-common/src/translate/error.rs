//! "Packet too big" and "fragmentation needed", each out of the other (RFC 7915 §4.2, §5.2).
//!
//! The result carries the embedded IP header and 8 bytes of transport header, which is what a host
//! needs to find the connection (RFC 792, RFC 5508 §4.2); it has a fixed length, so its checksums
//! are summed here.

use crate::checksum::{Difference, checksum};
use crate::layout::{ForwardKey, ReplyKey};
use crate::wire::{HEADER_GROWTH, Ipv4Header, Ipv6Header, protocol};

/// Length of what [`frag_needed`] makes: IPv4, ICMP, IPv4, 8 bytes.
pub const FRAG_NEEDED_LENGTH: usize = 56;
/// Length of what [`packet_too_big`] makes: IPv6, ICMPv6, IPv6, 8 bytes.
pub const PACKET_TOO_BIG_LENGTH: usize = 96;

/// The smallest MTU of an IPv6 link (RFC 8200 §5).
const IPV6_MINIMUM_MTU: u32 = 1280;
/// Time to live of an error that the translator makes out of another.
const TTL: u8 = 64;

/// The first 8 bytes of the embedded transport header, behind the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// TCP: sequence number. UDP: length and checksum.
    pub after_ports: [u8; 4],
    /// Payload length of the embedded packet, behind its IP header.
    pub payload: u16,
    /// Hop limit or TTL of the embedded packet.
    pub hops: u8,
}

/// ICMPv4 3/4 for the container out of an ICMPv6 2/0 with `mtu` about a packet that it sent.
///
/// The MTU shrinks by 20 bytes (RFC 7915 §5.2). A value below 1280 is taken as 1280, since no IPv6
/// link has less and RFC 8201 §4 forbids to act on less. `from` is the host's address on the
/// container's link.
#[inline(always)]
pub fn frag_needed(
    reply: &ReplyKey,
    embedded: &Embedded,
    mtu: u32,
    from: [u8; 4],
    packet: &mut [u8; FRAG_NEEDED_LENGTH],
) {
    let mtu = mtu.clamp(IPV6_MINIMUM_MTU, 65_535 + HEADER_GROWTH) - HEADER_GROWTH;
    let [high, low] = (mtu as u16).to_be_bytes();
    let outer = ipv4(FRAG_NEEDED_LENGTH as u16, TTL, protocol::ICMP, from, reply.target);
    let total = embedded.payload.saturating_add(20);
    let inner = ipv4(total, embedded.hops, reply.protocol, reply.target, reply.alias);
    packet[..20].copy_from_slice(&outer);
    packet[20..28].copy_from_slice(&[3, 4, 0, 0, 0, 0, high, low]);
    packet[28..48].copy_from_slice(&inner);
    packet[48..50].copy_from_slice(&reply.target_port);
    packet[50..52].copy_from_slice(&reply.alias_port);
    packet[52..56].copy_from_slice(&embedded.after_ports);
    if let Some(icmp) = packet.last_chunk::<36>() {
        let sum = checksum(icmp, Difference::new());
        packet[22..24].copy_from_slice(&sum);
    }
}

/// ICMPv6 2/0 for the client out of an ICMPv4 3/4 with `mtu` about a packet that it sent.
///
/// The MTU grows by 20 bytes and is never below 1280 (RFC 7915 §4.2).
#[inline(always)]
pub fn packet_too_big(
    flow: &ForwardKey,
    embedded: &Embedded,
    mtu: u16,
    packet: &mut [u8; PACKET_TOO_BIG_LENGTH],
) {
    const PAYLOAD: u8 = 56;
    let mtu = (u32::from(mtu) + HEADER_GROWTH).max(IPV6_MINIMUM_MTU);
    let [a, b, c, d] = mtu.to_be_bytes();
    let outer = ipv6(u16::from(PAYLOAD), TTL, protocol::ICMPV6, flow.host, flow.client);
    let inner = ipv6(embedded.payload, embedded.hops, flow.protocol, flow.client, flow.host);
    packet[..40].copy_from_slice(&outer);
    packet[40..48].copy_from_slice(&[2, 0, 0, 0, a, b, c, d]);
    packet[48..88].copy_from_slice(&inner);
    packet[88..90].copy_from_slice(&flow.client_port);
    packet[90..92].copy_from_slice(&flow.host_port);
    packet[92..96].copy_from_slice(&embedded.after_ports);
    let pseudo = Difference::new()
        .add_ipv6(&flow.host)
        .add_ipv6(&flow.client)
        .add([0, 0, 0, PAYLOAD])
        .add([0, 0, 0, protocol::ICMPV6]);
    if let Some(icmp) = packet.last_chunk::<56>() {
        let sum = checksum(icmp, pseudo);
        packet[42..44].copy_from_slice(&sum);
    }
}

#[inline(always)]
fn ipv4(total: u16, ttl: u8, protocol: u8, source: [u8; 4], destination: [u8; 4]) -> [u8; 20] {
    Ipv4Header {
        version_length: Ipv4Header::VERSION_LENGTH,
        tos: 0,
        total_length: total.to_be_bytes(),
        identification: [0; 2],
        flags_offset: Ipv4Header::DONT_FRAGMENT.to_be_bytes(),
        ttl,
        protocol,
        checksum: [0; 2],
        source,
        destination,
    }
    .sealed()
}

#[inline(always)]
fn ipv6(payload: u16, hops: u8, next: u8, source: [u8; 16], destination: [u8; 16]) -> [u8; 40] {
    zerocopy::transmute!(Ipv6Header {
        version_class_flow: [0x60, 0, 0, 0],
        payload_length: payload.to_be_bytes(),
        next_header: next,
        hop_limit: hops,
        source,
        destination,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::samples;
    use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice, icmpv4};

    fn embedded() -> Embedded {
        Embedded { after_ports: [1, 2, 3, 4], payload: 1460, hops: 60 }
    }

    #[test]
    fn i3_too_big_becomes_fragmentation_needed() {
        for (mtu, expected) in [
            (0u32, 1260u16),
            (1, 1260),
            (19, 1260),
            (20, 1260),
            (1279, 1260),
            (1280, 1260),
            (1281, 1261),
            (1400, 1380),
            (1500, 1480),
            (65_555, 65_535),
            (65_556, 65_535),
            (u32::MAX, 65_535),
        ] {
            let mut packet = [0xee; FRAG_NEEDED_LENGTH];
            frag_needed(&samples::reply(), &embedded(), mtu, [172, 17, 0, 1], &mut packet);
            let parsed = SlicedPacket::from_ip(&packet).expect("a valid packet");
            let Some(TransportSlice::Icmpv4(icmp)) = parsed.transport else { panic!("no ICMP") };
            let Icmpv4Type::DestinationUnreachable(
                icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu },
            ) = icmp.icmp_type()
            else {
                panic!("{:?}", icmp.icmp_type())
            };
            assert_eq!(next_hop_mtu, expected, "{mtu}");
            assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
            let inner =
                etherparse::Ipv4HeaderSlice::from_slice(icmp.payload()).expect("inner header");
            assert_eq!(
                (inner.source(), inner.destination()),
                (samples::reply().target, samples::reply().alias)
            );
            assert_eq!((inner.total_len(), inner.ttl()), (1480, 60));
            assert_eq!(inner.header_checksum(), inner.to_header().calc_header_checksum());
            assert_eq!(icmp.payload()[20..], [0, 80, 0xc0, 1, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn i6_fragmentation_needed_becomes_too_big() {
        for (mtu, expected) in [
            (0u16, 1280u32),
            (19, 1280),
            (1259, 1280),
            (1260, 1280),
            (1261, 1281),
            (1500, 1520),
            (65_535, 65_555),
        ] {
            let mut packet = [0xee; PACKET_TOO_BIG_LENGTH];
            packet_too_big(&samples::flow(), &embedded(), mtu, &mut packet);
            let parsed = SlicedPacket::from_ip(&packet).expect("a valid packet");
            let Some(NetSlice::Ipv6(outer)) = parsed.net else { panic!("no IPv6") };
            assert_eq!(outer.header().source(), samples::HOST);
            assert_eq!(outer.header().destination(), samples::CLIENT);
            let Some(TransportSlice::Icmpv6(icmp)) = parsed.transport else { panic!("no ICMPv6") };
            assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: expected }, "{mtu}");
            assert!(icmp.is_checksum_valid(samples::HOST, samples::CLIENT));
            let inner =
                etherparse::Ipv6HeaderSlice::from_slice(icmp.payload()).expect("inner header");
            assert_eq!((inner.source(), inner.destination()), (samples::CLIENT, samples::HOST));
            assert_eq!((inner.payload_length(), inner.hop_limit()), (1460, 60));
            assert_eq!(icmp.payload()[40..], [0xc0, 1, 0x1f, 0x90, 1, 2, 3, 4]);
        }
    }
}
