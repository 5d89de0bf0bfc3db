//! Sessions that are half-open or closing: their packets, and how they become established.
//!
//! TCP is promoted when the client acknowledges the container's own initial sequence number + 1,
//! UDP by a packet of the client's that follows a reply: a spoofed source can do neither. A TCP
//! session that was reset goes back to established when other packets follow (RFC 6146 §3.5.2.2).

use super::to_container::Route;
use super::{Decision, Transport};
use crate::layout::{
    Alias, Class, Forward, ForwardKey, ReplyKey, Reverse, Session, State, Timeouts, session_flags,
};
use crate::packet::Arrival;
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
    timeouts: &Timeouts,
    now: u32,
    tables: &mut T,
) -> bool {
    let Some(entry) = tables.transient(class, reply) else { return false };
    if !entry.forward.same(flow) || has_expired(entry.last_seen, flow.protocol, timeouts, now) {
        return false;
    }
    let link = entry.session.link;
    if tables.link(link.index).is_some_and(|found| found.serves(link.generation)) {
        return true;
    }
    tables.remove_transient(class, reply);
    false
}

/// The client has sent a packet of such a session.
#[inline(always)]
pub(super) fn client_sent<T: Tables>(
    class: Class,
    flow: &ForwardKey,
    reply: &ReplyKey,
    transport: &Transport,
    arrival: &Arrival,
    tables: &mut T,
) -> Decision<Route> {
    let mut route = Route { reply: *reply, link: 0, number: 0 };
    let mut promoted = false;
    let mut ended = false;
    if let Some(entry) = tables.transient(class, reply) {
        entry.last_seen = arrival.now;
        entry.sent.count(arrival);
        route.link = entry.session.link.index;
        route.number = entry.sent.packets as u16;
        let replied = entry.session.flags & session_flags::REPLIED != 0;
        promoted = match class {
            Class::HalfOpen if transport.protocol == protocol::UDP => replied,
            Class::HalfOpen => {
                replied
                    && transport.flags & (tcp_flags::ACK | tcp_flags::SYN | tcp_flags::RST)
                        == tcp_flags::ACK
                    && transport.acknowledgment == entry.session.container_isn.wrapping_add(1)
            }
            Class::Closing => entry.session.state == State::TRANS && !transport.has(tcp_flags::RST),
        };
        ended = class == Class::HalfOpen && transport.has(tcp_flags::RST);
    }
    if promoted {
        promote(class, flow, reply, arrival.now, tables);
    } else if ended {
        tables.remove_transient(class, reply);
    }
    Ok(route)
}

/// Makes a session established: both directions or none.
///
/// A full table leaves it where it is: it goes on being translated from there.
#[inline(never)]
pub(super) fn promote<T: Tables>(
    class: Class,
    flow: &ForwardKey,
    reply: &ReplyKey,
    now: u32,
    tables: &mut T,
) {
    if !add_reverse(class, reply, now, tables) {
        return;
    }
    if !add_forward(class, flow, reply, now, tables) {
        tables.remove_reverse(reply);
        return;
    }
    tables.remove_transient(class, reply);
    if tables.config().is_some_and(|config| config.is_alias(reply.alias)) {
        let alias = Alias {
            client: flow.client,
            scope: flow.scope,
            created: now,
            last_seen: now,
            reserved: [0; 12],
        };
        // Where another client was faster, the two share the alias, with ports kept apart.
        let _ = tables.insert_alias(&reply.alias, &alias);
    }
}

#[inline(never)]
fn add_reverse<T: Tables>(class: Class, reply: &ReplyKey, now: u32, tables: &mut T) -> bool {
    let Some(entry) = tables.transient(class, reply) else { return false };
    let value = Reverse {
        forward: entry.forward,
        last_seen: now,
        session: established(&entry.session),
        usage: entry.received,
        reserved_tail: [0; 32],
    };
    tables.insert_reverse(reply, &value)
}

#[inline(never)]
fn add_forward<T: Tables>(
    class: Class,
    flow: &ForwardKey,
    reply: &ReplyKey,
    now: u32,
    tables: &mut T,
) -> bool {
    let Some(entry) = tables.transient(class, reply) else { return false };
    let value = Forward {
        reply: *reply,
        session: established(&entry.session),
        last_seen: now,
        reserved: [0; 4],
        usage: entry.sent,
        reserved_tail: [0; 24],
    };
    tables.insert_forward(flow, &value)
}

#[inline(always)]
fn established(session: &Session) -> Session {
    let fins = session_flags::CLIENT_FIN | session_flags::CONTAINER_FIN;
    Session { state: State::ESTABLISHED, flags: session.flags & !fins, ..*session }
}
