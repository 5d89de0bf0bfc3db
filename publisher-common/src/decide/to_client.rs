//! A container's packet, at tc ingress of the host's side of its veth or of its bridge.

mod checks;
mod fragments;
mod size;
mod unsummed;

use super::extension::Fragment;
use super::state::Side;
use super::to_container::{Extended, segment_limit};
use super::{Decision, Detour, Stop, ToClient, Uplink, Workspace, close, establish, options};
use crate::layout::{Class, ForwardKey, ReplyKey, Timeouts, origin, session_flags};
use crate::packet::{Arrival, Packet};
use crate::reason::Reason;
use crate::tables::Tables;
use crate::translate::{MssPatch, TransportRewrite, clamp_mss, ipv6_header};
use crate::wire::{IPV4_LENGTH, Ipv4Header, protocol, tcp_flags};
use checks::check;
pub(super) use checks::{check_link, miss};
use fragments::{first_fragment, later_fragment, set_fragment};
use size::{exceeds_uplink, find_detour};

/// Which way of the translator a packet takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP or UDP right behind an IPv4 header without options.
    Flow,
    /// TCP or UDP with IPv4 options, or a fragment.
    Extended,
    /// ICMP: perhaps an error about a session.
    Error,
}

/// Looks at the IPv4 header: a container's packet is ours if it goes to an alias, or to a port of
/// gateway mode. `Err` for everything that is decided by that alone.
#[inline(always)]
pub fn classify<P: Packet, T: Tables>(packet: &P, tables: &T) -> Decision<Kind> {
    let Some(bytes) = packet.view::<IPV4_LENGTH>(0) else { return Err(Stop::Pass) };
    let header = Ipv4Header::of(bytes);
    if header.version() != 4 {
        return Err(Stop::Pass);
    }
    let Some(config) = tables.config() else { return Err(Stop::Pass) };
    if config.is_alias(header.source) {
        return Err(Stop::Drop(Reason::Source));
    }
    let plain = header.version_length == Ipv4Header::VERSION_LENGTH && !header.is_fragment();
    if config.is_alias(header.destination) {
        return match header.protocol {
            _ if header.length() < IPV4_LENGTH as u16 => Err(Stop::Drop(Reason::Truncated)),
            protocol::TCP | protocol::UDP if plain => Ok(Kind::Flow),
            protocol::TCP | protocol::UDP => Ok(Kind::Extended),
            protocol::ICMP if plain => Ok(Kind::Error),
            _ => Err(Stop::Drop(Reason::ReplyProtocol)),
        };
    }
    match header.protocol {
        protocol::TCP | protocol::UDP if plain => {
            let Some(ports) = packet.view::<4>(IPV4_LENGTH) else { return Err(Stop::Pass) };
            if config.is_gateway_port([ports[2], ports[3]]) {
                Ok(Kind::Flow)
            } else {
                Err(Stop::Pass)
            }
        }
        protocol::TCP | protocol::UDP if header.length() >= IPV4_LENGTH as u16 => {
            Ok(Kind::Extended)
        }
        protocol::ICMP if plain => {
            // The port of the embedded packet's source, at the end of IPv4, ICMP and IPv4 headers.
            let Some(ports) = packet.view::<4>(2 * IPV4_LENGTH + 8) else { return Err(Stop::Pass) };
            if config.is_gateway_port([ports[0], ports[1]]) {
                Ok(Kind::Error)
            } else {
                Err(Stop::Pass)
            }
        }
        _ => Err(Stop::Pass),
    }
}

/// Decides on a packet of [`Kind::Flow`] or [`Kind::Extended`] that has its ports:
/// [`Workspace::to_client`] says what to do. `work.extras` says what stands before them, `BRIDGE`
/// that it came by the bridge rather than by the host's side of a veth.
#[inline(always)]
pub fn decide<const BRIDGE: bool, P: Packet, T: Tables>(
    packet: &P,
    arrival: &Arrival,
    work: &mut Workspace,
    tables: &mut T,
) -> Decision<()> {
    let Some(bytes) = packet.view::<IPV4_LENGTH>(0) else { return Err(Stop::Pass) };
    let header = &Ipv4Header::read(bytes);
    let extra = work.extras.length;
    if work.transport.read::<IPV4_LENGTH, P>(packet, &work.extras).is_err() {
        return Err(miss(header, tables));
    }
    let transport = work.transport;
    work.reply = ReplyKey::of_packet(bytes, transport.ports, transport.protocol);
    work.arrival = *arrival;

    let (link, uplink) = match tables.reverse_and_link(&work.reply) {
        Some((entry, link)) => {
            let session = entry.session;
            check_link::<BRIDGE, P>(packet, arrival, session.link, link)?;
            check(bytes, work)?;
            if entry.last_seen != arrival.now {
                entry.last_seen = arrival.now;
            }
            entry.usage.count(arrival);
            work.flow = entry.forward.copied();
            if transport.has(tcp_flags::FIN | tcp_flags::RST) || close::both_done(session.flags) {
                close::note(Side::Container, work, tables);
            }
            (session.link, uplink_of(session.uplink, session.flags, &work.flow))
        }
        None => {
            let Some(class) = find(work, tables) else { return Err(miss(header, tables)) };
            let session = work.transient.session;
            let link = tables.link(session.link.index);
            check_link::<BRIDGE, P>(packet, arrival, session.link, link)?;
            check(bytes, work)?;
            establish::container_sent(class, work, tables);
            (session.link, uplink_of(session.uplink, session.flags, &work.flow))
        }
    };
    let payload = header.total().wrapping_sub(IPV4_LENGTH as u16).wrapping_sub(extra);
    let fragment = work.extras.fragment;
    if fragment.is_some {
        work.payload = payload;
        work.datagram.link = link;
        work.datagram.uplink = uplink.ifindex;
        work.datagram.flags = if uplink.raw { session_flags::RAW_UPLINK } else { 0 };
        first_fragment(work, tables)?;
    }

    work.detour = Detour::NONE;
    let headers = IPV4_LENGTH as u32 + u32::from(transport.length);
    if !fragment.is_some && exceeds_uplink(header, arrival, headers, uplink, tables) {
        find_detour(header, arrival, work, tables)?;
    }
    work.seed = [0; 2];
    if transport.unchecked {
        unsummed::seed(packet, work)?;
    }
    let Workspace { flow, reply, transport, seed, detour, .. } = &*work;
    let ([a, b], [c, d]) = (flow.host_port, flow.client_port);
    let mss = match tables.link(link.index) {
        Some(link) if transport.has(tcp_flags::SYN) => {
            let limit = segment_limit(link, uplink.ifindex, tables);
            clamp_mss(packet, IPV4_LENGTH + extra as usize, transport, limit)
        }
        _ => MssPatch::NONE,
    };
    let rewrite =
        TransportRewrite::to_client(reply, &flow.client, &flow.host, transport.ports, [a, b, c, d])
            .with_mss(mss)
            .with_seed(*seed);
    if fragment.is_some {
        return set_fragment(header, payload, uplink, rewrite, work);
    }
    work.to_client = ToClient {
        header: ipv6_header(header, &work.flow, payload, work.reply.protocol),
        extra,
        pieces: 0,
        fragment: [0; 8],
        transport: rewrite,
        uplink,
        detour: *detour,
    };
    Ok(())
}

/// Looks behind the options and the fragment fields of a packet of [`Kind::Extended`].
#[inline(always)]
pub fn look_behind<const BRIDGE: bool, P: Packet, T: Tables>(
    packet: &P,
    arrival: &Arrival,
    work: &mut Workspace,
    tables: &mut T,
) -> Decision<Extended> {
    let Some(bytes) = packet.view::<IPV4_LENGTH>(0) else { return Err(Stop::Pass) };
    let header = Ipv4Header::of(bytes);
    work.arrival = *arrival;
    work.extras.clear(header.protocol);
    work.extras.length = header.length() - IPV4_LENGTH as u16;
    work.extras.fragment = Fragment::of_ipv4(header);
    if work.extras.length != 0 {
        options::walk(packet, &mut work.extras);
    }
    if work.extras.fragment.offset != 0 {
        later_fragment::<BRIDGE, P, T>(packet, work, tables)?;
        return Ok(Extended::Fragment);
    }
    let Some([_, _, a, b]) = packet.load::<4>(header.length() as usize) else {
        return Err(miss(header, tables));
    };
    let Some(config) = tables.config() else { return Err(Stop::Pass) };
    if config.is_alias(header.destination) || config.is_gateway_port([a, b]) {
        Ok(Extended::Flow)
    } else {
        Err(Stop::Pass)
    }
}

#[inline(always)]
pub(super) const fn uplink_of(ifindex: u32, flags: u8, flow: &ForwardKey) -> Uplink {
    Uplink {
        ifindex,
        raw: flags & session_flags::RAW_UPLINK != 0,
        to_host: flow.origin == origin::HOST,
    }
}

/// Looks for the session `work.reply` among those that aren't established, and copies what it finds
/// to `work.transient`.
#[inline(never)]
fn find<T: Tables>(work: &mut Workspace, tables: &mut T) -> Option<Class> {
    let Workspace { flow, reply, arrival, transient, .. } = work;
    let timeouts: Timeouts = tables.config()?.timeouts;
    for class in [Class::HalfOpen, Class::Closing] {
        if let Some(entry) = tables.transient(class, reply)
            && !establish::has_expired(entry.last_seen, reply.protocol, &timeouts, arrival.now)
        {
            *transient = *entry;
            *flow = entry.forward;
            return Some(class);
        }
    }
    None
}
