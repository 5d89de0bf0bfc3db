//! ICMP errors about sessions: an error of the other family in the packet's place, or one of the host's
//! own that goes back to the sender.

use crate::apply::{FAILED, add_ethernet, drop_packet, leave, leave_by, redirect, set_ethertype};
use crate::maps::{self, Kernel, count_drop};
use crate::window::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Window, window};
use aya_ebpf::{
    bindings::{BPF_F_RECOMPUTE_CSUM, TC_ACT_SHOT},
    helpers::generated::{
        bpf_csum_diff, bpf_ktime_get_ns, bpf_skb_change_proto, bpf_skb_change_tail,
        bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use core::{cmp::min, hint::black_box, ptr::null_mut};
use publisher_common::{
    decide::{
        Answer, Stop,
        errors::{self, ErrorWorkspace},
    },
    packet::LONGEST_SUM,
    reason::Reason,
    wire::ETHERNET_LENGTH,
};

/// Tells a client what became of its packet, if that may be said now.
#[inline(never)]
pub fn answer_client<const L2: usize>(context: &TcContext, answer: Answer) -> i32 {
    count_drop(answer.reason());
    let Some(packet) = Window::<L2>::of_client(context) else { return shot() };
    let Some(work) = maps::error_workspace() else { return shot() };
    if !may_answer() {
        return drop_packet(Reason::AnswerSuppressed);
    }
    let told = maps::workspace().map_or(0, |work| work.told(answer));
    if errors::answer_client(&packet, &packet.arrival(), (answer, told), work).is_err() {
        return shot();
    }
    send_back::<L2>(context, work)
}

/// Tells a container what became of its packet, if that may be said now.
#[inline(never)]
pub fn answer_container(context: &TcContext, answer: Answer) -> i32 {
    count_drop(answer.reason());
    let Some(packet) = Window::<ETHERNET_LENGTH>::of_container(context) else { return shot() };
    let Some(work) = maps::error_workspace() else { return shot() };
    let mut tables = Kernel::new(context);
    let arrival = packet.arrival();
    match errors::answer_container(&packet, &arrival, answer, work, &mut tables, may_answer) {
        Ok(()) => send_back::<ETHERNET_LENGTH>(context, work),
        Err(Stop::Drop(Reason::AnswerSuppressed)) => drop_packet(Reason::AnswerSuppressed),
        Err(_) => shot(),
    }
}

/// The verdict of a drop that has been counted.
#[inline(always)]
const fn shot() -> i32 {
    TC_ACT_SHOT as i32
}

/// Whether one more error of the host's own may be sent by this CPU.
#[inline(always)]
fn may_answer() -> bool {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    maps::answers().is_some_and(|bucket| bucket.take(now))
}

/// Puts the error that was made in the packet's place, and sends it out where the packet came in.
///
/// A packet whose checksum its sender left to an offload keeps that mark, which no helper takes off: a
/// device that completes it damages the error, which is then lost. Between veth ends nobody does.
#[inline(always)]
fn send_back<const L2: usize>(context: &TcContext, work: &ErrorWorkspace) -> i32 {
    let skb = context.skb.skb.cast();
    let Some(length) = bounded(work.length, work.message.len()) else {
        return drop_packet(Reason::HelperFailed);
    };
    // SAFETY: `context` is the program's own; no pointer into the packet is kept. The helper reads
    // `length` bytes of the message, which has them.
    unsafe {
        if bpf_skb_change_tail(skb, L2 as u32 + length, 0) != 0
            || bpf_skb_store_bytes(
                skb,
                L2 as u32,
                work.message.as_ptr().cast(),
                length,
                u64::from(BPF_F_RECOMPUTE_CSUM),
            ) != 0
        {
            return drop_packet(Reason::HelperFailed);
        }
    }
    if L2 == ETHERNET_LENGTH {
        let Some(addresses) = window::<12>(context, 0) else {
            return drop_packet(Reason::HelperFailed);
        };
        // SAFETY: `window` has checked the bounds.
        let [a, b, c, d, e, f, destination @ ..] = unsafe { *addresses };
        let [g, h, i, j, k, l] = destination;
        // SAFETY: as above.
        unsafe { *addresses = [g, h, i, j, k, l, a, b, c, d, e, f] };
    }
    // SAFETY: the kernel hands a valid __sk_buff to a classifier.
    let ifindex = unsafe { (*context.skb.skb).ifindex };
    redirect(ifindex)
}

/// Bytes that are summed at once: older kernels (before 6.13) take no more.
pub const CHUNK: usize = 512;
/// Chunks of the longest sum.
const CHUNKS: u32 = LONGEST_SUM / CHUNK as u32;

/// Room for a chunk. Twice as much as it takes: what the verifier knows of a length is its bits.
#[repr(align(8))]
pub struct Chunk([u8; 2 * CHUNK + 8]);

/// An ICMPv6 packet of an uplink.
#[inline(always)]
pub fn from_client<const L2: usize, const HOST: bool>(context: &TcContext) -> Result<i32, Stop> {
    let Some(packet) = Window::<L2>::of_client(context) else {
        return Err(Stop::Pass);
    };
    let Some(work) = maps::error_workspace() else { return Err(Stop::Pass) };
    let mut tables = Kernel::new(context);
    let arrival = crate::arrival::<L2, HOST>(&packet, context)?;
    errors::from_client(&packet, &arrival, work, &mut tables)?;
    replace::<L2>(context, ETHERTYPE_IPV4, work)?;
    if L2 == 0 {
        add_ethernet(context, &work.ethernet)?;
    }
    Ok(leave(work.exit))
}

/// An ICMP packet of a container.
#[inline(never)]
pub fn from_container<const BRIDGE: bool>(context: &TcContext) -> Result<i32, Stop> {
    let Some(packet) = Window::<ETHERNET_LENGTH>::of_container(context) else {
        return Err(Stop::Pass);
    };
    let Some(work) = maps::error_workspace() else { return Err(Stop::Pass) };
    let mut tables = Kernel::new(context);
    errors::from_container::<BRIDGE, _, _>(&packet, &packet.arrival(), work, &mut tables)?;
    replace::<ETHERNET_LENGTH>(context, ETHERTYPE_IPV6, work)?;
    leave_by(context, work.uplink)
}

/// Puts the error that was made in the packet's place, behind its link-layer header.
#[inline(always)]
fn replace<const L2: usize>(
    context: &TcContext,
    ethertype: u16,
    work: &ErrorWorkspace,
) -> Result<(), Stop> {
    let skb = context.skb.skb.cast();
    let Some(length) = bounded(work.length, work.message.len()) else { return Err(FAILED) };
    // SAFETY: `context` is the program's own; no pointer into the packet is kept. The helper reads
    // `length` bytes of the message, which has them.
    unsafe {
        if bpf_skb_change_proto(skb, ethertype, 0) != 0
            || bpf_skb_change_tail(skb, L2 as u32 + length, 0) != 0
            || bpf_skb_store_bytes(
                skb,
                L2 as u32,
                work.message.as_ptr().cast(),
                length,
                u64::from(BPF_F_RECOMPUTE_CSUM),
            ) != 0
        {
            return Err(FAILED);
        }
    }
    set_ethertype::<L2>(context, ethertype)
}

/// `length`, if it lies between 1 and `limit`, both of which the verifier then knows. Old ones learn no
/// lower bound from a comparison with 0, only from the addition.
#[inline(always)]
pub fn bounded(length: u32, limit: usize) -> Option<u32> {
    let last = black_box(u64::from(length.wrapping_sub(1)));
    if last < limit as u64 { Some(last as u32 + 1) } else { None }
}

/// Copies `length` bytes of the packet, link-layer header included, to `into`.
#[inline(always)]
pub fn copy<const N: usize>(
    context: &TcContext,
    offset: u32,
    length: u32,
    into: &mut [u8; N],
) -> bool {
    if length == 0 {
        return true;
    }
    let Some(length) = bounded(length, N) else { return false };
    // SAFETY: the helper writes `length` bytes, which there is room for, or fails.
    unsafe {
        bpf_skb_load_bytes(context.skb.skb.cast(), offset, into.as_mut_ptr().cast(), length) == 0
    }
}

/// The ones' complement sum of `length` bytes of the packet, link-layer header included.
#[inline(never)]
pub fn sum(context: &TcContext, offset: u32, length: u32) -> Option<u32> {
    if length > LONGEST_SUM {
        return None;
    }
    let mut sum = 0;
    for chunk in 0..CHUNKS {
        let start = chunk * CHUNK as u32;
        if start >= length {
            break;
        }
        sum = sum_chunk(context, offset + start, length - start, sum);
        if sum < 0 {
            return None;
        }
    }
    Some(sum as u32)
}

/// Adds the sum of a chunk, or of `length` bytes where they are fewer, but at least one; negative where
/// they aren't there.
#[inline(never)]
fn sum_chunk(context: &TcContext, offset: u32, length: u32, seed: i64) -> i64 {
    let Some(Chunk(room)) = maps::chunk() else { return -1 };
    // Masked so that the verifier knows both bounds; it forgets what came of a comparison.
    let last = black_box(min(length, CHUNK as u32).wrapping_sub(1)) & (CHUNK as u32 - 1);
    let length = last + 1;
    // The word that the end lies in is summed whole.
    let whole = (length + 3) & !3;
    let room = room.as_mut_ptr();
    // SAFETY: `room` has more than 2 * CHUNK bytes, and `length` and `whole` are at most CHUNK; the
    // verifier takes `whole` to be up to 2 * CHUNK + 2.
    unsafe {
        room.add((length & !3) as usize).cast::<u32>().write(0);
        if bpf_skb_load_bytes(context.skb.skb.cast(), offset, room.cast(), length) != 0 {
            return -1;
        }
        bpf_csum_diff(null_mut(), 0, room.cast(), whole, seed as u32)
    }
}
