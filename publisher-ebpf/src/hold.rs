//! Clients' fragments that come before the first one of their datagram, which alone has the ports.
//!
//! Whose they are isn't known yet, so they pass, in case they are the host's; a copy is kept. When
//! the first one comes and is ours, it is cloned once for each copy. The clones come by the uplink's
//! queue, get the copies' bytes, and go the way of fragments. `mark` and `tc_index` say which copy
//! it is; a `mark` doesn't survive the way from another network namespace.

use crate::icmp::bounded;
use crate::maps;
use crate::window::Aligned;
use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_INGRESS, BPF_F_RECOMPUTE_CSUM, BPF_NOEXIST},
    helpers::generated::{
        bpf_clone_redirect, bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_skb_change_tail,
        bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
    macros::map,
    maps::{LruHashMap, PerCpuArray},
    programs::TcContext,
};
use publisher_common::layout::FragmentKey;

/// Copies that are kept at once.
const COPIES: u32 = 2_048;
/// Copies of one datagram: as many fragments as 65,535 bytes make on a link of 1,500 bytes, and more.
const SLOTS: u32 = 64;
/// Slots that are tried for a copy: another CPU may have taken the first. Few, since the kernel copies a
/// whole value before it finds that the slot is taken.
const TRIES: u32 = 4;
/// Longest fragment that is kept, from its IPv6 header on.
const LONGEST: usize = 2_048;
/// Nanoseconds that they are kept for at most; RFC 6146 §4 asks for 2 seconds (FRAGMENT_MIN).
const KEPT: u64 = 5_000_000_000;
/// Marks `tc_index` of a clone; the lowest bits are the slot.
const CLONE: u32 = 0xb540;

/// The copies of a datagram.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Waiting {
    /// When the first of them was made.
    since: u64,
    /// First half of their keys; never 0.
    number: u32,
    /// Slots that are taken, at least.
    count: u32,
}

/// Which copy.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct CopyKey {
    number: u32,
    slot: u32,
}

/// A fragment, from its IPv6 header on.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Copied {
    length: u64,
    bytes: [u8; LONGEST],
}

/// Not pinned, like the others here: it is about packets that are on their way.
#[map]
static WAITING: LruHashMap<FragmentKey, Waiting> = LruHashMap::with_max_entries(COPIES, 0);
#[map]
static COPIED: LruHashMap<CopyKey, Copied> = LruHashMap::with_max_entries(COPIES, 0);
/// Room for one on its way to the map.
#[map]
static COPY_ROOM: PerCpuArray<Copied> = PerCpuArray::with_max_entries(1, 0);

/// Keeps a copy of the fragment that was just decided on.
#[inline(never)]
pub fn keep<const L2: usize>(context: &TcContext) {
    let Some(work) = maps::workspace() else { return };
    let Some(waiting) = waiting(work.fragment_key()) else { return };
    // SAFETY: the value stays allocated for as long as the program runs; other CPUs that write it at the
    // same time cost a try.
    let Waiting { number, count, .. } = unsafe { *waiting };
    if count >= SLOTS {
        return;
    }
    let Some(room) = COPY_ROOM.get_ptr_mut(0) else { return };
    // SAFETY: the kernel hands a valid __sk_buff to a classifier.
    let length = unsafe { (*context.skb.skb).len }.wrapping_sub(L2 as u32);
    let Some(length) = bounded(length, LONGEST) else { return };
    // SAFETY: the room is this CPU's own; the helper writes `length` bytes, which there is room for.
    let failed = unsafe {
        (*room).length = u64::from(length);
        let to = (&raw mut (*room).bytes).cast();
        bpf_skb_load_bytes(context.skb.skb.cast(), L2 as u32, to, length)
    };
    if failed != 0 {
        return;
    }
    for slot in count..count + TRIES {
        if put(number, slot, room) {
            // SAFETY: as above.
            unsafe { (*waiting).count = slot + 1 };
            return;
        }
    }
}

/// What is known of a datagram's copies; none yet, if it is new.
#[inline(never)]
fn waiting(key: &FragmentKey) -> Option<*mut Waiting> {
    // SAFETY: the helpers have no preconditions.
    let (now, random) = unsafe { (bpf_ktime_get_ns(), bpf_get_prandom_u32()) };
    if let Some(known) = WAITING.get_ptr_mut(key) {
        // SAFETY: as in `keep`.
        if now.wrapping_sub(unsafe { (*known).since }) < KEPT {
            return Some(known);
        }
    }
    let waiting = Aligned(Waiting { since: now, number: random | 1, count: 0 });
    let _ = WAITING.insert(key, &waiting.0, u64::from(BPF_ANY));
    WAITING.get_ptr_mut(key)
}

#[inline(never)]
fn put(number: u32, slot: u32, room: *mut Copied) -> bool {
    // SAFETY: the room is this CPU's own.
    COPIED.insert(CopyKey { number, slot }, unsafe { &*room }, u64::from(BPF_NOEXIST)).is_ok()
}

/// The first fragment of a datagram is about to go its way: sends for the copies of those that came
/// before it.
#[inline(never)]
pub fn release(context: &TcContext) {
    let Some(work) = maps::workspace() else { return };
    let key = work.fragment_key();
    let Some(known) = WAITING.get_ptr(key) else { return };
    // SAFETY: as in `keep`.
    let Waiting { since, number, count } = unsafe { *known };
    let _ = WAITING.remove(key);
    // SAFETY: the helper has no preconditions.
    if unsafe { bpf_ktime_get_ns() }.wrapping_sub(since) >= KEPT {
        return;
    }
    // SAFETY: as in `keep`.
    let mark = unsafe { (*context.skb.skb).mark };
    for slot in 0..SLOTS {
        if slot >= count {
            break;
        }
        send_for(context, number, slot);
    }
    // SAFETY: as in `keep`.
    unsafe {
        (*context.skb.skb).mark = mark;
        (*context.skb.skb).tc_index = 0;
    }
}

#[inline(never)]
fn send_for(context: &TcContext, number: u32, slot: u32) {
    // Others may have taken its place since.
    if COPIED.get_ptr(CopyKey { number, slot }).is_none() {
        return;
    }
    // SAFETY: as in `keep`; the helper clones the packet, and no pointer into it is kept.
    unsafe {
        let skb = context.skb.skb;
        (*skb).mark = number;
        (*skb).tc_index = CLONE | slot;
        bpf_clone_redirect(skb.cast(), (*skb).ifindex, u64::from(BPF_F_INGRESS));
    }
}

/// Gives a clone the bytes that it was sent for; other packets stay as they are.
#[inline(always)]
pub fn fill<const L2: usize>(context: &TcContext) {
    // SAFETY: as in `keep`.
    let index = unsafe { (*context.skb.skb).tc_index };
    if index & !(SLOTS - 1) == CLONE {
        fill_slot::<L2>(context, index & (SLOTS - 1));
    }
}

#[inline(never)]
fn fill_slot<const L2: usize>(context: &TcContext, slot: u32) {
    let skb = context.skb.skb;
    // SAFETY: as in `keep`.
    let key = CopyKey { number: unsafe { (*skb).mark }, slot };
    let Some(found) = COPIED.get_ptr(key) else { return };
    // SAFETY: as in `keep`.
    let length = unsafe { (*found).length } as u32;
    let Some(length) = bounded(length, LONGEST) else { return };
    // SAFETY: as in `keep`; the helper reads `length` bytes, which are there.
    unsafe {
        (*skb).mark = 0;
        (*skb).tc_index = 0;
        if bpf_skb_change_tail(skb.cast(), L2 as u32 + length, 0) == 0 {
            let from = (&raw const (*found).bytes).cast();
            let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
            bpf_skb_store_bytes(skb.cast(), L2 as u32, from, length, flags);
        }
    }
    let _ = COPIED.remove(key);
}
