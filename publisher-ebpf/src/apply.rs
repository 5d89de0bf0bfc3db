//! Carrying a decision out with the kernel's helpers.
//!
//! Checksums follow the one recipe that leaves both the bytes and `skb->csum` right after
//! `bpf_skb_change_proto`: the IP header is stored with `BPF_F_RECOMPUTE_CSUM`; the transport
//! checksum is corrected by the pseudo-header's difference with `BPF_F_PSEUDO_HDR`, and by that of
//! the transport's own fields without it, which the kernel skips where an offload still has to sum
//! them (`CHECKSUM_PARTIAL`).

use crate::maps::{Kernel, count_drop};
use crate::window::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Window, window};
use crate::{hold, lane};
use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_ADJ_ROOM_NO_CSUM_RESET, BPF_F_INGRESS,
        BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, TC_ACT_REDIRECT, TC_ACT_SHOT,
        TC_ACT_UNSPEC, bpf_adj_room_mode::BPF_ADJ_ROOM_NET,
    },
    helpers::generated::{
        bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer,
        bpf_skb_adjust_room, bpf_skb_change_head, bpf_skb_change_proto, bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use core::ptr::null_mut;
use publisher_common::{
    decide::{Exit, Stop, ToClient, ToContainer, Uplink},
    packet::Packet,
    reason::Reason,
    tables::Tables,
    translate::TransportRewrite,
    wire::{ETHERNET_LENGTH, IPV4_LENGTH, IPV6_LENGTH, TCP_LENGTH, protocol},
};

/// What a helper's failure comes to.
pub const FAILED: Stop = Stop::Drop(Reason::HelperFailed);
/// Offset of the Ethertype in an Ethernet header.
const ETHERTYPE: usize = 12;
/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM: usize = 16;
/// Offset of the checksum in a UDP header.
const UDP_CHECKSUM: usize = 6;

/// Leaves the packet to the next program on the hook, or to the host's stack.
#[inline(always)]
pub const fn pass() -> i32 {
    TC_ACT_UNSPEC
}

/// Drops the packet and counts why.
#[inline(always)]
pub fn drop_packet(reason: Reason) -> i32 {
    count_drop(reason);
    TC_ACT_SHOT as i32
}

/// Turns a client's packet into the container's, and sends it there.
#[inline(always)]
pub fn to_container<const L2: usize>(context: &TcContext, to: &ToContainer) -> Result<i32, Stop> {
    if to.leads {
        hold::release(context);
    }
    change_family::<L2>(context, ETHERTYPE_IPV4)?;
    if to.extra != 0 {
        // Behind the new header, which is as long as the kernel takes an IPv4 header to be.
        change_room(context, -i32::from(to.extra))?;
        reach(context, L2 + IPV4_LENGTH + TCP_LENGTH)?;
    }
    store(context, L2, &to.header)?;
    rewrite(context, L2 + IPV4_LENGTH, &to.transport)?;
    if L2 == 0 {
        add_ethernet(context, &to.ethernet)?;
    }
    Ok(leave(to.exit))
}

/// Turns a container's packet into the client's, and sends it there.
#[inline(always)]
pub fn to_client(context: &TcContext, to: &ToClient) -> Result<i32, Stop> {
    change_family::<ETHERNET_LENGTH>(context, ETHERTYPE_IPV6)?;
    if to.extra != 0 {
        change_room(context, -i32::from(to.extra))?;
        reach(context, ETHERNET_LENGTH + IPV6_LENGTH + TCP_LENGTH)?;
    }
    store(context, ETHERNET_LENGTH, &to.header)?;
    rewrite(context, ETHERNET_LENGTH + IPV6_LENGTH, &to.transport)?;
    if to.detour.ifindex != 0 {
        return Ok(lane::enter(context, to.detour, to.uplink));
    }
    leave_by(context, to.uplink)
}

/// Changes the packet's family; its IP header is to be written then.
#[inline(always)]
pub fn change_family<const L2: usize>(context: &TcContext, ethertype: u16) -> Result<(), Stop> {
    // SAFETY: `context` is the program's own; no pointer into the packet is kept.
    if unsafe { bpf_skb_change_proto(context.skb.skb.cast(), ethertype, 0) } != 0 {
        return Err(FAILED);
    }
    set_ethertype::<L2>(context, ethertype)
}

/// Turns an IPv6 packet to IPv4 and back, and leaves all of its bytes as they were.
#[inline(always)]
pub fn there_and_back(context: &TcContext) -> Result<(), Stop> {
    let packet = Window::<ETHERNET_LENGTH>::again(context);
    let Some(header) = packet.load::<IPV6_LENGTH>(0) else { return Err(Stop::Pass) };
    change_family::<0>(context, ETHERTYPE_IPV4)?;
    change_family::<0>(context, ETHERTYPE_IPV6)?;
    store(context, ETHERNET_LENGTH, &header)
}

/// Puts `length` bytes behind the IP header, or takes as many away.
#[inline(always)]
pub fn change_room(context: &TcContext, length: i32) -> Result<(), Stop> {
    let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET);
    // SAFETY: `context` is the program's own; no pointer into the packet is kept.
    let failed =
        unsafe { bpf_skb_adjust_room(context.skb.skb.cast(), length, BPF_ADJ_ROOM_NET, flags) };
    if failed == 0 { Ok(()) } else { Err(FAILED) }
}

/// Has the first `length` bytes in the linear part of the buffer, or all that there are.
#[inline(always)]
pub fn reach(context: &TcContext, length: usize) -> Result<(), Stop> {
    // SAFETY: the kernel hands a valid __sk_buff to a classifier.
    let whole = unsafe { (*context.skb.skb).len };
    context.pull_data(whole.min(length as u32)).map_err(|_| FAILED)
}

/// `bpf_skb_change_proto` leaves the Ethertype as it was.
#[inline(always)]
pub fn set_ethertype<const L2: usize>(context: &TcContext, ethertype: u16) -> Result<(), Stop> {
    if L2 == ETHERNET_LENGTH {
        let Some(field) = window::<2>(context, ETHERTYPE) else { return Err(FAILED) };
        // SAFETY: `window` has checked the bounds.
        unsafe { *field = ethertype.to_ne_bytes() };
    }
    Ok(())
}

#[inline(always)]
pub fn store<const N: usize>(
    context: &TcContext,
    offset: usize,
    bytes: &[u8; N],
) -> Result<(), Stop> {
    // SAFETY: the helper reads N bytes, which are there.
    let failed = unsafe {
        bpf_skb_store_bytes(
            context.skb.skb.cast(),
            offset as u32,
            bytes.as_ptr().cast(),
            N as u32,
            u64::from(BPF_F_RECOMPUTE_CSUM),
        )
    };
    if failed == 0 { Ok(()) } else { Err(FAILED) }
}

/// Rewrites the transport header, which starts at `start`.
#[inline(always)]
pub fn rewrite(context: &TcContext, start: usize, rewrite: &TransportRewrite) -> Result<(), Stop> {
    match rewrite.protocol {
        protocol::UDP => {
            if rewrite.seed != [0; 2] {
                store(context, start + UDP_CHECKSUM, &rewrite.seed)?;
            }
            fields::<UDP_CHECKSUM>(context, start, rewrite, u64::from(BPF_F_MARK_MANGLED_0))
        }
        protocol::TCP => fields::<TCP_CHECKSUM>(context, start, rewrite, 0),
        _ => Ok(()),
    }
}

#[inline(always)]
fn fields<const CHECKSUM: usize>(
    context: &TcContext,
    start: usize,
    rewrite: &TransportRewrite,
    flags: u64,
) -> Result<(), Stop> {
    let Some(ports) = window::<4>(context, start) else { return Err(FAILED) };
    // SAFETY: `window` has checked the bounds.
    unsafe { *ports = rewrite.ports };
    let skb = context.skb.skb.cast();
    let patch = &rewrite.mss;
    if patch.is_some() {
        let at = (start + patch.offset as usize) as u32;
        // SAFETY: the helper reads 2 bytes, which are there.
        if unsafe { bpf_skb_store_bytes(skb, at, patch.new.as_ptr().cast(), 2, 0) } != 0 {
            return Err(FAILED);
        }
    }
    let at = (start + CHECKSUM) as u32;
    let pseudo = u64::from(rewrite.pseudo_header.value());
    let own = u64::from(rewrite.fields.value());
    // SAFETY: with size 0 the helper takes differences, no memory.
    unsafe {
        if bpf_l4_csum_replace(skb, at, 0, pseudo, u64::from(BPF_F_PSEUDO_HDR) | flags) != 0
            || bpf_l4_csum_replace(skb, at, 0, own, flags) != 0
        {
            return Err(FAILED);
        }
    }
    Ok(())
}

/// Puts an Ethernet header before a packet of an uplink that has none.
#[inline(always)]
pub fn add_ethernet(context: &TcContext, addresses: &[[u8; 6]; 2]) -> Result<(), Stop> {
    // SAFETY: `context` is the program's own; no pointer into the packet is kept.
    if unsafe { bpf_skb_change_head(context.skb.skb.cast(), ETHERNET_LENGTH as u32, 0) } != 0 {
        return Err(FAILED);
    }
    let Some(header) = window::<ETHERNET_LENGTH>(context, 0) else { return Err(FAILED) };
    let [destination, source] = addresses;
    // SAFETY: `window` has checked the bounds.
    let header = unsafe { &mut *header };
    header[..6].copy_from_slice(destination);
    header[6..12].copy_from_slice(source);
    header[12..].copy_from_slice(&ETHERTYPE_IPV4.to_ne_bytes());
    Ok(())
}

/// Sends the packet to a container.
#[inline(always)]
pub fn leave(exit: Exit) -> i32 {
    // SAFETY: the helpers note where the packet goes; a wrong index makes them drop it.
    let action = unsafe {
        match exit {
            Exit::Peer(ifindex) => bpf_redirect_peer(ifindex, 0),
            Exit::Neighbour(ifindex) => bpf_redirect_neigh(ifindex, null_mut(), 0, 0),
        }
    };
    redirected(action)
}

/// Sends the packet to a client.
#[inline(always)]
pub fn leave_by(context: &TcContext, uplink: Uplink) -> Result<i32, Stop> {
    if uplink.to_host { enter(context, uplink.ifindex) } else { Ok(leave_out(uplink)) }
}

/// Sends the packet to a process of this host, as if it had come in by an interface: for one that asked a
/// link-local address by the interface that has it, else by the loopback interface, whose hardware
/// address is 0.
#[inline(always)]
fn enter(context: &TcContext, ifindex: u32) -> Result<i32, Stop> {
    let mac = Kernel::new(context).uplink(ifindex).map_or([0; 6], |uplink| uplink.mac);
    let Some(destination) = window::<6>(context, 0) else { return Err(FAILED) };
    // SAFETY: `window` has checked the bounds; the helper is as in `leave`.
    unsafe {
        *destination = mac;
        Ok(redirected(bpf_redirect(ifindex, u64::from(BPF_F_INGRESS))))
    }
}

/// Sends the packet out of an uplink.
#[inline(always)]
pub fn leave_out(uplink: Uplink) -> i32 {
    // SAFETY: as in `leave`.
    let action = unsafe {
        if uplink.raw {
            bpf_redirect(uplink.ifindex, 0)
        } else {
            bpf_redirect_neigh(uplink.ifindex, null_mut(), 0, 0)
        }
    };
    redirected(action)
}

/// Sends the packet out of an interface as it is.
#[inline(always)]
pub fn redirect(ifindex: u32) -> i32 {
    // SAFETY: as in `leave`.
    redirected(unsafe { bpf_redirect(ifindex, 0) })
}

#[inline(always)]
fn redirected(action: i64) -> i32 {
    if action == TC_ACT_REDIRECT as i64 {
        TC_ACT_REDIRECT as i32
    } else {
        drop_packet(Reason::HelperFailed)
    }
}
