//! A client's packet, at tc ingress of an uplink.

use super::extension::{self, Obstacle, Progress};
use super::fragments::{self, Way};
use super::state::Side;
use super::{Decision, Exit, Stop, ToContainer, Transport, Workspace, close, open};
use crate::layout::{ForwardKey, Handle, Link, address_scope, link_flags, port_bit};
use crate::packet::{Arrival, Packet};
use crate::reason::Reason;
use crate::tables::Tables;
use crate::translate::{
    Fragmentation, MssPatch, TransportRewrite, clamp_mss, ipv4_header, mss_limit,
};
use crate::wire::{
    HEADER_GROWTH, IPV4_LENGTH, IPV6_LENGTH, Ipv4Header, Ipv6Header, protocol, tcp_flags,
};
use zerocopy::FromZeros;

/// Longest payload whose IPv4 packet's length still fits in 16 bits.
const LONGEST_PAYLOAD: u16 = u16::MAX - IPV4_LENGTH as u16;

/// Which way of the translator a packet takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP or UDP right behind the IPv6 header.
    Flow,
    /// ICMPv6: perhaps an error about a session.
    Error,
    /// Extension headers.
    Extended,
    /// Nothing of ours.
    Other,
}

/// Looks at the IPv6 header only.
#[inline(always)]
pub fn classify<P: Packet>(packet: &P) -> Kind {
    let Some(bytes) = packet.view::<IPV6_LENGTH>(0) else { return Kind::Other };
    let header = Ipv6Header::of(bytes);
    if header.version() != 6 {
        return Kind::Other;
    }
    match header.next_header {
        protocol::TCP | protocol::UDP => Kind::Flow,
        protocol::ICMPV6 => Kind::Error,
        protocol::HOP_BY_HOP
        | protocol::ROUTING
        | protocol::FRAGMENT
        | protocol::AUTHENTICATION
        | protocol::DESTINATION_OPTIONS => Kind::Extended,
        _ => Kind::Other,
    }
}

/// Decides on an IPv4 packet of an uplink: none is ours, but an alias stands for a client to the
/// containers, so nobody else may use it as a source (RFC 6146 §5.4).
#[inline(always)]
pub fn ipv4<P: Packet, T: Tables>(packet: &P, tables: &T) -> Stop {
    let Some(bytes) = packet.view::<IPV4_LENGTH>(0) else { return Stop::Pass };
    match tables.config() {
        Some(config) if config.is_alias(Ipv4Header::of(bytes).source) => Stop::Drop(Reason::Source),
        _ => Stop::Pass,
    }
}

/// Where a session's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
pub(super) struct Route {
    /// Index of the container link.
    pub link: u32,
    /// A number that differs from those of the session's other packets.
    pub number: u16,
}

/// Decides on a packet of [`Kind::Flow`] or [`Kind::Extended`] that has its ports:
/// [`Workspace::to_container`] says what to do. `work.extras` says what stands before them.
#[inline(always)]
pub fn decide<P: Packet, T: Tables>(
    packet: &P,
    arrival: &Arrival,
    work: &mut Workspace,
    tables: &mut T,
) -> Decision<()> {
    let Some(bytes) = packet.view::<IPV6_LENGTH>(0) else { return Err(Stop::Pass) };
    let header = Ipv6Header::of(bytes);
    work.transport.read::<IPV6_LENGTH, P>(packet, &work.extras)?;
    let Transport { protocol, ports, .. } = work.transport;
    if !is_published(tables, protocol, [ports[2], ports[3]]) {
        return Err(Stop::Pass);
    }
    work.flow = ForwardKey::of_packet(bytes, ports, arrival, protocol);
    work.arrival = *arrival;
    (work.payload, work.hops) = (header.payload(), header.hop_limit);

    let mut established = false;
    let mut ending = false;
    if let Some((entry, link)) = tables.forward_and_link(&work.flow) {
        let Handle { index, generation } = entry.session.link;
        work.reply = entry.reply.copied();
        work.route = Route { link: index, number: entry.usage.packets as u16 };
        established = link.is_some_and(|link| link.serves(generation));
        ending = close::both_done(entry.session.flags);
        if established {
            check(work)?;
            if entry.last_seen != arrival.now {
                entry.last_seen = arrival.now;
            }
            entry.usage.count(arrival);
        } else {
            open::after_link(work, tables)?;
        }
    }
    if !established {
        open::by_client(work, tables)?;
    } else if ending || work.transport.has(tcp_flags::FIN | tcp_flags::RST) {
        close::note(Side::Client, work, tables);
    }
    if work.extras.fragment.is_some {
        first_fragment(work, tables)?;
    }

    // Read back rather than remembered: what differs between TCP and UDP would be followed by the
    // verifier through everything above, once for each.
    let transport = work.transport;
    let Some(link) = tables.link(work.route.link) else {
        return Err(Stop::Drop(Reason::TargetDown));
    };
    let mss = if transport.has(tcp_flags::SYN) {
        let limit = segment_limit(link, arrival.ifindex, tables);
        clamp_mss(packet, IPV6_LENGTH + work.extras.length as usize, &transport, limit)
    } else {
        MssPatch::NONE
    };
    let Workspace { flow, reply, route, extras, to_container, told_mtu, .. } = work;
    let rewrite = TransportRewrite::to_container(reply, &flow.client, &flow.host, transport.ports)
        .with_mss(mss);
    let payload = header.payload().wrapping_sub(extras.length);
    let headers = IPV4_LENGTH as u32 + u32::from(transport.length);
    let wire = arrival.wire_length(u32::from(payload) + IPV4_LENGTH as u32, headers);
    // RFC 7915 §1.4: an IPv6 router never fragments.
    if exceeds_link(wire, link, arrival) {
        if arrival.from_host && transport.protocol == protocol::UDP {
            // The way has become another one. The proxy takes datagrams of any size, while an error would
            // narrow the host's way to itself for minutes.
            return Err(Stop::Pass);
        }
        *told_mtu = link.mtu.saturating_add(HEADER_GROWTH);
        return Err(Stop::TooBig);
    }
    let fragmentation = if extras.fragment.is_some {
        Fragmentation::of_fragment(&extras.fragment)
    } else {
        // Sessions between the same two addresses start at different numbers.
        let identification = route.number.wrapping_add(u16::from_be_bytes(reply.alias_port));
        Fragmentation::of_whole(wire, identification)
    };
    *to_container = ToContainer {
        header: ipv4_header(header, reply, payload, fragmentation),
        extra: extras.length,
        transport: rewrite,
        exit: Exit::of(link),
        ethernet: [link.mac, link.device_mac],
        leads: extras.fragment.more,
    };
    Ok(())
}

/// What a packet of [`Kind::Extended`] turns out to be, behind its extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extended {
    /// TCP or UDP with ports: to be decided on as a flow.
    Flow,
    /// A later fragment: [`Workspace::to_container`] says what to do.
    Fragment,
}

/// Looks behind the extension headers of a packet of [`Kind::Extended`].
#[inline(always)]
pub fn look_behind<P: Packet, T: Tables>(
    packet: &P,
    arrival: &Arrival,
    work: &mut Workspace,
    tables: &mut T,
) -> Decision<Extended> {
    let Some(bytes) = packet.view::<IPV6_LENGTH>(0) else { return Err(Stop::Pass) };
    let header = Ipv6Header::of(bytes);
    extension::walk(packet, header.next_header, &mut work.extras);
    if work.extras.progress != Progress::Transport {
        return Err(Stop::Pass);
    }
    if work.extras.fragment.offset == 0 {
        return Ok(Extended::Flow);
    }
    work.arrival = *arrival;
    (work.payload, work.hops) = (header.payload(), header.hop_limit);
    set_fragment_key(header, work);
    later_fragment(header, work, tables)?;
    Ok(Extended::Fragment)
}

#[inline(always)]
fn set_fragment_key(header: &Ipv6Header, work: &mut Workspace) {
    let Workspace { fragment_key: key, extras, arrival, .. } = work;
    key.source = header.source;
    key.destination = header.destination;
    key.identification = extras.fragment.identification;
    key.scope = address_scope(&header.source, arrival.ifindex);
    key.protocol = extras.next;
    key.origin = arrival.origin();
    key.reserved = [0; 2];
}

/// The first fragment of a datagram (RFC 7915 §5.1.1): it has the ports.
#[inline(never)]
fn first_fragment<T: Tables>(work: &mut Workspace, tables: &mut T) -> Decision<()> {
    let index = work.route.link;
    let Some(generation) = tables.link(index).map(|link| link.generation) else {
        return Err(Stop::Drop(Reason::TargetDown));
    };
    let Workspace { flow, reply, extras, arrival, fragment_key: key, datagram, .. } = work;
    key.source = flow.client;
    key.destination = flow.host;
    key.identification = extras.fragment.identification;
    key.scope = flow.scope;
    key.protocol = flow.protocol;
    key.origin = flow.origin;
    key.reserved = [0; 2];
    datagram.forward = *flow;
    datagram.reply = *reply;
    datagram.link = Handle { index, generation };
    datagram.uplink = arrival.ifindex;
    datagram.flags = 0;
    fragments::begin(Way::In, work.payload.wrapping_sub(work.extras.length), work, tables)
}

/// A later fragment: it has no ports, and goes where the first one of its datagram went.
#[inline(always)]
fn later_fragment<T: Tables>(
    header: &Ipv6Header,
    work: &mut Workspace,
    tables: &mut T,
) -> Decision<()> {
    let payload = work.payload.wrapping_sub(work.extras.length);
    // Whose it is shows in the key alone.
    let known = fragments::is_known(Way::In, work, tables);
    if is_cut_off(work) {
        return Err(if known { Stop::Drop(Reason::Truncated) } else { Stop::Pass });
    }
    if !known {
        return Err(unknown(work, tables));
    }
    // No error is sent about a fragment that isn't the first (RFC 7915 §5.4).
    match work.extras.obstacle {
        Obstacle::None => {}
        Obstacle::Routing => return Err(Stop::Drop(Reason::RoutingHeader)),
        _ => return Err(Stop::Drop(Reason::ExtensionHeader)),
    }
    if work.hops <= 1 {
        return Err(Stop::Drop(Reason::HopLimit));
    }
    if let Err(stop) = fragments::follow(Way::In, payload, work, tables) {
        return Err(if stop == Stop::Pass { unknown(work, tables) } else { stop });
    }
    let Workspace { datagram, extras, to_container, .. } = work;
    let Some(link) = tables.link(datagram.link.index) else {
        return Err(Stop::Drop(Reason::TargetGone));
    };
    if exceeds_link(u32::from(payload) + IPV4_LENGTH as u32, link, &work.arrival) {
        return Err(Stop::Drop(Reason::TooBig));
    }
    let fragmentation = Fragmentation::of_fragment(&extras.fragment);
    *to_container = ToContainer {
        header: ipv4_header(header, &datagram.reply, payload, fragmentation),
        extra: extras.length,
        transport: TransportRewrite::NONE,
        exit: Exit::of(link),
        ethernet: [link.mac, link.device_mac],
        leads: false,
    };
    Ok(())
}

/// What becomes of a fragment before the first one of its datagram has come (RFC 6146 §3.4). What isn't
/// the host's own, or neither TCP nor UDP, is never ours; and the host sends its fragments in order.
#[inline(never)]
fn unknown<T: Tables>(work: &Workspace, tables: &T) -> Stop {
    let Workspace { fragment_key: key, arrival, .. } = work;
    let ports = matches!(key.protocol, protocol::TCP | protocol::UDP);
    if ports
        && !arrival.from_host
        && tables.is_local(&key.destination, address_scope(&key.destination, arrival.ifindex))
    {
        Stop::Hold
    } else {
        Stop::Pass
    }
}

/// Whether anything is published on this port, on whatever address.
#[inline(always)]
pub(super) fn is_published<T: Tables>(tables: &T, number: u8, port: [u8; 2]) -> bool {
    let (word, bit) = port_bit(number, port);
    tables.port_word(word) & bit != 0
}

/// What must hold of a packet before it changes a session.
#[inline(always)]
pub(super) fn check(work: &Workspace) -> Decision<()> {
    let Workspace { transport, extras, payload, hops, .. } = work;
    if is_cut_off(work) || !transport.fits(payload.wrapping_sub(extras.length)) {
        return Err(Stop::Drop(Reason::Truncated));
    }
    match extras.obstacle {
        Obstacle::None => {}
        Obstacle::Routing => return Err(Stop::RoutingHeader),
        _ => return Err(Stop::Drop(Reason::ExtensionHeader)),
    }
    if extras.fragment.is_some {
        fragments::check(extras.fragment.more, 0, payload.wrapping_sub(extras.length))?;
    }
    if *hops <= 1 {
        return Err(Stop::TimeExceeded);
    }
    if transport.unchecked {
        return Err(Stop::Drop(Reason::UdpZeroChecksum));
    }
    Ok(())
}

/// Whether a packet is shorter than its headers say, or too long for IPv4 (rule H13).
#[inline(always)]
fn is_cut_off(work: &Workspace) -> bool {
    let Workspace { extras, arrival, payload, .. } = work;
    *payload > LONGEST_PAYLOAD
        || extras.length > *payload
        || IPV6_LENGTH as u32 + u32::from(*payload) > arrival.length
}

/// Whether a packet is larger than its link carries. A link whose MTU isn't known sets no limit, and
/// nothing is too large to be handed over from one namespace to the other.
#[inline(always)]
fn exceeds_link(wire: u32, link: &Link, arrival: &Arrival) -> bool {
    let is_handed_over = arrival.from_host && link.flags & link_flags::PEER != 0;
    wire > link.mtu && link.mtu != 0 && !is_handed_over
}

/// The MSS that the client's uplink and the container's link both carry.
#[inline(always)]
pub(super) fn segment_limit<T: Tables>(link: &Link, ifindex: u32, tables: &T) -> u16 {
    // An uplink that isn't in the table sets no limit.
    let uplink = tables.uplink(ifindex).map_or(u32::MAX, |uplink| uplink.mtu);
    mss_limit(uplink, link.mtu)
}
