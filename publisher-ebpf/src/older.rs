//! Sessions in the tables of the layout before this one, while a daemon takes them over.
//!
//! A session that isn't in this layout's tables is looked for there, and copied: the programs that are
//! still to be replaced go on with the older entry. The daemon takes the rest over once all are
//! replaced.

use crate::maps::{CLOSING, CONFIG, FORWARD, HALF_OPEN, REVERSE, shared};
use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{HashMap, LruHashMap},
};
use publisher_common::layout::{
    Forward, ForwardKey, ReplyKey, Reverse, config_flags,
    older::{OldForward, OldReverse, OldTransient},
    session_flags,
};

// One entry each where there is nothing to take over: the loader puts the older tables in their place.
#[map]
static OLD_FORWARD: HashMap<ForwardKey, OldForward> = HashMap::with_max_entries(1, 0);
#[map]
static OLD_REVERSE: HashMap<ReplyKey, OldReverse> = HashMap::with_max_entries(1, 0);
#[map]
static OLD_HALF_OPEN: LruHashMap<ReplyKey, OldTransient> = LruHashMap::with_max_entries(1, 0);
#[map]
static OLD_CLOSING: LruHashMap<ReplyKey, OldTransient> = LruHashMap::with_max_entries(1, 0);

/// Whether the older tables may hold sessions.
#[inline(always)]
fn is_adopting() -> bool {
    CONFIG.get(0).is_some_and(|config| config.has(config_flags::ADOPTING))
}

/// The session of a client's flow, if the older tables have it. One that isn't established can't be found
/// by that: the daemon copies those.
#[inline(always)]
pub fn forward<'a>(flow: &ForwardKey) -> Option<&'a mut Forward> {
    if !is_adopting() {
        return None;
    }
    let old = shared(OLD_FORWARD.get_ptr_mut(flow))?;
    adopt(flow, &old.entry.reply);
    shared(FORWARD.get_ptr_mut(flow))
}

/// The session of a container's flow, if the older tables have it. One that isn't established is only
/// copied.
#[inline(always)]
pub fn reverse<'a>(reply: &ReplyKey) -> Option<&'a mut Reverse> {
    if !is_adopting() {
        return None;
    }
    let Some(old) = shared(OLD_REVERSE.get_ptr_mut(reply)) else {
        adopt_transient(reply);
        return None;
    };
    adopt(&old.entry.forward, reply);
    shared(REVERSE.get_ptr_mut(reply))
}

/// Copies an established session, unless this layout's tables know of it.
#[inline(never)]
fn adopt(flow: &ForwardKey, reply: &ReplyKey) {
    if is_known(reply) {
        return;
    }
    let Some(forward) = shared(OLD_FORWARD.get_ptr_mut(flow)) else { return };
    let Some(reverse) = shared(OLD_REVERSE.get_ptr_mut(reply)) else { return };
    let flags = u64::from(BPF_NOEXIST);
    if REVERSE.insert(reply, &reverse.entry, flags).is_ok()
        && FORWARD.insert(flow, &forward.entry, flags).is_err()
    {
        let _ = REVERSE.remove(reply);
        return;
    }
    // It may be anywhere: the older layout didn't say.
    if let Some(entry) = shared(FORWARD.get_ptr_mut(flow)) {
        entry.session.flags |= session_flags::DISPLACED;
    }
    if let Some(entry) = shared(REVERSE.get_ptr_mut(reply)) {
        entry.session.flags |= session_flags::DISPLACED;
    }
}

/// Copies a session that isn't established, unless this layout's tables know of it.
#[inline(never)]
fn adopt_transient(reply: &ReplyKey) {
    if is_known(reply) {
        return;
    }
    let flags = u64::from(BPF_NOEXIST);
    if let Some(old) = shared(OLD_HALF_OPEN.get_ptr_mut(reply)) {
        let _ = HALF_OPEN.insert(reply, &old.entry, flags);
    } else if let Some(old) = shared(OLD_CLOSING.get_ptr_mut(reply)) {
        let _ = CLOSING.insert(reply, &old.entry, flags);
    }
}

/// Whether this layout's tables hold the session, in whatever class: it may have ended here while the older
/// tables still have it open.
#[inline(always)]
fn is_known(reply: &ReplyKey) -> bool {
    REVERSE.get_ptr(reply).is_some()
        || HALF_OPEN.get_ptr(reply).is_some()
        || CLOSING.get_ptr(reply).is_some()
}
