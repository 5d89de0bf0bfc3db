//! A packet of no established session: it opens one, belongs to one that is half-open or closing,
//! or isn't ours.

use super::address::{is_hosts, is_somebody};
use super::to_container::{Route, check};
use super::{Decision, Stop, Workspace, access, close, establish};
use crate::alias::{CANDIDATES, Candidate, Candidates, NEIGHBOURS, OWN};
use crate::layout::{
    Class, ForwardKey, Handle, Publication, PublicationKey, ReplyKey, State, Timeouts, Usage,
    address_scope, link_flags, origin, publication_flags, record_kind, session_flags, source_mode,
    uplink_flags,
};
use crate::reason::Reason;
use crate::tables::Tables;
use crate::wire::{protocol, tcp_flags};

/// The publication that a flow asks for: of exactly its host address, then of all addresses.
/// `None` where nothing is published, or the address isn't the host's own.
#[inline(always)]
pub(super) fn publication<'a, T: Tables>(
    flow: &ForwardKey,
    ifindex: u32,
    tables: &'a T,
) -> Option<&'a Publication> {
    let scope = address_scope(&flow.host, ifindex);
    if !is_hosts(&flow.host, scope, flow.origin, tables) {
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
        return Some(found);
    }
    (key.host, key.scope) = ([0; 16], 0);
    tables.publication(&key)
}

/// A client's packet whose session's link is gone: the session ends. A packet that can open a new
/// one may do so; others are dropped, so that they never reach whoever has the address now.
#[inline(always)]
pub(super) fn after_link<T: Tables>(work: &mut Workspace, tables: &mut T) -> Decision<()> {
    if work.transport.protocol == protocol::TCP && !work.transport.opens() {
        return Err(Stop::Drop(Reason::TargetGone));
    }
    close::remove(record_kind::TARGET_GONE, work, tables);
    Ok(())
}

/// A client's packet that belongs to no established session. Leaves where it goes in `work.reply`
/// and `work.route`.
#[inline(never)]
pub(super) fn by_client<T: Tables>(work: &mut Workspace, tables: &mut T) -> Decision<()> {
    let ifindex = work.arrival.ifindex;
    let Some(found) = publication(&work.flow, ifindex, tables) else { return Err(Stop::Pass) };
    work.publication = *found;
    let Workspace { flow, publication, candidates, .. } = &mut *work;
    if !set_candidates(flow, publication, candidates, tables) {
        return Err(Stop::Pass);
    }
    let opens = work.transport.opens();
    let found = find(opens, work, tables);
    if found.is_some() {
        note_place(work, tables);
    }
    // A new connection on the tuple of one that has ended (rule S13).
    let again = opens && found == Some(Class::Closing);
    if found.is_none() || again {
        if work.flow.origin == origin::NETWORK {
            may_open(work, tables)?;
        } else if !may_host_open(work, tables) {
            return Err(Stop::Pass);
        }
    }
    check(work)?;
    match found {
        Some(class) if !again => return establish::client_sent(class, work, tables),
        Some(class) => tables.remove_transient(class, &work.reply),
        None => {}
    }
    insert(work, tables)
}

/// Whether a packet without a session may open one. The host's own sockets come first: its outgoing
/// connections may have a published port, and so may sessions of the socket proxy.
#[inline(always)]
fn may_open<T: Tables>(work: &Workspace, tables: &T) -> Decision<()> {
    let Workspace { flow, transport, arrival, publication, .. } = work;
    let connected = publication.flags & publication_flags::PAST_BOUND != 0;
    if transport.protocol == protocol::TCP && !transport.opens() {
        let is_theirs = tables.has_socket(flow, connected);
        return Err(if is_theirs { Stop::Pass } else { Stop::Drop(Reason::NoSession) });
    }
    if transport.protocol == protocol::UDP && tables.has_socket(flow, connected) {
        return Err(Stop::Pass);
    }
    if transport.has(tcp_flags::FIN | tcp_flags::RST) {
        return Err(Stop::Drop(Reason::TcpFlags));
    }
    if !is_somebody(&flow.client, arrival.ifindex, flow.origin, tables) {
        return Err(Stop::Drop(Reason::Source));
    }
    Ok(())
}

/// The same for a process of the host. What may not is the stack's: it has the listeners, the proxy's among
/// them, and is right about what it sends itself.
///
/// A reply to a global address comes in by the loopback interface, so a socket that is bound to another one
/// wouldn't get it. One to a link-local address comes by the interface that the socket is bound to, where it
/// can't be looked for from here.
#[inline(never)]
fn may_host_open<T: Tables>(work: &mut Workspace, tables: &T) -> bool {
    let Workspace { flow, transport, arrival, publication, turned, .. } = &mut *work;
    let connected = publication.flags & publication_flags::PAST_BOUND != 0;
    if transport.protocol == protocol::TCP && !transport.opens()
        || transport.has(tcp_flags::FIN | tcp_flags::RST)
        || !is_somebody(&flow.client, arrival.ifindex, origin::HOST, tables)
        || tables.has_socket(flow, connected)
    {
        return false;
    }
    *turned = flow.turned();
    if flow.scope == 0 && !tables.has_socket(turned, false) {
        return false;
    }
    check(work).is_ok()
}

/// What a flow may be given by a publication; `false` before the daemon has written a configuration. A
/// function of its own for the stack, of which the hashes take much.
#[inline(never)]
pub(super) fn set_candidates<T: Tables>(
    flow: &ForwardKey,
    publication: &Publication,
    candidates: &mut Candidates,
    tables: &T,
) -> bool {
    let Some(config) = tables.config() else { return false };
    *candidates = if publication.source == source_mode::GATEWAY {
        let gateway = tables.link(publication.link).map_or([0; 4], |link| link.gateway);
        Candidates::of_gateway(config, flow, gateway)
    } else {
        Candidates::of_pool(config, flow)
    };
    true
}

/// Looks for the client's session among those that aren't established; leaves its key in
/// `work.reply`.
#[inline(always)]
fn find<T: Tables>(opens: bool, work: &mut Workspace, tables: &mut T) -> Option<Class> {
    // A session is found where it was put: nearly always at the first candidate. A SYN need not look
    // further before it takes that, and others only if a flow of their slot was put elsewhere.
    let depth = if opens || !may_be_displaced(work, tables) { 1 } else { CANDIDATES };
    for index in 0..depth {
        work.candidate = index;
        work.reply = candidate_key(work, index);
        if is_at(Class::HalfOpen, work, tables) {
            return Some(Class::HalfOpen);
        }
        if is_at(Class::Closing, work, tables) {
            return Some(Class::Closing);
        }
    }
    None
}

/// Whether a session of the flow's slot that isn't established may be at another tuple than its first
/// candidate.
#[inline(never)]
fn may_be_displaced<T: Tables>(work: &Workspace, tables: &mut T) -> bool {
    let Some(config) = tables.config() else { return false };
    let Timeouts { udp, tcp_transitory, .. } = config.timeouts;
    let longest = if udp > tcp_transitory { udp } else { tcp_transitory };
    let seen = tables.displaced(work.flow.slot()).map_or(0, |seen| *seen);
    work.arrival.now.wrapping_sub(seen) <= longest
}

/// Notes it if the session was found, or is put, at another tuple than its first candidate.
#[inline(never)]
fn note_place<T: Tables>(work: &Workspace, tables: &mut T) {
    if work.candidate != 0 {
        displace(work, tables);
    }
}

/// Notes that the session of `work.flow`, which isn't established, is at another tuple than its first
/// candidate.
#[inline(always)]
pub(super) fn displace<T: Tables>(work: &Workspace, tables: &mut T) {
    if let Some(seen) = tables.displaced(work.flow.slot()) {
        *seen = work.arrival.now;
    }
}

/// Whether the client's session is `work.reply` of this class. A function of its own for the verifier,
/// which follows each way out of a loop's body to its end.
#[inline(never)]
fn is_at<T: Tables>(class: Class, work: &mut Workspace, tables: &mut T) -> bool {
    let Workspace { flow, reply, arrival, .. } = &*work;
    establish::is_live(class, reply, flow, arrival.now, tables)
}

/// Opens a session under the first candidate that is free.
#[inline(always)]
fn insert<T: Tables>(work: &mut Workspace, tables: &mut T) -> Decision<()> {
    let (index, now) = (work.publication.link, work.arrival.now);
    let from_host = work.flow.origin == origin::HOST;
    // A datagram of the host's own may be larger than any link carries, and can only go straight into
    // the container. The rest is the socket proxy's, which also says at once what can't be reached.
    let needed = if from_host { link_flags::UP | link_flags::PEER } else { link_flags::UP };
    let generation = match tables.link(index) {
        Some(link) if link.flags & needed == needed => link.generation,
        _ if from_host => return Err(Stop::Pass),
        _ => return Err(Stop::Drop(Reason::TargetDown)),
    };
    let uplink = work.arrival.ifindex;
    let raw = tables.uplink(uplink).is_some_and(|found| found.flags & uplink_flags::RAW != 0);
    let Workspace { flow, transient, .. } = work;
    // Field by field: a whole value would be built on the stack first.
    transient.forward = *flow;
    transient.last_seen = now;
    transient.sent = Usage::default();
    transient.received = Usage::default();
    transient.session.link = Handle { index, generation };
    transient.session.publication = work.publication.handle;
    transient.session.uplink = uplink;
    transient.session.created = now;
    transient.session.container_isn = 0;
    transient.session.state = State::V6_INIT;
    transient.session.flags = if raw { session_flags::RAW_UPLINK } else { 0 };
    work.transient.sent.count(&work.arrival);
    work.route = Route { link: index, number: 0 };
    access::look(work, tables);
    work.may_bind = access::may_bind(0, work, tables);
    let place = search(work, tables);
    note_place(work, tables);
    match place {
        Place::Own => Ok(()),
        Place::New => {
            access::count_opened(work, tables);
            Ok(())
        }
        Place::Taken if work.may_open => Err(Stop::Exhausted),
        Place::Taken => Err(Stop::Drop(work.refusal)),
    }
}

/// Goes through the candidates up to the one under which the session is opened, or was before.
#[inline(never)]
fn search<T: Tables>(work: &mut Workspace, tables: &mut T) -> Place {
    for candidate in 0..CANDIDATES {
        work.reply = candidate_key(work, candidate);
        work.candidate = candidate;
        if candidate == 1 {
            work.transient.session.flags |= session_flags::DISPLACED;
        }
        let place = take(work, tables);
        if place != Place::Taken {
            return place;
        }
    }
    Place::Taken
}

/// What a candidate is to a client that opens a session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Somebody else's.
    Taken,
    /// The client's own: its SYN was sent before.
    Own,
    /// It was free.
    New,
}

/// Opens the session under `work.reply`, if that is free and the client may.
#[inline(never)]
fn take<T: Tables>(work: &mut Workspace, tables: &mut T) -> Place {
    let Workspace { flow, reply, transient, arrival, .. } = &*work;
    if let Some(entry) = tables.transient(Class::HalfOpen, reply)
        && entry.forward.same(flow)
        && entry.session.link == transient.session.link
    {
        entry.last_seen = arrival.now;
        entry.sent.count(arrival);
        return Place::Own;
    }
    if work.may_open
        && suits(work, tables)
        && is_free(reply, arrival.now, tables)
        && tables.insert_transient(Class::HalfOpen, reply, transient)
    {
        Place::New
    } else {
        Place::Taken
    }
}

/// Whether the client may be seen as the candidate's alias: its own or its /64's, one that nobody has
/// yet, or in the end anybody's, with ports kept apart.
#[inline(always)]
fn suits<T: Tables>(work: &Workspace, tables: &T) -> bool {
    match tables.alias(&work.reply.alias) {
        Some(alias) => alias.is_of(&work.flow) || work.candidate >= NEIGHBOURS,
        None => work.may_bind || work.candidate >= OWN,
    }
}

/// Whether no session uses a container-side tuple. One that has timed out makes way.
#[inline(always)]
fn is_free<T: Tables>(reply: &ReplyKey, now: u32, tables: &mut T) -> bool {
    if tables.reverse(reply).is_some() {
        return false;
    }
    for class in [Class::HalfOpen, Class::Closing] {
        if let Some(entry) = tables.transient(class, reply) {
            let last_seen = entry.last_seen;
            let expired = tables.config().is_some_and(|config| {
                establish::has_expired(last_seen, reply.protocol, &config.timeouts, now)
            });
            if !expired {
                return false;
            }
            tables.remove_transient(class, reply);
        }
    }
    true
}

#[inline(always)]
fn candidate_key(work: &Workspace, index: u32) -> ReplyKey {
    reply_key(work.flow.protocol, &work.publication, work.candidates.get(index))
}

/// The container's side of a session that is given this candidate.
#[inline(always)]
pub(super) fn reply_key(number: u8, publication: &Publication, candidate: Candidate) -> ReplyKey {
    ReplyKey {
        target: publication.target,
        alias: candidate.alias,
        target_port: publication.target_port,
        alias_port: candidate.port,
        protocol: number,
        reserved: [0; 3],
    }
}
