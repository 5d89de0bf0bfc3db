//! An ICMP error from the container's side: from the container, or from a router behind it.

use super::{CLASSES, ErrorWorkspace, copy, holds_error, is_live, limits};
use crate::checksum::Difference;
use crate::decide::to_client::{check_link, miss, uplink_of};
use crate::decide::{Decision, Stop};
use crate::layout::ReplyKey;
use crate::packet::{Arrival, Packet};
use crate::reason::Reason;
use crate::tables::Tables;
use crate::translate::icmp::{self, Outer, Shape, mtu};
use crate::wire::{ICMP_LENGTH, IPV4_LENGTH, IPV6_LENGTH, Ipv4Header, icmpv4};

/// Where the embedded IPv4 header starts.
const EMBEDDED: usize = IPV4_LENGTH + ICMP_LENGTH;
/// What may follow an ICMPv6 header.
const ROOM: u32 = (icmp::IPV6_ERROR - IPV6_LENGTH - ICMP_LENGTH) as u32;

/// Decides on an ICMP packet that came from a container: [`ErrorWorkspace::error`] goes to the client
/// in its place. `BRIDGE` as in [`crate::decide::to_client::decide`].
#[inline(always)]
pub fn from_container<const BRIDGE: bool, P: Packet, T: Tables>(
    packet: &P,
    arrival: &Arrival,
    work: &mut ErrorWorkspace,
    tables: &mut T,
) -> Decision<()> {
    work.arrival = *arrival;
    let fragment = read_reply(packet, work, tables)?;
    if !find(work, tables) {
        return Err(unowned(packet, Reason::ReplyNoSession, tables));
    }
    check_link::<BRIDGE, P>(packet, arrival, work.link, tables.link(work.link.index))?;
    if fragment {
        return Err(Stop::Drop(Reason::IcmpFragment));
    }
    read(packet, work)?;
    map(work, tables)?;
    copy::into_ipv6(packet, work)?;
    write(work);
    Ok(())
}

/// Reads which flow an error is about, the container's direction of it. `true` for a first fragment.
#[inline(always)]
fn read_reply<P: Packet, T: Tables>(
    packet: &P,
    work: &mut ErrorWorkspace,
    tables: &T,
) -> Decision<bool> {
    let Some(outer) = packet.view::<IPV4_LENGTH>(0) else { return Err(Stop::Pass) };
    let Some(start) = packet.view::<ICMP_LENGTH>(IPV4_LENGTH) else {
        return Err(unowned(packet, Reason::ReplyNoSession, tables));
    };
    if !matches!(
        start[0],
        icmpv4::UNREACHABLE
            | icmpv4::SOURCE_QUENCH
            | icmpv4::TIME_EXCEEDED
            | icmpv4::PARAMETER_PROBLEM
    ) {
        return Err(unowned(packet, Reason::ReplyProtocol, tables));
    }
    let (Some(inner), Some(ports)) =
        (packet.view::<IPV4_LENGTH>(EMBEDDED), packet.view::<8>(EMBEDDED + IPV4_LENGTH))
    else {
        return Err(unowned(packet, Reason::IcmpMalformed, tables));
    };
    let (outer, inner) = (Ipv4Header::of(outer), Ipv4Header::of(inner));
    // No packet that the container got from here has options.
    if inner.version_length != Ipv4Header::VERSION_LENGTH
        || inner.total() < IPV4_LENGTH as u16
        || inner.source != outer.destination
    {
        return Err(unowned(packet, Reason::IcmpMalformed, tables));
    }
    // Only a first fragment has ports.
    if inner.is_fragment() && !inner.starts_packet() {
        return Err(unowned(packet, Reason::IcmpFragment, tables));
    }
    work.reply = ReplyKey {
        target: inner.destination,
        alias: inner.source,
        target_port: [ports[2], ports[3]],
        alias_port: [ports[0], ports[1]],
        protocol: inner.protocol,
        reserved: [0; 3],
    };
    Ok(inner.is_fragment())
}

/// An error to an alias never reaches the host's stack; one to the gateway's own address may be about
/// somebody else's packet.
#[inline(always)]
fn unowned<P: Packet, T: Tables>(packet: &P, reason: Reason, tables: &T) -> Stop {
    let Some(bytes) = packet.view::<IPV4_LENGTH>(0) else { return Stop::Pass };
    match miss(Ipv4Header::of(bytes), tables) {
        Stop::Drop(_) => Stop::Drop(reason),
        other => other,
    }
}

/// Looks for the session of `work.reply`.
#[inline(never)]
pub(super) fn find<T: Tables>(work: &mut ErrorWorkspace, tables: &mut T) -> bool {
    if let Some(entry) = tables.reverse(&work.reply) {
        let session = entry.session;
        work.flow = entry.forward;
        work.link = session.link;
        work.uplink = uplink_of(session.uplink, session.flags, &work.flow);
        return true;
    }
    for class in CLASSES {
        let Some(entry) = tables.transient(class, &work.reply) else { continue };
        let (session, last_seen) = (entry.session, entry.last_seen);
        work.flow = entry.forward;
        work.link = session.link;
        work.uplink = uplink_of(session.uplink, session.flags, &work.flow);
        if is_live(last_seen, work.reply.protocol, work.arrival.now, tables) {
            return true;
        }
    }
    false
}

/// What must hold of an error about a session; notes what the client's is made of.
///
/// The new checksum is summed again: one that is wrong isn't made right (RFC 5508 REQ-3 a).
#[inline(never)]
fn read<P: Packet>(packet: &P, work: &mut ErrorWorkspace) -> Decision<()> {
    let Some(outer) = packet.view::<IPV4_LENGTH>(0) else { return Err(Stop::Pass) };
    let total = u32::from(Ipv4Header::of(outer).total());
    let length = total.saturating_sub(IPV4_LENGTH as u32);
    if !holds_error(length, IPV4_LENGTH) || total > work.arrival.length {
        return Err(Stop::Drop(Reason::IcmpMalformed));
    }
    let Some(message) = packet.sum(IPV4_LENGTH as u32, length) else {
        return Err(Stop::Drop(Reason::IcmpMalformed));
    };
    if !Difference::new().add_sum(message).is_right() {
        return Err(Stop::Drop(Reason::IcmpChecksum));
    }
    // Looked at only now: nothing has to be remembered over the call.
    let Some(outer) = packet.view::<IPV4_LENGTH>(0) else { return Err(Stop::Pass) };
    let Some(start) = packet.view::<ICMP_LENGTH>(IPV4_LENGTH) else { return Err(Stop::Pass) };
    let Some(inner) = packet.view::<IPV4_LENGTH>(EMBEDDED) else { return Err(Stop::Pass) };
    let Some(transport) = packet.view::<8>(EMBEDDED + IPV4_LENGTH) else { return Err(Stop::Pass) };
    let (outer, inner) = (Ipv4Header::of(outer), Ipv4Header::of(inner));
    if outer.ttl <= 1 {
        return Err(Stop::Drop(Reason::HopLimit));
    }
    work.start = *start;
    work.outer = Outer { class: outer.tos, hops: outer.ttl };
    work.embedded.class = inner.tos;
    work.embedded.hops = inner.ttl;
    work.embedded.payload = inner.total().saturating_sub(IPV4_LENGTH as u16);
    work.embedded.transport = *transport;
    let [kind, code, _, _, _, units, ..] = *start;
    // Three types have a length field (RFC 4884 §4); of their counterparts only two have one.
    let declared = if kind == icmpv4::SOURCE_QUENCH { 0 } else { u32::from(units) * 4 };
    let extends = match kind {
        icmpv4::UNREACHABLE => !matches!(code, icmpv4::PROTOCOL | icmpv4::FRAGMENTATION_NEEDED),
        icmpv4::TIME_EXCEEDED => true,
        _ => false,
    };
    work.shape = Shape::of(length, declared, [IPV4_LENGTH, IPV6_LENGTH], ROOM, extends);
    Ok(())
}

/// What the client's error says.
#[inline(never)]
fn map<T: Tables>(work: &mut ErrorWorkspace, tables: &T) -> Decision<()> {
    let [kind, code, _, _, pointer, _, high, low] = work.start;
    let Some(mapped) = icmp::to_ipv6(kind, code, pointer) else {
        return Err(Stop::Drop(Reason::IcmpError));
    };
    work.mapped = mapped;
    let limits = limits(work.uplink.ifindex, work.link.index, tables);
    let total = work.embedded.payload.saturating_add(IPV4_LENGTH as u16);
    work.mtu = mtu::to_ipv6(u16::from_be_bytes([high, low]), total, &limits);
    Ok(())
}

/// Writes the client's error over what has been copied.
#[inline(never)]
fn write(work: &mut ErrorWorkspace) {
    let (message, parts, length) = work.parts();
    *length = icmp::ipv6_error(message, &parts);
}
