//! A client's packet, at tc ingress of an uplink.

use super::{Decision, Exit, Stop, ToContainer, Transport, close, open};
use crate::layout::{ForwardKey, Link, ReplyKey, address_scope, port_bit, session_flags};
use crate::packet::{Arrival, Packet};
use crate::reason::Reason;
use crate::tables::Tables;
use crate::translate::{TransportRewrite, clamp_mss, ipv4_header, mss_limit};
use crate::wire::{IPV4_LENGTH, IPV6_LENGTH, Ipv6Header, TcpHeader, protocol, tcp_flags};

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

/// Where a session's packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The container's side of the flow.
    pub reply: ReplyKey,
    /// Index of the container link.
    pub link: u32,
    /// A number that differs from those of the session's other packets.
    pub number: u16,
}

/// Decides on a packet of [`Kind::Flow`].
#[inline(always)]
pub fn decide<P: Packet, T: Tables>(
    packet: &P,
    arrival: &Arrival,
    tables: &mut T,
) -> Decision<ToContainer> {
    let header = Ipv6Header::of(packet.view::<IPV6_LENGTH>(0).ok_or(Stop::Pass)?);
    let transport = Transport::read::<IPV6_LENGTH, P>(packet, header.next_header)?;
    if !is_published(tables, transport.protocol, transport.destination_port()) {
        return Err(Stop::Pass);
    }
    let flow = flow_of(header, &transport, arrival);

    let route = match tables.forward(&flow) {
        Some(entry) => {
            if entry.last_seen != arrival.now {
                entry.last_seen = arrival.now;
            }
            entry.usage.count(arrival);
            let (reply, link) = (entry.reply, entry.session.link);
            let route = Route { reply, link: link.index, number: entry.usage.packets as u16 };
            let flags = entry.session.flags;
            if !tables.link(link.index).is_some_and(|found| found.serves(link.generation)) {
                open::reopen(&flow, &reply, &transport, arrival, tables)?
            } else {
                if transport.has(tcp_flags::FIN | tcp_flags::RST) {
                    close::note(
                        &flow,
                        &reply,
                        transport.flags,
                        session_flags::CLIENT_FIN,
                        arrival.now,
                        tables,
                    );
                } else if close::both_done(flags) {
                    close::to_closing(&flow, &reply, arrival.now, tables);
                }
                route
            }
        }
        None => open::by_client(&flow, &transport, arrival, tables)?,
    };

    check(header, &transport, arrival.length)?;
    let link = tables.link(route.link).ok_or(Stop::Drop(Reason::TargetDown))?;
    let rewrite = TransportRewrite::to_container(
        &route.reply,
        &header.source,
        &header.destination,
        transport.ports,
    );
    let limit = if transport.has(tcp_flags::SYN) {
        segment_limit(link, arrival.ifindex, tables)
    } else {
        None
    };
    let rewrite = rewrite.with_mss(limit.and_then(|limit| {
        let tcp = TcpHeader::of(packet.view::<20>(IPV6_LENGTH)?);
        clamp_mss(packet, IPV6_LENGTH, tcp, limit)
    }));
    let headers = IPV4_LENGTH as u32 + u32::from(transport.length);
    let wire = arrival.wire_length(u32::from(header.payload()) + IPV4_LENGTH as u32, headers);
    let start = u16::from_be_bytes(route.reply.alias_port);
    Ok(ToContainer {
        header: ipv4_header(
            header,
            route.reply.alias,
            route.reply.target,
            wire,
            route.number.wrapping_add(start),
        ),
        transport: rewrite,
        exit: Exit::of(link),
        ethernet: [link.mac, link.device_mac],
    })
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
    let [a, b, c, d] = ports;
    if !is_published(tables, number, [c, d]) {
        return false;
    }
    let flow = ForwardKey {
        client: header.source,
        host: header.destination,
        client_port: [a, b],
        host_port: [c, d],
        scope: address_scope(&header.source, arrival.ifindex),
        protocol: number,
        reserved: [0; 3],
    };
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
fn flow_of(header: &Ipv6Header, transport: &Transport, arrival: &Arrival) -> ForwardKey {
    ForwardKey {
        client: header.source,
        host: header.destination,
        client_port: transport.source_port(),
        host_port: transport.destination_port(),
        scope: address_scope(&header.source, arrival.ifindex),
        protocol: transport.protocol,
        reserved: [0; 3],
    }
}

/// What must hold of a packet that is translated.
#[inline(always)]
fn check(header: &Ipv6Header, transport: &Transport, length: u32) -> Decision<()> {
    let payload = header.payload();
    if !transport.fits(payload)
        || payload > LONGEST_PAYLOAD
        || IPV6_LENGTH as u32 + u32::from(payload) > length
    {
        return Err(Stop::Drop(Reason::Truncated));
    }
    if header.hop_limit <= 1 {
        return Err(Stop::Drop(Reason::HopLimit));
    }
    if transport.unchecked {
        return Err(Stop::Drop(Reason::UdpZeroChecksum));
    }
    Ok(())
}

/// The MSS that the client's uplink and the container's link both carry.
#[inline(always)]
pub(super) fn segment_limit<T: Tables>(link: &Link, ifindex: u32, tables: &T) -> Option<u16> {
    Some(mss_limit(tables.uplink(ifindex)?.mtu, link.mtu))
}
