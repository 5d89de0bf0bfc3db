//! How an established TCP session ends: FIN from both sides, or RST from one (RFC 6146 §3.5.2.2).
//!
//! It is moved to the table of closing sessions, an LRU: what follows is still translated, and
//! short connections can't fill the tables even while no daemon runs.

use crate::layout::{Class, ForwardKey, ReplyKey, State, Transient, Usage, session_flags};
use crate::tables::Tables;
use crate::wire::tcp_flags;

const BOTH: u8 = session_flags::CLIENT_FIN | session_flags::CONTAINER_FIN;

/// Whether both sides have sent a FIN.
#[inline(always)]
pub(super) const fn both_done(flags: u8) -> bool {
    flags & BOTH == BOTH
}

/// Takes note of a FIN or RST; `side` is the flag of the side that sent it.
#[inline(never)]
pub(super) fn note<T: Tables>(
    flow: &ForwardKey,
    reply: &ReplyKey,
    flags: u8,
    side: u8,
    now: u32,
    tables: &mut T,
) {
    if flags & tcp_flags::RST != 0 {
        move_to(State::TRANS, flow, reply, now, tables);
        return;
    }
    let mut seen = side;
    if let Some(entry) = tables.forward(flow) {
        seen |= entry.session.flags;
        entry.session.flags |= side;
        entry.session.state = state_of(seen);
    }
    if let Some(entry) = tables.reverse(reply) {
        seen |= entry.session.flags;
        entry.session.flags |= side;
        entry.session.state = state_of(seen);
    }
    if both_done(seen) {
        to_closing(flow, reply, now, tables);
    }
}

/// Both sides are done.
#[inline(always)]
pub(super) fn to_closing<T: Tables>(flow: &ForwardKey, reply: &ReplyKey, now: u32, tables: &mut T) {
    move_to(State::V4_FIN_V6_FIN_RCV, flow, reply, now, tables);
}

#[inline(always)]
const fn state_of(flags: u8) -> State {
    match flags & BOTH {
        BOTH => State::V4_FIN_V6_FIN_RCV,
        session_flags::CLIENT_FIN => State::V6_FIN_RCV,
        session_flags::CONTAINER_FIN => State::V4_FIN_RCV,
        _ => State::ESTABLISHED,
    }
}

#[inline(never)]
fn move_to<T: Tables>(state: State, flow: &ForwardKey, reply: &ReplyKey, now: u32, tables: &mut T) {
    let sent = tables.forward(flow).map_or(Usage::default(), |entry| entry.usage);
    let Some(entry) = tables.reverse(reply) else { return };
    let mut value = Transient {
        forward: entry.forward,
        last_seen: now,
        session: entry.session,
        sent,
        received: entry.usage,
        reserved_tail: [0; 32],
    };
    value.session.state = state;
    tables.remove_transient(Class::Closing, reply);
    if tables.insert_transient(Class::Closing, reply, &value) {
        tables.remove_forward(flow);
        tables.remove_reverse(reply);
    }
}
