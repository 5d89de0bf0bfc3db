//! A socket buffer seen as a packet.

use crate::icmp;
use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_ns, bpf_skb_load_bytes},
    programs::TcContext,
};
use core::mem::MaybeUninit;
use publisher_common::{
    packet::{Arrival, Packet},
    wire::{ETHERNET_LENGTH, IPV4_LENGTH, IPV6_LENGTH, TCP_LENGTH, UDP_LENGTH, protocol},
};

/// Ethertype of IPv6, as it stands in the packet.
pub const ETHERTYPE_IPV6: u16 = 0x86ddu16.to_be();
/// The same as `__sk_buff` has it.
pub const ETHERTYPE_IPV6_WIDE: u32 = ETHERTYPE_IPV6 as u32;
/// Ethertype of IPv4, as it stands in the packet.
pub const ETHERTYPE_IPV4: u16 = 0x0800u16.to_be();
/// `pkt_type` of a packet addressed to this host (`PACKET_HOST`).
const TO_US: u32 = 0;
/// `pkt_type` of a packet whose hardware address isn't the receiving device's (`PACKET_OTHERHOST`).
const TO_ANOTHER: u32 = 3;
/// Offset of the next header in an IPv6 header.
pub const NEXT_HEADER: usize = 6;
/// Offset of the protocol in an IPv4 header.
pub const PROTOCOL: usize = 9;
/// Bytes behind the IP header that decisions about an ICMP error look at: its own header, the
/// embedded IPv6 header and 8 bytes.
const ERROR: usize = 56;

/// A value that the verifier lets through: it takes aligned accesses to the stack only, while the
/// compiler is told that any access will do.
#[repr(align(8))]
pub struct Aligned<T>(pub T);

/// A packet with `L2` bytes of link-layer header.
#[derive(Clone, Copy)]
pub struct Window<'a, const L2: usize> {
    context: &'a TcContext,
}

impl<'a, const L2: usize> Window<'a, L2> {
    /// A packet of an uplink that may be ours, with its headers in reach.
    #[inline(always)]
    pub fn of_client(context: &'a TcContext) -> Option<Self> {
        Self::open(context, ETHERTYPE_IPV6, |kind| kind == TO_US)?
            .reaching(IPV6_LENGTH)?
            .reaching_transport(NEXT_HEADER, IPV6_LENGTH)
    }

    /// An IPv4 packet of an uplink.
    #[inline(always)]
    pub fn of_ipv4(context: &'a TcContext) -> Option<Self> {
        Self::open(context, ETHERTYPE_IPV4, |kind| kind == TO_US)?.reaching(IPV4_LENGTH)
    }

    /// A packet of a container link that may be ours, with its headers in reach. At the veth it is
    /// addressed to the bridge that the veth is a port of, so to another one as the kernel sees it.
    #[inline(always)]
    pub fn of_container(context: &'a TcContext) -> Option<Self> {
        Self::open(context, ETHERTYPE_IPV4, |kind| kind == TO_US || kind == TO_ANOTHER)?
            .reaching(IPV4_LENGTH)?
            .reaching_transport(PROTOCOL, IPV4_LENGTH)
    }

    /// A packet that was opened before and hasn't been changed since.
    #[inline(always)]
    pub const fn again(context: &'a TcContext) -> Self {
        Self { context }
    }

    /// A packet of this Ethertype and of a `pkt_type` that is served, without a VLAN tag (a tagged frame
    /// belongs to the VLAN's interface).
    #[inline(always)]
    fn open(
        context: &'a TcContext,
        ethertype: u16,
        serves: impl FnOnce(u32) -> bool,
    ) -> Option<Self> {
        // SAFETY: the kernel hands a valid __sk_buff to a classifier.
        let skb = unsafe { &*context.skb.skb };
        let ours =
            skb.protocol == u32::from(ethertype) && skb.vlan_present == 0 && serves(skb.pkt_type);
        ours.then_some(Self { context })
    }

    /// The same packet with `bytes` from the network header on in the linear part of the buffer, or
    /// all that it has: a driver may leave headers outside, where windows don't look.
    ///
    /// Never more than is needed. A TCP sender's buffer has its headers there and all of its data
    /// outside; a few bytes of data pulled in cost a new buffer here, and the receiving socket
    /// can't merge it with its neighbours any more.
    #[inline(always)]
    fn reaching(self, bytes: usize) -> Option<Self> {
        // SAFETY: as in `open`.
        let length = unsafe { (*self.context.skb.skb).len };
        let wanted = length.min((L2 + bytes) as u32);
        if self.context.data_end() - self.context.data() < wanted as usize {
            self.context.pull_data(wanted).ok()?;
        }
        Some(self)
    }

    /// The same packet with what decisions look at behind the IP header of `start` bytes, whose
    /// protocol field stands at `field`, in reach; without TCP's options.
    #[inline(always)]
    fn reaching_transport(self, field: usize, start: usize) -> Option<Self> {
        let length = match self.number(field) {
            protocol::TCP => TCP_LENGTH,
            protocol::UDP => UDP_LENGTH,
            protocol::ICMP | protocol::ICMPV6 => ERROR,
            _ => 0,
        };
        self.reaching(start + length)
    }

    /// The protocol number at `field` of the IP header; 0 where it isn't there.
    #[inline(always)]
    pub fn number(&self, field: usize) -> u8 {
        self.view::<1>(field).map_or(0, |&[number]| number)
    }

    /// What the kernel says about the packet.
    #[inline(always)]
    pub fn arrival(&self) -> Arrival {
        // SAFETY: as in `open`.
        let skb = unsafe { &*self.context.skb.skb };
        // SAFETY: the helper has no preconditions.
        let now = unsafe { bpf_ktime_get_ns() } / 1_000_000_000;
        Arrival {
            ifindex: skb.ifindex,
            length: skb.len.saturating_sub(L2 as u32),
            now: now as u32,
            gso_size: skb.gso_size,
            gso_segments: skb.gso_segs,
            from_host: false,
        }
    }
}

impl<const L2: usize> Packet for Window<'_, L2> {
    #[inline(always)]
    fn view<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        window(self.context, L2 + offset).map(|pointer| {
            // SAFETY: `window` has checked the bounds; a byte array has no alignment.
            unsafe { &*pointer }
        })
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = Aligned(MaybeUninit::<[u8; N]>::uninit());
        // SAFETY: the helper fills all N bytes or fails.
        unsafe {
            let failed = bpf_skb_load_bytes(
                self.context.skb.skb.cast(),
                (L2 + offset) as u32,
                bytes.0.as_mut_ptr().cast(),
                N as u32,
            );
            (failed == 0).then(|| bytes.0.assume_init())
        }
    }

    #[inline(always)]
    fn copy<const N: usize>(&self, offset: u32, length: u32, into: &mut [u8; N]) -> bool {
        icmp::copy(self.context, L2 as u32 + offset, length, into)
    }

    #[inline(always)]
    fn sum(&self, offset: u32, length: u32) -> Option<u32> {
        icmp::sum(self.context, L2 as u32 + offset, length)
    }

    #[inline(always)]
    fn ethernet_source(&self) -> Option<[u8; 6]> {
        if L2 != ETHERNET_LENGTH {
            return None;
        }
        // SAFETY: `window` has checked the bounds.
        window(self.context, 6).map(|pointer| unsafe { *pointer })
    }
}

/// A pointer to `N` bytes at `offset` from the start of the buffer's data, link-layer header
/// included; `None` where they aren't there. It is valid until a helper changes the packet.
#[inline(always)]
pub fn window<const N: usize>(context: &TcContext, offset: usize) -> Option<*mut [u8; N]> {
    let start = context.data() + offset;
    (start + N <= context.data_end()).then_some(start as *mut [u8; N])
}
