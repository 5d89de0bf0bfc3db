//! An ICMPv6 error from the client's side: from the client, or from a router before it.

use super::{CLASSES, ErrorWorkspace, copy, holds_error, is_live, limits};
use crate::alias::CANDIDATES;
use crate::checksum::Difference;
use crate::decide::address::is_somebody;
use crate::decide::to_container::is_published;
use crate::decide::{Decision, Exit, Stop, open};
use crate::layout::{ForwardKey, address_scope};
use crate::packet::{Arrival, Packet};
use crate::reason::Reason;
use crate::tables::Tables;
use crate::translate::icmp::{self, Outer, Shape, mtu};
use crate::wire::{ICMP_LENGTH, IPV4_LENGTH, IPV6_LENGTH, Ipv6Header, icmpv6, protocol};

/// Where the embedded IPv6 header starts.
const EMBEDDED: usize = IPV6_LENGTH + ICMP_LENGTH;
/// What may follow an ICMPv4 header.
const ROOM: u32 = (icmp::IPV4_ERROR - IPV4_LENGTH - ICMP_LENGTH) as u32;

/// Decides on an ICMPv6 packet that came in by an uplink: [`ErrorWorkspace::error`] goes to the
/// container in its place.
#[inline(always)]
pub fn from_client<P: Packet, T: Tables>(
    packet: &P,
    arrival: &Arrival,
    work: &mut ErrorWorkspace,
    tables: &mut T,
) -> Decision<()> {
    work.arrival = *arrival;
    let fragment = read_flow(packet, work, tables)?;
    if !find(work, tables) {
        return Err(Stop::Pass);
    }
    let Some(outer) = packet.view::<IPV6_LENGTH>(0) else { return Err(Stop::Pass) };
    let origin = arrival.origin();
    if !is_somebody(&Ipv6Header::of(outer).source, arrival.ifindex, origin, tables) {
        return Err(Stop::Drop(Reason::Source));
    }
    if fragment {
        return Err(Stop::Drop(Reason::IcmpFragment));
    }
    read(packet, work)?;
    map(work, tables)?;
    copy::into_ipv4(packet, work)?;
    write(work);
    Ok(())
}

/// Reads which flow an error is about, the client's direction of it. `true` for a first fragment;
/// others have no ports and could be anybody's.
#[inline(always)]
fn read_flow<P: Packet, T: Tables>(
    packet: &P,
    work: &mut ErrorWorkspace,
    tables: &T,
) -> Decision<bool> {
    let Some(outer) = packet.view::<IPV6_LENGTH>(0) else { return Err(Stop::Pass) };
    let Some(&[kind]) = packet.view::<1>(IPV6_LENGTH) else { return Err(Stop::Pass) };
    // Everything but the four errors is the host's: echo, neighbour and listener discovery.
    if kind == 0 || kind > icmpv6::PARAMETER_PROBLEM {
        return Err(Stop::Pass);
    }
    let Some(inner) = packet.view::<IPV6_LENGTH>(EMBEDDED) else { return Err(Stop::Pass) };
    let (outer, inner) = (Ipv6Header::of(outer), Ipv6Header::of(inner));
    let Some(start) = packet.view::<8>(EMBEDDED + IPV6_LENGTH) else { return Err(Stop::Pass) };
    if inner.version() != 6 || inner.source != outer.destination {
        return Err(Stop::Pass);
    }
    let fragment = inner.next_header == protocol::FRAGMENT;
    let (number, ports) = if fragment {
        let offset = u16::from_be_bytes([start[2], start[3]]) & !7;
        let Some(ports) = packet.load::<4>(EMBEDDED + IPV6_LENGTH + 8) else {
            return Err(Stop::Pass);
        };
        if offset != 0 {
            return Err(Stop::Pass);
        }
        (start[0], ports)
    } else {
        (inner.next_header, [start[0], start[1], start[2], start[3]])
    };
    let [a, b, c, d] = ports;
    if !matches!(number, protocol::TCP | protocol::UDP) || !is_published(tables, number, [a, b]) {
        return Err(Stop::Pass);
    }
    work.flow = ForwardKey {
        client: inner.destination,
        host: inner.source,
        client_port: [c, d],
        host_port: [a, b],
        scope: address_scope(&inner.destination, work.arrival.ifindex),
        protocol: number,
        origin: work.arrival.origin(),
        reserved: [0; 2],
    };
    Ok(fragment)
}

/// Looks for the session of `work.flow`.
#[inline(always)]
fn find<T: Tables>(work: &mut ErrorWorkspace, tables: &mut T) -> bool {
    if let Some(entry) = tables.forward(&work.flow) {
        work.reply = entry.reply;
        work.link = entry.session.link;
        return true;
    }
    find_candidate(work, tables)
}

/// Looks for it among those that aren't established, whose place is derived again.
#[inline(never)]
fn find_candidate<T: Tables>(work: &mut ErrorWorkspace, tables: &mut T) -> bool {
    let ErrorWorkspace { arrival, flow, publication, candidates, .. } = &mut *work;
    let Some(found) = open::publication(flow, arrival.ifindex, tables) else { return false };
    *publication = *found;
    if !open::set_candidates(flow, publication, candidates, tables) {
        return false;
    }
    for index in 0..CANDIDATES {
        work.reply =
            open::reply_key(work.flow.protocol, &work.publication, work.candidates.get(index));
        if is_at(work, tables) {
            return true;
        }
    }
    false
}

/// Whether the client's session is `work.reply`. A function of its own for the verifier, which follows
/// each way out of a loop's body to its end.
#[inline(never)]
fn is_at<T: Tables>(work: &mut ErrorWorkspace, tables: &mut T) -> bool {
    for class in CLASSES {
        let Some(entry) = tables.transient(class, &work.reply) else { continue };
        if !entry.forward.same(&work.flow) {
            continue;
        }
        let last_seen = entry.last_seen;
        work.link = entry.session.link;
        if is_live(last_seen, work.flow.protocol, work.arrival.now, tables) {
            return true;
        }
    }
    false
}

/// What must hold of an error about a session; notes what the container's is made of.
///
/// The new checksum is summed again: one that is wrong isn't made right (RFC 5508 REQ-3 a).
#[inline(never)]
fn read<P: Packet>(packet: &P, work: &mut ErrorWorkspace) -> Decision<()> {
    let Some(outer) = packet.view::<IPV6_LENGTH>(0) else { return Err(Stop::Pass) };
    let length = u32::from(Ipv6Header::of(outer).payload());
    if !holds_error(length, IPV6_LENGTH) || IPV6_LENGTH as u32 + length > work.arrival.length {
        return Err(Stop::Drop(Reason::IcmpMalformed));
    }
    let Some(message) = packet.sum(IPV6_LENGTH as u32, length) else {
        return Err(Stop::Drop(Reason::IcmpMalformed));
    };
    // Looked at only now: nothing has to be remembered over the call.
    let Some(outer) = packet.view::<IPV6_LENGTH>(0) else { return Err(Stop::Pass) };
    let Some(start) = packet.view::<ICMP_LENGTH>(IPV6_LENGTH) else { return Err(Stop::Pass) };
    let Some(inner) = packet.view::<IPV6_LENGTH>(EMBEDDED) else { return Err(Stop::Pass) };
    let Some(transport) = packet.view::<8>(EMBEDDED + IPV6_LENGTH) else { return Err(Stop::Pass) };
    let (outer, inner) = (Ipv6Header::of(outer), Ipv6Header::of(inner));
    let sum = Difference::new()
        .add_sum(message)
        .add_ipv6(&outer.source)
        .add_ipv6(&outer.destination)
        .add(length.to_be_bytes())
        .add([0, 0, 0, protocol::ICMPV6]);
    if !sum.is_right() {
        return Err(Stop::Drop(Reason::IcmpChecksum));
    }
    if outer.hop_limit <= 1 {
        return Err(Stop::Drop(Reason::HopLimit));
    }
    work.start = *start;
    work.outer = Outer { class: outer.traffic_class(), hops: outer.hop_limit };
    work.embedded.class = inner.traffic_class();
    work.embedded.hops = inner.hop_limit;
    work.embedded.payload = inner.payload();
    work.embedded.transport = *transport;
    // Only these two have a length field, and their counterparts have one (RFC 4884 §4).
    let extends = matches!(start[0], icmpv6::UNREACHABLE | icmpv6::TIME_EXCEEDED);
    let declared = if extends { u32::from(start[4]) * 8 } else { 0 };
    work.shape = Shape::of(length, declared, [IPV6_LENGTH, IPV4_LENGTH], ROOM, extends);
    Ok(())
}

/// What the container's error says, and where it goes.
#[inline(never)]
fn map<T: Tables>(work: &mut ErrorWorkspace, tables: &T) -> Decision<()> {
    let [kind, code, _, _, a, b, c, d] = work.start;
    let second = u32::from_be_bytes([a, b, c, d]);
    let Some(mapped) = icmp::to_ipv4(kind, code, second) else {
        return Err(Stop::Drop(Reason::IcmpError));
    };
    work.mapped = mapped;
    work.mtu = 0;
    if kind == icmpv6::PACKET_TOO_BIG {
        let limits = limits(work.arrival.ifindex, work.link.index, tables);
        work.mtu = u32::from(mtu::to_ipv4(second, &limits));
    }
    let Some(link) = tables.link(work.link.index) else {
        return Err(Stop::Drop(Reason::TargetGone));
    };
    if !link.serves(work.link.generation) {
        return Err(Stop::Drop(Reason::TargetGone));
    }
    work.gateway = link.gateway;
    work.exit = Exit::of(link);
    work.ethernet = [link.mac, link.device_mac];
    Ok(())
}

/// Writes the container's error over what has been copied.
#[inline(never)]
fn write(work: &mut ErrorWorkspace) {
    let gateway = work.gateway;
    let (message, parts, length) = work.parts();
    *length = icmp::ipv4_error(message, &parts, gateway);
}
