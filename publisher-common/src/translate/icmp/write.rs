//! The headers of an error that is made out of another's.
//!
//! Everything up to the first 8 bytes of the embedded transport header is written here, over a
//! message whose rest has been copied already. The embedded packet is the receiver's own: its addresses
//! and ports, its hop limit as it was (RFC 7915 §4.3, §5.3), and its checksum corrected wherever it is
//! present, though nobody can check it over a packet that was cut (RFC 5508 REQ-3 c).

use super::{ESSENTIAL, Mapped, Shape};
use crate::checksum::{Difference, checksum};
use crate::layout::{ForwardKey, ReplyKey};
use crate::wire::{
    HEADER_GROWTH, ICMP_LENGTH, IPV4_LENGTH, IPV6_LENGTH, IPV6_MINIMUM_MTU, Ipv4Header, icmpv6,
    protocol,
};
use zerocopy::FromZeros;

/// Longest ICMPv4 error, which every host takes (RFC 1812 §4.3.2.3).
pub const IPV4_ERROR: usize = 576;
/// Longest ICMPv6 error, which every link takes (RFC 4443 §2.4 c).
pub const IPV6_ERROR: usize = IPV6_MINIMUM_MTU as usize;
/// Where the part of an ICMPv4 error starts that is copied.
pub const IPV4_BODY: usize = 2 * IPV4_LENGTH + ICMP_LENGTH + 8;
/// Where the part of an ICMPv6 error starts that is copied.
pub const IPV6_BODY: usize = 2 * IPV6_LENGTH + ICMP_LENGTH + 8;

/// Offset of the checksum in a TCP header, behind the 8 bytes that are always there.
const TCP_CHECKSUM: usize = 16 - 8;
/// Offset of the checksum in a UDP header.
const UDP_CHECKSUM: usize = 6;

/// What is taken over from the outer IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
pub struct Outer {
    /// Traffic class or type of service.
    pub class: u8,
    /// Hop limit or TTL.
    pub hops: u8,
}

/// What is taken over from the embedded packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
pub struct Embedded {
    /// Traffic class or type of service.
    pub class: u8,
    /// Hop limit or TTL.
    pub hops: u8,
    /// Payload length, behind its IP header.
    pub payload: u16,
    /// The first 8 bytes of its transport header.
    pub transport: [u8; 8],
}

/// What an error is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The session, as the client knows it.
    pub flow: &'a ForwardKey,
    /// The session, as the container knows it.
    pub reply: &'a ReplyKey,
    /// What it says.
    pub mapped: Mapped,
    /// The MTU that it names, where it does.
    pub mtu: u32,
    /// Of the outer header.
    pub outer: &'a Outer,
    /// Of the embedded packet.
    pub embedded: &'a Embedded,
    /// What has been copied.
    pub shape: &'a Shape,
    /// The sum of what has been copied.
    pub copied: Difference,
}

/// An ICMPv4 error for the container, about a packet that it sent: returns the error's length.
///
/// `message` holds the copied part from [`IPV4_BODY`] on. `from` is the host's address on the
/// container's link, since the router that sent the ICMPv6 error has no IPv4 address (RFC 7915 §6,
/// RFC 6791).
#[inline(always)]
pub fn ipv4_error(message: &mut [u8; IPV6_ERROR], parts: &Parts<'_>, from: [u8; 4]) -> u32 {
    let Parts { flow, reply, mapped, mtu, outer, embedded, shape, copied } = parts;
    let length = (IPV4_LENGTH + ICMP_LENGTH) as u32 + shape.body(IPV4_LENGTH);
    let [_, _, high, low] = mtu.to_be_bytes();
    // In units of 4 bytes (RFC 4884 §4).
    let declared = if shape.extension == 0 { 0 } else { (ESSENTIAL / 4) as u8 };
    let total = embedded.payload.saturating_add(IPV4_LENGTH as u16);
    // RFC 7915 §5.1, as the packet itself would have it.
    let flags = if u32::from(total) + HEADER_GROWTH > IPV6_MINIMUM_MTU {
        Ipv4Header::DONT_FRAGMENT
    } else {
        0
    };
    let mut transport = embedded.transport;
    let difference = exchange(&mut transport, reply.target_port, reply.alias_port)
        .remove_ipv6(&flow.host)
        .remove_ipv6(&flow.client)
        .add(reply.target)
        .add(reply.alias);
    let outside = Outer { hops: outer.hops.wrapping_sub(1), ..**outer };
    let inside = Outer { class: embedded.class, hops: embedded.hops };
    let own = Ipv4Header::DONT_FRAGMENT;
    let addresses = [from, reply.target];
    message[..20].copy_from_slice(&ipv4(length as u16, own, protocol::ICMP, outside, addresses));
    let start = [mapped.kind, mapped.code, 0, 0, mapped.pointer, declared, high, low];
    message[20..28].copy_from_slice(&start);
    let addresses = [reply.target, reply.alias];
    message[28..48].copy_from_slice(&ipv4(total, flags, reply.protocol, inside, addresses));
    let copied = correct::<IPV4_BODY>(message, &mut transport, parts, difference, *copied);
    message[48..56].copy_from_slice(&transport);
    if let Some(head) = message[IPV4_LENGTH..].first_chunk::<36>() {
        let sum = checksum(head, copied);
        message[22..24].copy_from_slice(&sum);
    }
    length
}

/// An ICMPv6 error for the client, about a packet that it sent: returns the error's length.
///
/// `message` holds the copied part from [`IPV6_BODY`] on. The sender is the host's address that the
/// client asked.
#[inline(always)]
pub fn ipv6_error(message: &mut [u8; IPV6_ERROR], parts: &Parts<'_>) -> u32 {
    let Parts { flow, reply, mapped, mtu, outer, embedded, shape, copied } = parts;
    let payload = ICMP_LENGTH as u32 + shape.body(IPV6_LENGTH);
    // In units of 8 bytes, in the first byte of four (RFC 4884 §4); MTU and pointer take all of them.
    let second = match mapped.kind {
        icmpv6::PACKET_TOO_BIG => *mtu,
        icmpv6::PARAMETER_PROBLEM => u32::from(mapped.pointer),
        _ if shape.extension == 0 => 0,
        _ => (ESSENTIAL / 8) << 24,
    };
    let [a, b, c, d] = second.to_be_bytes();
    let mut transport = embedded.transport;
    let difference = exchange(&mut transport, flow.client_port, flow.host_port)
        .remove(reply.target)
        .remove(reply.alias)
        .add_ipv6(&flow.host)
        .add_ipv6(&flow.client);
    let outside = Outer { hops: outer.hops.wrapping_sub(1), ..**outer };
    let inside = Outer { class: embedded.class, hops: embedded.hops };
    message[..8].copy_from_slice(&ipv6(payload as u16, protocol::ICMPV6, outside));
    message[8..24].copy_from_slice(&flow.host);
    message[24..40].copy_from_slice(&flow.client);
    message[40..48].copy_from_slice(&[mapped.kind, mapped.code, 0, 0, a, b, c, d]);
    message[48..56].copy_from_slice(&ipv6(embedded.payload, reply.protocol, inside));
    message[56..72].copy_from_slice(&flow.client);
    message[72..88].copy_from_slice(&flow.host);
    let copied = correct::<IPV6_BODY>(message, &mut transport, parts, difference, *copied);
    message[88..96].copy_from_slice(&transport);
    let sum = copied.add_ipv6(&flow.host).add_ipv6(&flow.client).add(payload.to_be_bytes()).add([
        0,
        0,
        0,
        protocol::ICMPV6,
    ]);
    if let Some(head) = message[IPV6_LENGTH..].first_chunk::<56>() {
        let sum = checksum(head, sum);
        message[42..44].copy_from_slice(&sum);
    }
    IPV6_LENGTH as u32 + payload
}

/// Puts the receiver's own ports into its transport header; returns by how much that changes a sum.
#[inline(always)]
fn exchange(transport: &mut [u8; 8], source: [u8; 2], destination: [u8; 2]) -> Difference {
    let [a, b, c, d, ..] = *transport;
    let ([e, f], [g, h]) = (source, destination);
    transport[..4].copy_from_slice(&[e, f, g, h]);
    Difference::new().remove([a, b, c, d]).add([e, f, g, h])
}

/// Corrects the embedded checksum where it is present, and returns the sum of the copied part, which
/// holds TCP's.
#[inline(always)]
fn correct<const BODY: usize>(
    message: &mut [u8; IPV6_ERROR],
    transport: &mut [u8; 8],
    parts: &Parts<'_>,
    difference: Difference,
    copied: Difference,
) -> Difference {
    if parts.reply.protocol == protocol::UDP {
        let field = [transport[UDP_CHECKSUM], transport[UDP_CHECKSUM + 1]];
        // 0 says that there is none, so a sum of 0 is written as its other form (RFC 768).
        if field != [0; 2] {
            let sum = match difference.apply(field) {
                [0, 0] => [0xff; 2],
                sum => sum,
            };
            transport[UDP_CHECKSUM..].copy_from_slice(&sum);
        }
        return copied;
    }
    if parts.shape.kept < TCP_CHECKSUM as u32 + 2 {
        return copied;
    }
    let at = BODY + TCP_CHECKSUM;
    let [a, b] = [message[at], message[at + 1]];
    let [c, d] = difference.apply([a, b]);
    message[at..at + 2].copy_from_slice(&[c, d]);
    copied.remove([a, b, 0, 0]).add([c, d, 0, 0])
}

/// An IPv4 header without an identification, which only a packet that may be fragmented needs.
#[inline(always)]
fn ipv4(
    total: u16,
    flags: u16,
    protocol: u8,
    fields: Outer,
    [source, destination]: [[u8; 4]; 2],
) -> [u8; 20] {
    Ipv4Header {
        version_length: Ipv4Header::VERSION_LENGTH,
        tos: fields.class,
        total_length: total.to_be_bytes(),
        identification: [0; 2],
        flags_offset: flags.to_be_bytes(),
        ttl: fields.hops,
        protocol,
        checksum: [0; 2],
        source,
        destination,
    }
    .sealed()
}

/// The first 8 bytes of an IPv6 header, in front of its addresses.
#[inline(always)]
const fn ipv6(payload: u16, next: u8, fields: Outer) -> [u8; 8] {
    let [high, low] = payload.to_be_bytes();
    let Outer { class, hops } = fields;
    [0x60 | class >> 4, class << 4, 0, 0, high, low, next, hops]
}
