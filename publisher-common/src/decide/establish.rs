//! Sessions that are half-open or closing: their packets, and how they become established.
//!
//! TCP is promoted when the client acknowledges the container's own initial sequence number + 1,
//! UDP by a packet of the client's that follows a reply: a spoofed source can do neither. A TCP
//! session that was reset goes back to established when other packets follow (RFC 6146 §3.5.2.2).

use super::state::{Side, Signal, Timer, step};
use super::{Decision, Stop, Workspace, access, close};
use crate::alias::{SPREAD, prefix};
use crate::layout::{
    Class, ForwardKey, ReplyKey, State, Timeouts, config_flags, record_kind, session_flags,
};
use crate::tables::Tables;
use crate::wire::{protocol, tcp_flags};

/// Whether a session that isn't established has been idle for too long.
#[inline(always)]
pub(super) fn has_expired(last_seen: u32, number: u8, timeouts: &Timeouts, now: u32) -> bool {
    let timeout = if number == protocol::UDP { timeouts.udp } else { timeouts.tcp_transitory };
    now.wrapping_sub(last_seen) > timeout
}

/// Whether this class holds this client's session under this key, on a link that still serves it.
#[inline(always)]
pub(super) fn is_live<T: Tables>(
    class: Class,
    reply: &ReplyKey,
    flow: &ForwardKey,
    now: u32,
    tables: &mut T,
) -> bool {
    let Some(entry) = tables.transient(class, reply) else { return false };
    if !entry.forward.same(flow) {
        return false;
    }
    let (link, last_seen) = (entry.session.link, entry.last_seen);
    let expired = tables
        .config()
        .is_none_or(|config| has_expired(last_seen, flow.protocol, &config.timeouts, now));
    if !expired && tables.link(link.index).is_some_and(|found| found.serves(link.generation)) {
        return true;
    }
    tables.remove_transient(class, reply);
    false
}

/// The client has sent a packet of the session `work.reply`, which isn't established.
#[inline(always)]
pub(super) fn client_sent<T: Tables>(
    class: Class,
    work: &mut Workspace,
    tables: &mut T,
) -> Decision<()> {
    let Workspace { flow: _, reply, transport, arrival, route, .. } = work;
    let Some(entry) = tables.transient(class, reply) else { return Ok(()) };
    let replied = entry.session.flags & session_flags::REPLIED != 0;
    let proof = match transport.protocol {
        protocol::UDP => replied,
        _ => {
            replied
                && transport.flags & (tcp_flags::ACK | tcp_flags::SYN | tcp_flags::RST)
                    == tcp_flags::ACK
                && transport.acknowledgment == entry.session.container_isn.wrapping_add(1)
        }
    };
    let is_opening = entry.session.state == State::V6_INIT;
    let signal =
        if is_opening && proof { Signal::Proof } else { Signal::of(Side::Client, transport.flags) };
    let next = step(entry.session.state, Side::Client, signal);
    entry.sent.count(arrival);
    if next.timer != Timer::Kept || transport.protocol == protocol::UDP {
        entry.last_seen = arrival.now;
    }
    route.link = entry.session.link.index;
    route.number = entry.sent.packets as u16;
    if next.state != State::ESTABLISHED {
        return Ok(());
    }
    if is_opening && let Some(reason) = access::over_limit(work, tables) {
        // Its SYN came while there was still room. The container goes on waiting for this ACK.
        tables.remove_transient(class, &work.reply);
        return Err(Stop::Drop(reason));
    }
    promote(class, work, tables);
    Ok(())
}

/// The container has sent a packet of the session `work.reply`, which isn't established.
#[inline(never)]
pub(super) fn container_sent<T: Tables>(class: Class, work: &mut Workspace, tables: &mut T) {
    let Workspace { reply, transport, arrival, .. } = work;
    let Some(entry) = tables.transient(class, reply) else { return };
    entry.received.count(arrival);
    let session = &mut entry.session;
    let both = tcp_flags::SYN | tcp_flags::ACK;
    let answers = transport.protocol == protocol::UDP || transport.flags & both == both;
    if session.state == State::V6_INIT && answers {
        session.container_isn = transport.sequence;
        session.flags |= session_flags::REPLIED;
    }
    let next = step(session.state, Side::Container, Signal::of(Side::Container, transport.flags));
    if next.timer != Timer::Kept || transport.protocol == protocol::UDP {
        entry.last_seen = arrival.now;
    }
    if next.state == State::ESTABLISHED {
        promote(class, work, tables);
    }
}

/// Makes the session `work.reply` of client `work.flow` established: both directions or none.
///
/// A full table leaves it where it is: it goes on being translated from there.
#[inline(never)]
pub(super) fn promote<T: Tables>(class: Class, work: &mut Workspace, tables: &mut T) {
    let Workspace { flow, reply, arrival, forward, reverse, .. } = work;
    let Some(entry) = tables.transient(class, reply) else { return };
    // Field by field: a whole value would be built on the stack first.
    reverse.forward = *flow;
    reverse.last_seen = arrival.now;
    reverse.session = entry.session;
    reverse.session.state = State::ESTABLISHED;
    reverse.session.flags &= !close::FINS;
    reverse.usage = entry.received;
    forward.reply = *reply;
    forward.last_seen = arrival.now;
    forward.session = reverse.session;
    forward.usage = entry.sent;
    if !tables.insert_reverse(reply, reverse) {
        return;
    }
    if !tables.insert_forward(flow, forward) {
        tables.remove_reverse(reply);
        return;
    }
    tables.remove_transient(class, reply);
    let publication = forward.session.publication.index;
    access::count_up(publication, work, tables);
    bind_alias(work, tables);
    let kind = if class == Class::HalfOpen { record_kind::OPENED } else { record_kind::RESUMED };
    log(kind, work, tables);
}

/// Writes the session that has just been established to the session log.
#[inline(always)]
fn log<T: Tables>(kind: u8, work: &mut Workspace, tables: &mut T) {
    let Workspace { flow, reply, arrival, forward, reverse, record, .. } = work;
    record.sent = forward.usage;
    record.received = reverse.usage;
    record.forward = *flow;
    record.at = arrival.now;
    record.reply = *reply;
    record.publication = forward.session.publication;
    record.created = forward.session.created;
    record.uplink = forward.session.uplink;
    record.kind = kind;
    tables.log(record);
}

/// Binds the session's alias to its client, or to the client's /64 where that has had its share, so that
/// no other is given it while others are free.
#[inline(always)]
fn bind_alias<T: Tables>(work: &mut Workspace, tables: &mut T) {
    let alone = access::may_bind(0, work, tables);
    if !alone && !access::may_bind(SPREAD, work, tables) {
        // What it has beyond that is anybody's.
        return;
    }
    let Workspace { flow, reply, arrival, alias, .. } = work;
    let Some(config) = tables.config() else { return };
    if !config.is_alias(reply.alias) {
        return;
    }
    let whole_prefix = !alone || config.has(config_flags::ALIAS_PER_PREFIX);
    alias.client = if whole_prefix { prefix(&flow.client) } else { flow.client };
    alias.scope = flow.scope;
    alias.created = arrival.now;
    alias.last_seen = arrival.now;
    alias.whole_prefix = u8::from(whole_prefix);
    // Where another client was faster, the two share the alias, with ports kept apart.
    if tables.insert_alias(&reply.alias, alias) {
        access::count_alias(work, tables);
    }
}
