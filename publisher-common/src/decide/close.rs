//! How an established TCP session ends: FIN from both sides, or RST from one (RFC 6146 §3.5.2.2).
//!
//! It is moved to the table of closing sessions, an LRU: what follows is still translated, and
//! short connections can't fill the tables even while no daemon runs.

use super::state::{Side, Signal, step};
use super::{Workspace, access, open};
use crate::layout::{Class, State, Usage, record_kind, session_flags};
use crate::tables::Tables;

/// Both sides' FIN.
pub(super) const FINS: u8 = session_flags::CLIENT_FIN | session_flags::CONTAINER_FIN;

/// Whether both sides have sent a FIN.
#[inline(always)]
pub(super) const fn both_done(flags: u8) -> bool {
    flags & FINS == FINS
}

/// Takes note of a packet of the established session `work.flow`, `work.reply` that carries FIN or
/// RST, or that comes when both sides are done. `side` has sent it.
///
/// Both directions' flags count: another CPU may note the other side's FIN at the same moment.
#[inline(never)]
pub(super) fn note<T: Tables>(side: Side, work: &mut Workspace, tables: &mut T) {
    let Workspace { flow, reply, transport, .. } = work;
    let signal = Signal::of(side, transport.flags);
    let fin = if signal == Signal::Fin { side.fin() } else { 0 };
    let mut seen = 0;
    if let Some(entry) = tables.forward(flow) {
        seen |= entry.session.flags;
        entry.session.flags |= fin;
    }
    if let Some(entry) = tables.reverse(reply) {
        seen |= entry.session.flags;
        entry.session.flags |= fin;
    }
    let next = step(state_of(seen), side, signal).state;
    match next {
        State::V4_FIN_V6_FIN_RCV => move_to(next, record_kind::FINISHED, work, tables),
        State::TRANS => move_to(next, record_kind::RESET, work, tables),
        _ => {
            if let Some(entry) = tables.forward(flow) {
                entry.session.state = next;
            }
            if let Some(entry) = tables.reverse(reply) {
                entry.session.state = next;
            }
        }
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
fn move_to<T: Tables>(state: State, kind: u8, work: &mut Workspace, tables: &mut T) {
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
    let is_displaced = transient.session.flags & session_flags::DISPLACED != 0;
    if tables.insert_transient(Class::Closing, reply, transient) {
        if is_displaced {
            open::displace(work, tables);
        }
        remove(kind, work, tables);
    }
}

/// Takes the established session `work.flow`, `work.reply` out, and writes it to the session log.
#[inline(never)]
pub(super) fn remove<T: Tables>(kind: u8, work: &mut Workspace, tables: &mut T) {
    let Workspace { flow, reply, arrival, record, .. } = work;
    record.sent = tables.forward(flow).map_or(Usage::default(), |entry| entry.usage);
    let Some(entry) = tables.reverse(reply) else {
        // Another CPU was faster.
        tables.remove_forward(flow);
        return;
    };
    record.received = entry.usage;
    record.publication = entry.session.publication;
    record.created = entry.session.created;
    record.uplink = entry.session.uplink;
    record.forward = *flow;
    record.reply = *reply;
    record.at = arrival.now;
    record.kind = kind;
    let publication = record.publication.index;
    tables.remove_forward(flow);
    tables.remove_reverse(reply);
    tables.log(record);
    access::count_down(publication, work, tables);
}
