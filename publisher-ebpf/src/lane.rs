//! The slow lane: packets for a client that have to be fragmented.
//!
//! A packet comes from the container with its checksum left to an offload, or as a super-packet; cut
//! to pieces like that, its data would be damaged. So it is translated and sent through a pair of
//! interfaces without offloads, where the kernel completes and segments it on the way in. Here, at
//! the pair's end, it becomes fragments. `mark` holds the uplink, `tc_index` the identification.

use crate::apply::{change_room, drop_packet, leave_out, pass, redirect, store};
use crate::maps::{self, Kernel};
use crate::pieces;
use crate::window::ETHERTYPE_IPV6_WIDE;
use aya_ebpf::{helpers::generated::bpf_skb_load_bytes, programs::TcContext};
use publisher_common::{
    decide::{Detour, Uplink},
    layout::uplink_flags,
    reason::Reason,
    tables::Tables,
    translate::make_fragment,
    wire::{ETHERNET_LENGTH, FRAGMENT_LENGTH, IPV6_LENGTH},
};

/// Bit of `mark`: the packet comes by for the first time, whole.
const WHOLE: u32 = 1 << 31;
/// Bit of `mark`: it may be one of several with the same identification.
const SEGMENT: u32 = 1 << 30;

/// What [`make`] returns when a helper fails.
const FAILURE: u32 = u32::MAX;

/// Sends a packet that was translated to the lane's way in.
#[inline(always)]
pub fn enter(context: &TcContext, detour: Detour, uplink: Uplink) -> i32 {
    let segment = if detour.segmented { SEGMENT } else { 0 };
    // SAFETY: the kernel hands a valid __sk_buff to a classifier.
    unsafe {
        (*context.skb.skb).mark = uplink.ifindex | WHOLE | segment;
        (*context.skb.skb).tc_index = u32::from(u16::from_be_bytes(detour.identification));
    }
    redirect(detour.ifindex)
}

/// At the lane's end: a whole packet, or a clone of one that is to be cut. "Pass" for everything else.
#[inline(always)]
pub fn from_end(context: &TcContext) -> i32 {
    // SAFETY: as above.
    let skb = unsafe { &*context.skb.skb };
    if skb.mark & WHOLE == 0 {
        return pieces::again(context);
    }
    let ifindex = skb.mark & !(WHOLE | SEGMENT);
    let tables = Kernel::new(context);
    let Some(found) = tables.uplink(ifindex) else { return pass() };
    if skb.protocol != ETHERTYPE_IPV6_WIDE {
        return pass();
    }
    let raw = found.flags & uplink_flags::RAW != 0;
    match make(context) {
        FAILURE => pass(),
        0 => drop_packet(Reason::Fragment),
        1 => {
            // SAFETY: as above.
            unsafe {
                (*context.skb.skb).mark = 0;
                (*context.skb.skb).tc_index = 0;
            }
            leave_out(Uplink { ifindex, raw, to_host: false })
        }
        count => pieces::send(context, count as u16, Uplink { ifindex, raw, to_host: false })
            .unwrap_or(pass()),
    }
}

/// Puts a Fragment header into the packet; says in how many pieces it is to go out, 0 for too many. With 1
/// the packet, the end of a super-packet, stays as it is: it is no fragment (rule G5). Just a number, since
/// a `Result` would come by way of the stack.
#[inline(never)]
fn make(context: &TcContext) -> u32 {
    let Some(room) = maps::piece_room() else { return FAILURE };
    // SAFETY: as above; the helper fills all bytes or fails.
    let (failed, index, mark) = unsafe {
        let skb = context.skb.skb;
        let to = room.headers.as_mut_ptr().cast();
        let length = IPV6_LENGTH as u32;
        let failed = bpf_skb_load_bytes(skb.cast(), ETHERNET_LENGTH as u32, to, length);
        (failed, (*skb).tc_index, (*skb).mark)
    };
    if failed != 0 {
        return FAILURE;
    }
    let [low, high, ..] = index.to_le_bytes();
    let mut identification = [0, 0, high, low];
    if mark & SEGMENT != 0 {
        room.segments = room.segments.wrapping_add(1);
        [identification[0], identification[1]] = room.segments.to_be_bytes();
    }
    let count = make_fragment(&mut room.headers, identification);
    if count == 1 {
        return 1;
    }
    if change_room(context, FRAGMENT_LENGTH as i32).is_err()
        || store(context, ETHERNET_LENGTH, &room.headers).is_err()
    {
        return FAILURE;
    }
    u32::from(count)
}
