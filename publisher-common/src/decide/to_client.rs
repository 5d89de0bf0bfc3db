//! A container's packet, at tc ingress of the host's side of its veth or of its bridge.

use super::extension::{Fragment, Obstacle};
use super::fragments::{self, Way};
use super::to_container::{Extended, segment_limit};
use super::{Decision, Detour, Stop, ToClient, Uplink, Workspace, close, establish, options};
use crate::checksum::{Difference, checksum};
use crate::layout::{Class, Handle, Link, ReplyKey, State, Timeouts, session_flags};
use crate::packet::{Arrival, LONGEST_SUM, Packet};
use crate::reason::Reason;
use crate::tables::Tables;
use crate::translate::{
    MssPatch, TransportRewrite, clamp_mss, fragment_header, ipv6_header, pieces,
};
use crate::wire::{
    FRAGMENT_LENGTH, HEADER_GROWTH, IPV4_LENGTH, IPV6_MINIMUM_MTU, Ipv4Header, UDP_LENGTH,
    protocol, tcp_flags,
};

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
                close::note(session_flags::CONTAINER_FIN, work, tables);
            }
            (session.link, uplink_of(session.uplink, session.flags))
        }
        None => {
            let Some(class) = find(work, tables) else { return Err(miss(header, tables)) };
            let session = work.transient.session;
            let link = tables.link(session.link.index);
            check_link::<BRIDGE, P>(packet, arrival, session.link, link)?;
            check(bytes, work)?;
            container_sent(class, work, tables);
            (session.link, uplink_of(session.uplink, session.flags))
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
        self::seed(packet, work)?;
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

/// The first fragment of a datagram: it has the ports. The caller has set where it goes.
#[inline(never)]
fn first_fragment<T: Tables>(work: &mut Workspace, tables: &mut T) -> Decision<()> {
    let Workspace { flow, reply, extras, payload, fragment_key, datagram, .. } = work;
    fragments::key_of_ipv4(fragment_key, reply, extras.fragment.identification);
    datagram.forward = *flow;
    datagram.reply = *reply;
    let payload = *payload;
    fragments::begin(Way::Out, payload, work, tables)
}

/// A later fragment: it has no ports, and goes where the first one of its datagram went.
#[inline(always)]
fn later_fragment<const BRIDGE: bool, P: Packet, T: Tables>(
    packet: &P,
    work: &mut Workspace,
    tables: &mut T,
) -> Decision<()> {
    let Some(bytes) = packet.view::<IPV4_LENGTH>(0) else { return Err(Stop::Pass) };
    let header = Ipv4Header::of(bytes);
    work.reply = ReplyKey {
        target: header.source,
        alias: header.destination,
        target_port: [0; 2],
        alias_port: [0; 2],
        protocol: header.protocol,
        reserved: [0; 3],
    };
    let Workspace { reply, extras, fragment_key, arrival, .. } = work;
    fragments::key_of_ipv4(fragment_key, reply, extras.fragment.identification);
    let Some(known) = tables.datagram(Way::Out, fragment_key) else {
        return Err(miss(header, tables));
    };
    let link = known.link;
    check_link::<BRIDGE, P>(packet, arrival, link, tables.link(link.index))?;
    check_header(bytes, work)?;
    let payload = header.total().wrapping_sub(header.length());
    if let Err(stop) = fragments::follow(Way::Out, payload, work, tables) {
        return Err(if stop == Stop::Pass { miss(header, tables) } else { stop });
    }
    work.flow = work.datagram.forward;
    let uplink = uplink_of(work.datagram.uplink, work.datagram.flags);
    set_fragment(header, payload, uplink, TransportRewrite::NONE, work)
}

/// How a fragment of `payload` bytes goes to the client (RFC 7915 §4.1).
#[inline(always)]
fn set_fragment(
    header: &Ipv4Header,
    payload: u16,
    uplink: Uplink,
    transport: TransportRewrite,
    work: &mut Workspace,
) -> Decision<()> {
    let pieces = pieces(payload);
    if pieces == 0 {
        return Err(Stop::Drop(Reason::Fragment));
    }
    let length = payload.wrapping_add(FRAGMENT_LENGTH as u16);
    work.to_client = ToClient {
        header: ipv6_header(header, &work.flow, length, protocol::FRAGMENT),
        extra: work.extras.length,
        pieces,
        fragment: fragment_header(&work.extras.fragment, header.protocol),
        transport,
        uplink,
        detour: Detour::NONE,
    };
    Ok(())
}

#[inline(always)]
pub(super) const fn uplink_of(ifindex: u32, flags: u8) -> Uplink {
    Uplink { ifindex, raw: flags & session_flags::RAW_UPLINK != 0 }
}

/// Whether a packet is larger on the wire than the uplink carries; `headers` are the bytes that each
/// segment of a super-packet repeats.
#[inline(always)]
fn exceeds_uplink<T: Tables>(
    header: &Ipv4Header,
    arrival: &Arrival,
    headers: u32,
    uplink: Uplink,
    tables: &T,
) -> bool {
    let wire = arrival.wire_length(u32::from(header.total()), headers) + HEADER_GROWTH;
    wire > IPV6_MINIMUM_MTU && tables.uplink(uplink.ifindex).is_some_and(|uplink| wire > uplink.mtu)
}

/// What becomes of a packet that is too big for the uplink: its sender is told, or, where it lets its
/// packets be fragmented, it is fragmented (RFC 7915 §4.1).
#[inline(never)]
fn find_detour<T: Tables>(
    header: &Ipv4Header,
    arrival: &Arrival,
    work: &mut Workspace,
    tables: &T,
) -> Decision<()> {
    if header.must_not_fragment() {
        return Err(Stop::TooBig);
    }
    let ifindex = tables.config().map_or(0, |config| config.slow_lane);
    if ifindex == 0 {
        return Err(Stop::Drop(Reason::TooBig));
    }
    let segmented = arrival.gso_size != 0;
    work.detour = Detour { ifindex, identification: header.identification, segmented };
    Ok(())
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
fn check(bytes: &[u8; IPV4_LENGTH], work: &Workspace) -> Decision<()> {
    let Workspace { transport, extras, .. } = work;
    let header = Ipv4Header::of(bytes);
    let payload = header.total().saturating_sub(header.length());
    if !transport.fits(payload) {
        return Err(Stop::Drop(Reason::Truncated));
    }
    check_header(bytes, work)?;
    let fragment = extras.fragment;
    if fragment.is_some {
        fragments::check(fragment.more, 0, payload)?;
    }
    if transport.unchecked {
        if fragment.is_some {
            return Err(Stop::Drop(Reason::UdpZeroChecksum));
        }
        if transport.datagram < UDP_LENGTH as u16 || transport.datagram > payload {
            return Err(Stop::Drop(Reason::Truncated));
        }
        if u32::from(transport.datagram) > LONGEST_SUM {
            return Err(Stop::Drop(Reason::UdpZeroChecksum));
        }
    }
    Ok(())
}

/// The checksum that a UDP datagram would have had in IPv4, had its sender summed it: IPv6 allows none
/// without (RFC 7915 §4.5).
#[inline(never)]
fn seed<P: Packet>(packet: &P, work: &mut Workspace) -> Decision<()> {
    let Workspace { reply, transport, extras, seed, .. } = work;
    let length = transport.datagram;
    let start = IPV4_LENGTH as u32 + u32::from(extras.length);
    let Some(sum) = packet.sum(start, u32::from(length)) else {
        return Err(Stop::Drop(Reason::UdpZeroChecksum));
    };
    let [high, low] = length.to_be_bytes();
    let pseudo_header = [0, protocol::UDP, high, low];
    let whole = Difference::new().add(reply.target).add(reply.alias).add(pseudo_header);
    let sum = checksum(&[0; 4], whole.add_sum(sum));
    *seed = if sum == [0; 2] { [0xff; 2] } else { sum };
    Ok(())
}

/// What must hold of an IPv4 header, options included (rules G2, G7).
#[inline(always)]
fn check_header(bytes: &[u8; IPV4_LENGTH], work: &Workspace) -> Decision<()> {
    let Workspace { extras, arrival, .. } = work;
    let header = Ipv4Header::of(bytes);
    if header.total() < header.length() || u32::from(header.total()) > arrival.length {
        return Err(Stop::Drop(Reason::Truncated));
    }
    if checksum(bytes, extras.sum) != [0; 2] {
        return Err(Stop::Drop(Reason::Ipv4Checksum));
    }
    // No error is sent about a fragment that isn't the first (RFC 7915 §4.4).
    let later = extras.fragment.offset != 0;
    if extras.obstacle == Obstacle::SourceRoute && !later {
        return Err(Stop::SourceRoute);
    }
    if extras.obstacle != Obstacle::None {
        return Err(Stop::Drop(Reason::Ipv4Options));
    }
    if header.ttl <= 1 {
        return Err(if later { Stop::Drop(Reason::HopLimit) } else { Stop::TimeExceeded });
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
