//! Sessions that are half-open or closing: their packets, and how they become established.
//!
//! TCP is promoted when the client acknowledges the container's own initial sequence number + 1,
//! UDP by a packet of the client's that follows a reply: a spoofed source can do neither. A TCP
//! session that was reset goes back to established when other packets follow (RFC 6146 §3.5.2.2).

use super::{Workspace, close};
use crate::layout::{Class, ForwardKey, ReplyKey, State, Timeouts, session_flags};
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
pub(super) fn client_sent<T: Tables>(class: Class, work: &mut Workspace, tables: &mut T) {
    let Workspace { flow: _, reply, transport, arrival, route, .. } = work;
    let Some(entry) = tables.transient(class, reply) else { return };
    entry.last_seen = arrival.now;
    entry.sent.count(arrival);
    route.link = entry.session.link.index;
    route.number = entry.sent.packets as u16;
    let replied = entry.session.flags & session_flags::REPLIED != 0;
    let reset = transport.has(tcp_flags::RST);
    let promoted = match class {
        Class::HalfOpen if transport.protocol == protocol::UDP => replied,
        Class::HalfOpen => {
            replied
                && !reset
                && transport.flags & (tcp_flags::ACK | tcp_flags::SYN) == tcp_flags::ACK
                && transport.acknowledgment == entry.session.container_isn.wrapping_add(1)
        }
        Class::Closing => entry.session.state == State::TRANS && !reset,
    };
    if promoted {
        promote(class, work, tables);
    } else if reset && class == Class::HalfOpen {
        tables.remove_transient(class, reply);
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
    bind_alias(work, tables);
}

/// Binds the session's alias to its client, so that no other is given it while others are free.
#[inline(always)]
fn bind_alias<T: Tables>(work: &mut Workspace, tables: &mut T) {
    let Workspace { flow, reply, arrival, alias, .. } = work;
    if !tables.config().is_some_and(|config| config.is_alias(reply.alias)) {
        return;
    }
    alias.client = flow.client;
    alias.scope = flow.scope;
    alias.created = arrival.now;
    alias.last_seen = arrival.now;
    // Where another client was faster, the two share the alias, with ports kept apart.
    let _ = tables.insert_alias(&reply.alias, alias);
}
