//! ICMP errors about established sessions: the MTU of a path is passed on, other errors are dropped
//! for now, and errors about anything else are the host's.

use super::to_client::{check_link, miss};
use super::to_container::is_published;
use super::{Decision, Exit, Stop, Uplink};
use crate::layout::{ForwardKey, ReplyKey, address_scope, session_flags};
use crate::packet::{Arrival, Packet};
use crate::reason::Reason;
use crate::tables::Tables;
use crate::translate::{
    Embedded, FRAG_NEEDED_LENGTH, PACKET_TOO_BIG_LENGTH, frag_needed, packet_too_big,
};
use crate::wire::{IPV4_LENGTH, IPV6_LENGTH, Ipv4Header, Ipv6Header, protocol};
use zerocopy::FromZeros;

/// Length of an ICMP header, in both families.
const ICMP_LENGTH: usize = 8;
/// ICMPv6: packet too big (RFC 4443 §3.2).
const PACKET_TOO_BIG: u8 = 2;
/// ICMPv6 errors are 1 to 4; everything else is the host's.
const LAST_ERROR: u8 = 4;

/// Room for the session's keys and for the error that is made, off the stack (see
/// [`super::Workspace`]).
#[derive(Clone, Copy, Debug, FromZeros)]
pub struct ErrorWorkspace {
    flow: ForwardKey,
    reply: ReplyKey,
    /// The error for the container, from its IPv4 header on.
    pub frag_needed: [u8; FRAG_NEEDED_LENGTH],
    /// The error for the client, from its IPv6 header on.
    pub packet_too_big: [u8; PACKET_TOO_BIG_LENGTH],
}

impl ErrorWorkspace {
    /// Room for one decision.
    #[must_use]
    pub fn new() -> Self {
        Self::new_zeroed()
    }
}

impl Default for ErrorWorkspace {
    fn default() -> Self {
        Self::new()
    }
}

/// The client's error is to be replaced by one for the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorToContainer {
    /// Where it goes.
    pub exit: Exit,
    /// Ethernet addresses for an uplink that has none: the container's, then the link's.
    pub ethernet: [[u8; 6]; 2],
}

/// Decides on an ICMPv6 packet that came in by an uplink.
#[inline(always)]
pub fn from_client<P: Packet, T: Tables>(
    packet: &P,
    arrival: &Arrival,
    work: &mut ErrorWorkspace,
    tables: &mut T,
) -> Decision<ErrorToContainer> {
    let Some(bytes) = packet.view::<IPV6_LENGTH>(0) else { return Err(Stop::Pass) };
    let outer = Ipv6Header::of(bytes);
    let Some(icmp) = packet.view::<ICMP_LENGTH>(IPV6_LENGTH) else { return Err(Stop::Pass) };
    let (kind, mtu) = (icmp[0], u32::from_be_bytes([icmp[4], icmp[5], icmp[6], icmp[7]]));
    if kind == 0 || kind > LAST_ERROR {
        return Err(Stop::Pass);
    }
    let Some(inner) = packet.view::<IPV6_LENGTH>(IPV6_LENGTH + ICMP_LENGTH) else {
        return Err(Stop::Pass);
    };
    let inner = Ipv6Header::of(inner);
    if !matches!(inner.next_header, protocol::TCP | protocol::UDP)
        || inner.source != outer.destination
    {
        return Err(Stop::Pass);
    }
    let Some(start) = packet.view::<8>(2 * IPV6_LENGTH + ICMP_LENGTH) else {
        return Err(Stop::Pass);
    };
    let host_port = [start[0], start[1]];
    if !is_published(tables, inner.next_header, host_port) {
        return Err(Stop::Pass);
    }
    work.flow = ForwardKey {
        client: inner.destination,
        host: inner.source,
        client_port: [start[2], start[3]],
        host_port,
        scope: address_scope(&inner.destination, arrival.ifindex),
        protocol: inner.next_header,
        reserved: [0; 3],
    };
    let Some(entry) = tables.forward(&work.flow) else { return Err(Stop::Pass) };
    work.reply = entry.reply;
    let handle = entry.session.link;
    if kind != PACKET_TOO_BIG {
        return Err(Stop::Drop(Reason::IcmpError));
    }
    let Some(link) = tables.link(handle.index) else { return Err(Stop::Drop(Reason::TargetGone)) };
    if !link.serves(handle.generation) {
        return Err(Stop::Drop(Reason::TargetGone));
    }
    let embedded = Embedded {
        after_ports: [start[4], start[5], start[6], start[7]],
        payload: inner.payload(),
        hops: inner.hop_limit,
    };
    frag_needed(&work.reply, &embedded, mtu, link.gateway, &mut work.frag_needed);
    Ok(ErrorToContainer { exit: Exit::of(link), ethernet: [link.mac, link.device_mac] })
}

/// Decides on an ICMP packet that came from a container.
#[inline(always)]
pub fn from_container<const BRIDGE: bool, P: Packet, T: Tables>(
    packet: &P,
    arrival: &Arrival,
    work: &mut ErrorWorkspace,
    tables: &mut T,
) -> Decision<Uplink> {
    let Some(bytes) = packet.view::<IPV4_LENGTH>(0) else { return Err(Stop::Pass) };
    let outer = Ipv4Header::of(bytes);
    let Some(icmp) = packet.view::<ICMP_LENGTH>(IPV4_LENGTH) else {
        return Err(miss(outer, tables));
    };
    let (kind, code, mtu) = (icmp[0], icmp[1], u16::from_be_bytes([icmp[6], icmp[7]]));
    // Destination unreachable, source quench, time exceeded, parameter problem.
    if !matches!(kind, 3 | 4 | 11 | 12) {
        return Err(match miss(outer, tables) {
            Stop::Drop(_) => Stop::Drop(Reason::ReplyProtocol),
            pass => pass,
        });
    }
    let Some(inner) = packet.view::<IPV4_LENGTH>(IPV4_LENGTH + ICMP_LENGTH) else {
        return Err(malformed(outer, tables));
    };
    let inner = Ipv4Header::of(inner);
    let Some(start) = packet.view::<8>(2 * IPV4_LENGTH + ICMP_LENGTH) else {
        return Err(malformed(outer, tables));
    };
    if inner.version_length != Ipv4Header::VERSION_LENGTH
        || inner.total() < IPV4_LENGTH as u16
        || inner.source != outer.destination
    {
        return Err(malformed(outer, tables));
    }
    work.reply = ReplyKey {
        target: inner.destination,
        alias: inner.source,
        target_port: [start[2], start[3]],
        alias_port: [start[0], start[1]],
        protocol: inner.protocol,
        reserved: [0; 3],
    };
    let Some((entry, link)) = tables.reverse_and_link(&work.reply) else {
        return Err(miss(outer, tables));
    };
    work.flow = entry.forward;
    let session = entry.session;
    check_link::<BRIDGE, P>(packet, arrival, session.link, link)?;
    if (kind, code) != (3, 4) {
        return Err(Stop::Drop(Reason::IcmpError));
    }
    let embedded = Embedded {
        after_ports: [start[4], start[5], start[6], start[7]],
        payload: inner.total() - IPV4_LENGTH as u16,
        hops: inner.ttl,
    };
    packet_too_big(&work.flow, &embedded, mtu, &mut work.packet_too_big);
    Ok(Uplink { ifindex: session.uplink, raw: session.flags & session_flags::RAW_UPLINK != 0 })
}

fn malformed<T: Tables>(outer: &Ipv4Header, tables: &T) -> Stop {
    match miss(outer, tables) {
        Stop::Drop(_) => Stop::Drop(Reason::IcmpMalformed),
        pass => pass,
    }
}
