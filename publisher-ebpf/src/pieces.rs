//! A container's fragments on their way to the client.
//!
//! One that doesn't fit is sent in pieces. The program can't make packets out of one, but the kernel
//! clones it: a clone is put into this interface's own queue with the piece's number on it, comes by
//! here again, and is cut to its piece. The number is in `tc_index`, the uplink in `mark`, which no
//! container can set: the kernel clears it between network namespaces. A mark that the host's owner
//! sets there leads nowhere but to an uplink. Fragments have their checksums complete, so cutting
//! them spoils none.

use crate::apply::{
    FAILED, change_family, change_room, drop_packet, leave_by, leave_out, pass, rewrite, store,
};
use crate::maps::{self, Kernel};
use crate::window::{ETHERTYPE_IPV6, ETHERTYPE_IPV6_WIDE};
use aya_ebpf::{
    bindings::BPF_F_INGRESS,
    helpers::generated::{bpf_clone_redirect, bpf_skb_change_tail, bpf_skb_load_bytes},
    programs::TcContext,
};
use publisher_common::{
    decide::{Stop, Uplink},
    layout::uplink_flags,
    reason::Reason,
    tables::Tables,
    translate::{PIECES, piece},
    wire::{ETHERNET_LENGTH, FRAGMENT_LENGTH, IPV6_LENGTH, TCP_LENGTH},
};

/// Marks `tc_index` of a clone; the lowest bits are the piece's number.
const CLONE: u32 = 0xb5a0;
/// Bits of the number.
const NUMBER: u32 = 0x0f;
/// IPv6 and Fragment header.
const HEADERS: usize = IPV6_LENGTH + FRAGMENT_LENGTH;
/// Bytes that the kernel takes out of a packet at once: at most 4,095, and a multiple of 8.
const AT_ONCE: u16 = 4_080;

/// Turns a container's fragment into the client's, and sends it there.
#[inline(never)]
pub fn to_client(context: &TcContext) -> Result<i32, Stop> {
    let Some(work) = maps::workspace() else { return Err(Stop::Pass) };
    let to = &mut work.to_client;
    change_family::<ETHERNET_LENGTH>(context, ETHERTYPE_IPV6)?;
    let room = FRAGMENT_LENGTH as i32 - i32::from(to.extra);
    if room != 0 {
        change_room(context, room)?;
    }
    store(context, ETHERNET_LENGTH, &to.header)?;
    store(context, ETHERNET_LENGTH + IPV6_LENGTH, &to.fragment)?;
    crate::apply::reach(context, ETHERNET_LENGTH + HEADERS + TCP_LENGTH)?;
    rewrite(context, ETHERNET_LENGTH + HEADERS, &to.transport)?;
    send(context, to.pieces, to.uplink)
}

/// Sends an IPv6 fragment to the client, in so many pieces.
#[inline(always)]
pub fn send(context: &TcContext, count: u16, uplink: Uplink) -> Result<i32, Stop> {
    if count > 1 {
        // SAFETY: the kernel hands a valid __sk_buff to a classifier.
        unsafe { (*context.skb.skb).mark = uplink.ifindex };
        for number in 1..u32::from(PIECES) {
            if number >= u32::from(count) {
                break;
            }
            clone(context, CLONE | number)?;
        }
        cut(context, 0)?;
    }
    leave_by(context, uplink)
}

#[inline(never)]
fn clone(context: &TcContext, index: u32) -> Result<(), Stop> {
    let skb = context.skb.skb;
    // SAFETY: as above; the helper clones the packet, and no pointer into it is kept.
    let failed = unsafe {
        (*skb).tc_index = index;
        bpf_clone_redirect(skb.cast(), (*skb).ifindex, u64::from(BPF_F_INGRESS))
    };
    if failed == 0 { Ok(()) } else { Err(FAILED) }
}

/// Sends a clone that comes by again; everything else isn't ours. Just an action, since a `Result` with a
/// number would come by way of the stack.
#[inline(never)]
pub fn again(context: &TcContext) -> i32 {
    // SAFETY: the kernel hands a valid __sk_buff to a classifier.
    let skb = unsafe { &*context.skb.skb };
    let (index, ifindex) = (skb.tc_index, skb.mark);
    if skb.protocol != ETHERTYPE_IPV6_WIDE || index & !NUMBER != CLONE {
        return pass();
    }
    let tables = Kernel::new(context);
    let Some(found) = tables.uplink(ifindex) else { return pass() };
    let raw = found.flags & uplink_flags::RAW != 0;
    match cut(context, index & NUMBER) {
        Ok(()) => leave_out(Uplink { ifindex, raw, to_host: false }),
        Err(_) => drop_packet(Reason::HelperFailed),
    }
}

/// Cuts an IPv6 fragment to one of its pieces.
#[inline(never)]
fn cut(context: &TcContext, number: u32) -> Result<(), Stop> {
    let Some(room) = maps::piece_room() else { return Err(FAILED) };
    let skb = context.skb.skb;
    // SAFETY: the helper fills all bytes or fails.
    let failed = unsafe {
        (*skb).mark = 0;
        (*skb).tc_index = 0;
        let to = room.headers.as_mut_ptr().cast();
        bpf_skb_load_bytes(skb.cast(), ETHERNET_LENGTH as u32, to, HEADERS as u32)
    };
    if failed != 0 || !piece(&mut room.headers, number as u16, &mut room.piece) {
        return Err(FAILED);
    }
    let end = (ETHERNET_LENGTH + HEADERS) as u32
        + u32::from(room.piece.skip)
        + u32::from(room.piece.length);
    // SAFETY: `context` is the program's own; no pointer into the packet is kept.
    if unsafe { bpf_skb_change_tail(skb.cast(), end, 0) } != 0 {
        return Err(FAILED);
    }
    for _ in 0..PIECES {
        let at_once = room.piece.skip.min(AT_ONCE);
        if at_once == 0 {
            break;
        }
        change_room(context, -i32::from(at_once))?;
        room.piece.skip -= at_once;
    }
    store(context, ETHERNET_LENGTH, &room.headers)
}
