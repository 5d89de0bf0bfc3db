//! A packet of no established session: it opens one, belongs to one that is half-open or closing,
//! or isn't ours.

use super::to_container::Route;
use super::{Decision, Stop, Transport, establish};
use crate::alias::{CANDIDATES, Candidate, Candidates};
use crate::layout::{
    Class, ForwardKey, Handle, LocalKey, Publication, PublicationKey, ReplyKey, Session, State,
    Timeouts, Transient, Usage, address_scope, session_flags, source_mode, uplink_flags,
};
use crate::packet::Arrival;
use crate::reason::Reason;
use crate::tables::Tables;
use crate::wire::{protocol, tcp_flags};

/// Candidates that may lie on another client's alias: the last half, when nothing else is left.
const SHARED_FROM: u32 = CANDIDATES / 2;

/// The publication that a flow asks for: of exactly its host address, then of all addresses.
/// `None` where nothing is published, or the address isn't the host's own.
#[inline(always)]
pub(super) fn publication<T: Tables>(
    flow: &ForwardKey,
    ifindex: u32,
    tables: &T,
) -> Option<Publication> {
    let scope = address_scope(&flow.host, ifindex);
    if !tables.is_local(&LocalKey { scope: scope.to_ne_bytes(), address: flow.host }) {
        return None;
    }
    let mut key = PublicationKey {
        host: flow.host,
        scope,
        port: flow.host_port,
        protocol: flow.protocol,
        reserved: 0,
    };
    if let Some(found) = tables.publication(&key) {
        return Some(*found);
    }
    (key.host, key.scope) = ([0; 16], 0);
    tables.publication(&key).copied()
}

/// A client's packet whose session's link is gone: the session ends. A packet that can open a new
/// one does so; others are dropped, so that they never reach whoever has the address now.
#[inline(never)]
pub(super) fn reopen<T: Tables>(
    flow: &ForwardKey,
    reply: &ReplyKey,
    transport: &Transport,
    arrival: &Arrival,
    tables: &mut T,
) -> Decision<Route> {
    if transport.protocol == protocol::TCP && !transport.opens() {
        return Err(Stop::Drop(Reason::TargetGone));
    }
    tables.remove_forward(flow);
    tables.remove_reverse(reply);
    by_client(flow, transport, arrival, tables)
}

/// A client's packet that belongs to no established session.
#[inline(never)]
pub(super) fn by_client<T: Tables>(
    flow: &ForwardKey,
    transport: &Transport,
    arrival: &Arrival,
    tables: &mut T,
) -> Decision<Route> {
    let Some(publication) = publication(flow, arrival.ifindex, tables) else {
        return Err(Stop::Pass);
    };
    let Some(config) = tables.config() else { return Err(Stop::Pass) };
    let timeouts = config.timeouts;
    let link = tables.link(publication.link);
    let (gateway, generation) = link.map_or(([0; 4], None), |link| {
        (link.gateway, link.serves(link.generation).then_some(link.generation))
    });
    let candidates = if publication.source == source_mode::GATEWAY {
        Candidates::of_gateway(config, flow, gateway)
    } else {
        Candidates::of_pool(config, flow)
    };

    // A session is found where it was put. One that is being opened is put at the first candidate,
    // nearly always: its SYN need not look further before it takes that.
    let opens = transport.opens();
    let depth = if opens { 1 } else { CANDIDATES };
    for index in 0..depth {
        let reply = reply_key(&publication, flow.protocol, candidates.get(index));
        for class in [Class::HalfOpen, Class::Closing] {
            if establish::is_live(class, &reply, flow, &timeouts, arrival.now, tables) {
                if class == Class::Closing && opens {
                    // A new connection on the tuple of one that has ended (rule S13).
                    tables.remove_transient(class, &reply);
                    continue;
                }
                return establish::client_sent(class, flow, &reply, transport, arrival, tables);
            }
        }
    }

    if transport.protocol == protocol::TCP && !opens {
        let stop = if tables.has_socket(flow) { Stop::Pass } else { Stop::Drop(Reason::NoSession) };
        return Err(stop);
    }
    if transport.protocol == protocol::UDP && tables.has_socket(flow) {
        return Err(Stop::Pass);
    }
    if transport.has(tcp_flags::FIN | tcp_flags::RST) {
        return Err(Stop::Drop(Reason::TcpFlags));
    }
    if !is_client(flow, arrival.ifindex, tables) {
        return Err(Stop::Drop(Reason::Source));
    }
    let Some(generation) = generation else { return Err(Stop::Drop(Reason::TargetDown)) };
    let session = Session {
        link: Handle { index: publication.link, generation },
        publication: publication.handle,
        uplink: arrival.ifindex,
        created: arrival.now,
        container_isn: 0,
        state: State::V6_INIT,
        flags: match tables.uplink(arrival.ifindex) {
            Some(uplink) if uplink.flags & uplink_flags::RAW != 0 => session_flags::RAW_UPLINK,
            _ => 0,
        },
        reserved: [0; 2],
    };
    for index in 0..CANDIDATES {
        let candidate = candidates.get(index);
        if index < SHARED_FROM
            && tables
                .alias(&candidate.alias)
                .is_some_and(|alias| !flow.same_client(&alias.client, alias.scope))
        {
            continue;
        }
        let reply = reply_key(&publication, flow.protocol, candidate);
        if is_free(&reply, &timeouts, arrival.now, tables) && insert(flow, &reply, &session, tables)
        {
            return Ok(Route { reply, link: publication.link, number: 0 });
        }
    }
    Err(Stop::Drop(Reason::Exhausted))
}

/// Whether a source address can be a client's (rule H12).
#[inline(always)]
fn is_client<T: Tables>(flow: &ForwardKey, ifindex: u32, tables: &T) -> bool {
    let client = &flow.client;
    let upper = u128::from_be_bytes(*client) >> 32;
    // ::/96 holds the unspecified and the loopback address, ::ffff:0:0/96 the IPv4-mapped ones.
    if client[0] == 0xff || upper == 0 || upper == 0xffff {
        return false;
    }
    let scope = address_scope(client, ifindex);
    !tables.is_local(&LocalKey { scope: scope.to_ne_bytes(), address: *client })
}

/// Whether no session uses a container-side tuple. One that has timed out makes way.
#[inline(always)]
fn is_free<T: Tables>(reply: &ReplyKey, timeouts: &Timeouts, now: u32, tables: &mut T) -> bool {
    if tables.reverse(reply).is_some() {
        return false;
    }
    for class in [Class::HalfOpen, Class::Closing] {
        if let Some(entry) = tables.transient(class, reply) {
            if !establish::has_expired(entry.last_seen, reply.protocol, timeouts, now) {
                return false;
            }
            tables.remove_transient(class, reply);
        }
    }
    true
}

#[inline(always)]
fn reply_key(publication: &Publication, protocol: u8, candidate: Candidate) -> ReplyKey {
    ReplyKey {
        target: publication.target,
        alias: candidate.alias,
        target_port: publication.target_port,
        alias_port: candidate.port,
        protocol,
        reserved: [0; 3],
    }
}

#[inline(never)]
fn insert<T: Tables>(
    flow: &ForwardKey,
    reply: &ReplyKey,
    session: &Session,
    tables: &mut T,
) -> bool {
    let entry = Transient {
        forward: *flow,
        last_seen: session.created,
        session: *session,
        sent: Usage::default(),
        received: Usage::default(),
        reserved_tail: [0; 32],
    };
    tables.insert_transient(Class::HalfOpen, reply, &entry)
}
