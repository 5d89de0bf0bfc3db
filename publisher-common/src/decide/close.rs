//! How an established TCP session ends: FIN from both sides, or RST from one (RFC 6146 §3.5.2.2).
//!
//! It is moved to the table of closing sessions, an LRU: what follows is still translated, and
//! short connections can't fill the tables even while no daemon runs.

use super::Workspace;
use crate::layout::{Class, State, Usage, session_flags};
use crate::tables::Tables;
use crate::wire::tcp_flags;

/// Both sides' FIN.
pub(super) const FINS: u8 = session_flags::CLIENT_FIN | session_flags::CONTAINER_FIN;

/// Whether both sides have sent a FIN.
#[inline(always)]
pub(super) const fn both_done(flags: u8) -> bool {
    flags & FINS == FINS
}

/// Takes note of a packet of the established session `work.flow`, `work.reply` that carries FIN or
/// RST, or that comes when both sides are done. `side` is the flag of the side that sent it.
#[inline(never)]
pub(super) fn note<T: Tables>(side: u8, work: &mut Workspace, tables: &mut T) {
    let Workspace { flow, reply, transport, .. } = work;
    if transport.has(tcp_flags::RST) {
        move_to(State::TRANS, work, tables);
        return;
    }
    let side = if transport.has(tcp_flags::FIN) { side } else { 0 };
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
        move_to(State::V4_FIN_V6_FIN_RCV, work, tables);
    }
}

#[inline(always)]
const fn state_of(flags: u8) -> State {
    match flags & FINS {
        FINS => State::V4_FIN_V6_FIN_RCV,
        session_flags::CLIENT_FIN => State::V6_FIN_RCV,
        session_flags::CONTAINER_FIN => State::V4_FIN_RCV,
        _ => State::ESTABLISHED,
    }
}

#[inline(always)]
fn move_to<T: Tables>(state: State, work: &mut Workspace, tables: &mut T) {
    let Workspace { flow, reply, arrival, transient, .. } = work;
    let sent = tables.forward(flow).map_or(Usage::default(), |entry| entry.usage);
    let Some(entry) = tables.reverse(reply) else { return };
    transient.forward = *flow;
    transient.last_seen = arrival.now;
    transient.session = entry.session;
    transient.sent = sent;
    transient.received = entry.usage;
    transient.session.state = state;
    tables.remove_transient(Class::Closing, reply);
    if tables.insert_transient(Class::Closing, reply, transient) {
        tables.remove_forward(flow);
        tables.remove_reverse(reply);
    }
}
