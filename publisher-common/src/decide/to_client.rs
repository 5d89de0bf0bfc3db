//! A container's packet, at tc ingress of the host's side of its veth or of its bridge.

use super::to_container::segment_limit;
use super::{Answer, Decision, Stop, ToClient, Transport, Uplink, Workspace, close, establish};
use crate::layout::{Class, Handle, Link, ReplyKey, State, Timeouts, session_flags};
use crate::packet::{Arrival, Packet};
use crate::reason::Reason;
use crate::tables::Tables;
use crate::translate::{MssPatch, TransportRewrite, clamp_mss, ipv6_header};
use crate::wire::{
    HEADER_GROWTH, IPV4_LENGTH, IPV6_MINIMUM_MTU, Ipv4Header, UDP_LENGTH, protocol, tcp_flags,
};

/// Which way of the translator a packet takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP or UDP.
    Flow,
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
    let plain = header.version_length == Ipv4Header::VERSION_LENGTH && !header.is_fragment();
    if config.is_alias(header.destination) {
        return match header.protocol {
            _ if header.version_length != Ipv4Header::VERSION_LENGTH => {
                Err(Stop::Drop(Reason::Ipv4Options))
            }
            _ if !plain => Err(Stop::Drop(Reason::Fragment)),
            protocol::TCP | protocol::UDP => Ok(Kind::Flow),
            protocol::ICMP => Ok(Kind::Error),
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

/// Decides on a packet of [`Kind::Flow`]: [`Workspace::to_client`] says what to do. `BRIDGE` says that it came by the bridge rather than by
/// the host's side of a veth.
#[inline(always)]
pub fn decide<const BRIDGE: bool, P: Packet, T: Tables>(
    packet: &P,
    arrival: &Arrival,
    work: &mut Workspace,
    tables: &mut T,
) -> Decision<()> {
    let Some(bytes) = packet.view::<IPV4_LENGTH>(0) else { return Err(Stop::Pass) };
    let header = Ipv4Header::of(bytes);
    let transport = Transport::read::<IPV4_LENGTH, P>(packet, header.protocol)?;
    work.reply = ReplyKey {
        target: header.source,
        alias: header.destination,
        target_port: transport.source_port(),
        alias_port: transport.destination_port(),
        protocol: transport.protocol,
        reserved: [0; 3],
    };
    work.transport = transport;
    work.arrival = *arrival;

    let (link, uplink) = match tables.reverse_and_link(&work.reply) {
        Some((entry, link)) => {
            let session = entry.session;
            check_link::<BRIDGE, P>(packet, arrival, session.link, link)?;
            check(header, &transport, arrival.length)?;
            if entry.last_seen != arrival.now {
                entry.last_seen = arrival.now;
            }
            entry.usage.count(arrival);
            work.flow = entry.forward;
            if transport.has(tcp_flags::FIN | tcp_flags::RST) || close::both_done(session.flags) {
                close::note(session_flags::CONTAINER_FIN, work, tables);
            }
            (session.link, uplink_of(session.uplink, session.flags))
        }
        None => {
            let Some(class) = find(work, tables) else { return Err(miss(header, tables)) };
            let session = work.transient.session;
            let link = tables.link(session.link.index);
            check_link::<BRIDGE, P>(packet, arrival, session.link, link)?;
            check(header, &transport, arrival.length)?;
            container_sent(class, work, tables);
            (session.link, uplink_of(session.uplink, session.flags))
        }
    };

    if transport.protocol == protocol::UDP && exceeds_uplink(header, arrival, uplink, tables) {
        return Err(Stop::Answer(Answer::TooBig));
    }
    let Workspace { flow, reply, to_client, .. } = work;
    let ([a, b], [c, d]) = (flow.host_port, flow.client_port);
    let mss = match tables.link(link.index) {
        Some(link) if transport.has(tcp_flags::SYN) => {
            let limit = segment_limit(link, uplink.ifindex, tables);
            clamp_mss::<IPV4_LENGTH, P>(packet, &transport, limit)
        }
        _ => MssPatch::NONE,
    };
    let rewrite =
        TransportRewrite::to_client(reply, &flow.client, &flow.host, transport.ports, [a, b, c, d]);
    *to_client = ToClient {
        header: ipv6_header(header, flow.host, flow.client),
        transport: rewrite.with_mss(mss),
        uplink,
    };
    Ok(())
}

#[inline(always)]
pub(super) const fn uplink_of(ifindex: u32, flags: u8) -> Uplink {
    Uplink { ifindex, raw: flags & session_flags::RAW_UPLINK != 0 }
}

/// Whether a datagram that must not be fragmented is larger than the uplink carries (RFC 7915 §4.1). TCP's
/// segments are held below that by their maximum size (rule S19).
#[inline(always)]
fn exceeds_uplink<T: Tables>(
    header: &Ipv4Header,
    arrival: &Arrival,
    uplink: Uplink,
    tables: &T,
) -> bool {
    let headers = (IPV4_LENGTH + UDP_LENGTH) as u32;
    let wire = arrival.wire_length(u32::from(header.total()), headers) + HEADER_GROWTH;
    wire > IPV6_MINIMUM_MTU
        && header.must_not_fragment()
        && tables.uplink(uplink.ifindex).is_some_and(|uplink| wire > uplink.mtu)
}

/// A packet to an alias never reaches the host's stack; one to the gateway's own address may be
/// somebody else's.
#[inline(always)]
pub(super) fn miss<T: Tables>(header: &Ipv4Header, tables: &T) -> Stop {
    if tables.config().is_some_and(|config| config.is_alias(header.destination)) {
        Stop::Drop(Reason::ReplyNoSession)
    } else {
        Stop::Pass
    }
}

/// What must hold of a packet before it changes a session.
#[inline(always)]
fn check(header: &Ipv4Header, transport: &Transport, length: u32) -> Decision<()> {
    let total = header.total();
    if total < IPV4_LENGTH as u16
        || !transport.fits(total - IPV4_LENGTH as u16)
        || u32::from(total) > length
    {
        return Err(Stop::Drop(Reason::Truncated));
    }
    if header.ttl <= 1 {
        return Err(Stop::Answer(Answer::TimeExceeded));
    }
    if transport.unchecked {
        return Err(Stop::Drop(Reason::UdpZeroChecksum));
    }
    Ok(())
}

/// A reply must come by its session's own container link: by the veth where it is known, else by the
/// bridge from the target's hardware address. A neighbour container can't answer in its place.
#[inline(always)]
pub(super) fn check_link<const BRIDGE: bool, P: Packet>(
    packet: &P,
    arrival: &Arrival,
    expected: Handle,
    link: Option<&Link>,
) -> Decision<()> {
    let Some(link) = link else { return Err(Stop::Drop(Reason::TargetGone)) };
    if !link.serves(expected.generation) {
        return Err(Stop::Drop(Reason::TargetGone));
    }
    if is_own_link::<BRIDGE, P>(packet, arrival, link) {
        Ok(())
    } else {
        Err(Stop::Drop(Reason::ForgedReply))
    }
}

#[inline(always)]
fn is_own_link<const BRIDGE: bool, P: Packet>(packet: &P, arrival: &Arrival, link: &Link) -> bool {
    if !BRIDGE {
        return link.veth == arrival.ifindex;
    }
    let [a, b, c, d, e, f] = packet.ethernet_source().unwrap_or_default();
    let source = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    let [a, b, c, d, e, f] = link.mac;
    link.veth == 0
        && link.device == arrival.ifindex
        && source == u64::from_be_bytes([0, 0, a, b, c, d, e, f])
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

/// The container has sent a packet of the session `work.reply`, which isn't established.
#[inline(never)]
fn container_sent<T: Tables>(class: Class, work: &mut Workspace, tables: &mut T) {
    let Workspace { reply, transport, arrival, .. } = work;
    let Some(entry) = tables.transient(class, reply) else { return };
    entry.last_seen = arrival.now;
    entry.received.count(arrival);
    let session = &mut entry.session;
    let both = tcp_flags::SYN | tcp_flags::ACK;
    let answers = transport.protocol == protocol::UDP || transport.flags & both == both;
    if class == Class::HalfOpen && answers {
        session.container_isn = transport.sequence;
        session.flags |= session_flags::REPLIED;
    }
    let reset = transport.has(tcp_flags::RST);
    if class == Class::Closing && session.state == State::TRANS && !reset {
        establish::promote(class, work, tables);
    } else if class == Class::HalfOpen && reset {
        tables.remove_transient(class, reply);
    }
}
