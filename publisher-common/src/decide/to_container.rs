//! A client's packet, at tc ingress of an uplink.

use super::{Answer, Decision, Exit, Stop, ToContainer, Transport, Workspace, close, open};
use crate::layout::{ForwardKey, Handle, Link, address_scope, port_bit, session_flags};
use crate::packet::{Arrival, Packet};
use crate::reason::Reason;
use crate::tables::Tables;
use crate::translate::{MssPatch, TransportRewrite, clamp_mss, ipv4_header, mss_limit};
use crate::wire::{HEADER_GROWTH, IPV4_LENGTH, IPV6_LENGTH, Ipv6Header, protocol, tcp_flags};
use zerocopy::FromZeros;

/// Extension headers that are walked before giving up.
const EXTENSION_HEADERS: usize = 6;
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

/// Where a session's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
pub(super) struct Route {
    /// Index of the container link.
    pub link: u32,
    /// A number that differs from those of the session's other packets.
    pub number: u16,
}

/// Decides on a packet of [`Kind::Flow`]: [`Workspace::to_container`] says what to do.
#[inline(always)]
pub fn decide<P: Packet, T: Tables>(
    packet: &P,
    arrival: &Arrival,
    work: &mut Workspace,
    tables: &mut T,
) -> Decision<()> {
    let Some(bytes) = packet.view::<IPV6_LENGTH>(0) else { return Err(Stop::Pass) };
    let header = Ipv6Header::of(bytes);
    let transport = Transport::read::<IPV6_LENGTH, P>(packet, header.next_header)?;
    if !is_published(tables, transport.protocol, transport.destination_port()) {
        return Err(Stop::Pass);
    }
    work.flow = flow_of(header, header.next_header, transport.ports, arrival);
    work.transport = transport;
    work.arrival = *arrival;
    (work.payload, work.hops) = (header.payload(), header.hop_limit);

    let mut established = false;
    let mut ending = false;
    if let Some((entry, link)) = tables.forward_and_link(&work.flow) {
        let Handle { index, generation } = entry.session.link;
        work.reply = entry.reply;
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
        close::note(session_flags::CLIENT_FIN, work, tables);
    }

    // Read back rather than remembered: what differs between TCP and UDP would be followed by the
    // verifier through everything above, once for each.
    let transport = work.transport;
    let Workspace { reply, route, to_container, told_mtu, .. } = work;
    let Some(link) = tables.link(route.link) else { return Err(Stop::Drop(Reason::TargetDown)) };
    let mss = if transport.has(tcp_flags::SYN) {
        let limit = segment_limit(link, arrival.ifindex, tables);
        clamp_mss::<IPV6_LENGTH, P>(packet, &transport, limit)
    } else {
        MssPatch::NONE
    };
    let rewrite =
        TransportRewrite::to_container(reply, &header.source, &header.destination, transport.ports)
            .with_mss(mss);
    let headers = IPV4_LENGTH as u32 + u32::from(transport.length);
    let wire = arrival.wire_length(u32::from(header.payload()) + IPV4_LENGTH as u32, headers);
    // RFC 7915 §1.4: an IPv6 router never fragments. A link whose MTU isn't known sets no limit.
    if wire > link.mtu && link.mtu != 0 {
        *told_mtu = link.mtu.saturating_add(HEADER_GROWTH);
        return Err(Stop::Answer(Answer::TooBig));
    }
    // Sessions between the same two addresses start at different numbers.
    let identification = route.number.wrapping_add(u16::from_be_bytes(reply.alias_port));
    *to_container = ToContainer {
        header: ipv4_header(header, reply.alias, reply.target, wire, identification),
        transport: rewrite,
        exit: Exit::of(link),
        ethernet: [link.mac, link.device_mac],
    };
    Ok(())
}

/// Decides on a packet of [`Kind::Extended`]: extension headers and fragments aren't translated yet,
/// so what is ours is dropped.
#[inline(always)]
pub fn decide_extended<P: Packet, T: Tables>(
    packet: &P,
    arrival: &Arrival,
    tables: &mut T,
) -> Stop {
    let Some(bytes) = packet.view::<IPV6_LENGTH>(0) else { return Stop::Pass };
    let header = Ipv6Header::of(bytes);
    let (mut next, mut offset) = (header.next_header, IPV6_LENGTH);
    let mut reason = Reason::ExtensionHeader;
    for _ in 0..EXTENSION_HEADERS {
        if matches!(next, protocol::TCP | protocol::UDP) {
            let Some(ports) = packet.load::<4>(offset) else { return Stop::Pass };
            return if is_ours(header, next, ports, arrival, tables) {
                Stop::Drop(reason)
            } else {
                Stop::Pass
            };
        }
        let Some(start) = packet.load::<4>(offset) else { return Stop::Pass };
        let length = match next {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                (start[1] as usize + 1) * 8
            }
            protocol::AUTHENTICATION => (start[1] as usize + 2) * 4,
            // Only a first fragment has ports; the others may be the host's.
            protocol::FRAGMENT if u16::from_be_bytes([start[2], start[3]]) & !7 == 0 => {
                reason = Reason::Fragment;
                8
            }
            _ => return Stop::Pass,
        };
        next = start[0];
        offset += length;
    }
    Stop::Pass
}

/// Whether a flow's packet belongs to a session, or asks for a publication.
fn is_ours<T: Tables>(
    header: &Ipv6Header,
    number: u8,
    ports: [u8; 4],
    arrival: &Arrival,
    tables: &mut T,
) -> bool {
    let [_, _, c, d] = ports;
    if !is_published(tables, number, [c, d]) {
        return false;
    }
    let flow = flow_of(header, number, ports, arrival);
    tables.forward(&flow).is_some()
        || (open::publication(&flow, arrival.ifindex, tables).is_some()
            && !tables.has_socket(&flow))
}

/// Whether anything is published on this port, on whatever address.
#[inline(always)]
pub(super) fn is_published<T: Tables>(tables: &T, number: u8, port: [u8; 2]) -> bool {
    let (word, bit) = port_bit(number, port);
    tables.port_word(word) & bit != 0
}

#[inline(always)]
fn flow_of(header: &Ipv6Header, number: u8, ports: [u8; 4], arrival: &Arrival) -> ForwardKey {
    let [a, b, c, d] = ports;
    ForwardKey {
        client: header.source,
        host: header.destination,
        client_port: [a, b],
        host_port: [c, d],
        scope: address_scope(&header.source, arrival.ifindex),
        protocol: number,
        reserved: [0; 3],
    }
}

/// What must hold of a packet before it changes a session.
#[inline(always)]
pub(super) fn check(work: &Workspace) -> Decision<()> {
    let Workspace { transport, arrival, payload, hops, .. } = work;
    if !transport.fits(*payload)
        || *payload > LONGEST_PAYLOAD
        || IPV6_LENGTH as u32 + u32::from(*payload) > arrival.length
    {
        return Err(Stop::Drop(Reason::Truncated));
    }
    if *hops <= 1 {
        return Err(Stop::Answer(Answer::TimeExceeded));
    }
    if transport.unchecked {
        return Err(Stop::Drop(Reason::UdpZeroChecksum));
    }
    Ok(())
}

/// The MSS that the client's uplink and the container's link both carry.
#[inline(always)]
pub(super) fn segment_limit<T: Tables>(link: &Link, ifindex: u32, tables: &T) -> u16 {
    // An uplink that isn't in the table sets no limit.
    let uplink = tables.uplink(ifindex).map_or(u32::MAX, |uplink| uplink.mtu);
    mss_limit(uplink, link.mtu)
}
