//! How a decision sees a packet: fixed windows at fixed offsets, never a length taken on trust.

use zerocopy::FromZeros;

/// Bytes that [`Packet::sum`] goes over at most.
pub const LONGEST_SUM: u32 = 9_216;

/// A received packet, read from its network header on.
///
/// Offsets count from the first byte of the network header, whether or not a link-layer header
/// stands before it.
pub trait Packet {
    /// A window of `N` bytes at `offset`, which must be a constant: the verifier of old kernels
    /// follows one bounds check per window, not one per field.
    ///
    /// `None` where the packet ends before the window does.
    fn view<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;

    /// A copy of `N` bytes at an `offset` that the packet itself named. Slower than
    /// [`view`](Self::view): for rare packets only.
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Copies `length` bytes at `offset` to the start of `into`; `false` where the packet, or `into`, ends
    /// before them. For rare packets only.
    fn copy<const N: usize>(&self, offset: u32, length: u32, into: &mut [u8; N]) -> bool;

    /// The ones' complement sum of `length` bytes at `offset`, in memory order and not folded; the bytes
    /// count from an even place. `None` where the packet ends before they do, or for more than
    /// [`LONGEST_SUM`] of them. For rare packets only.
    fn sum(&self, offset: u32, length: u32) -> Option<u32>;

    /// The source address of the Ethernet header, where there is one.
    fn ethernet_source(&self) -> Option<[u8; 6]>;
}

/// What the kernel says about a packet beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
pub struct Arrival {
    /// The interface it came in on.
    pub ifindex: u32,
    /// Bytes from the network header to the end, link-layer padding included.
    pub length: u32,
    /// Seconds of the monotonic clock.
    pub now: u32,
    /// Bytes of transport payload in each segment of a GRO or TSO super-packet; 0 for a plain packet.
    pub gso_size: u32,
    /// Packets on the wire that this one stands for; 0 counts as 1.
    pub gso_segments: u32,
    /// Whether a process of this host sent it: it came in by the loopback interface.
    pub from_host: bool,
}

impl Arrival {
    /// Where its client is: one of [`crate::layout::origin`].
    #[inline(always)]
    #[must_use]
    pub const fn origin(&self) -> u8 {
        self.from_host as u8
    }

    /// Packets on the wire that this one stands for.
    #[inline(always)]
    #[must_use]
    pub const fn segments(&self) -> u32 {
        if self.gso_segments == 0 { 1 } else { self.gso_segments }
    }

    /// The length of the largest packet on the wire, given the length of the whole and of its
    /// headers. Rules about sizes speak of this, not of the super-packet.
    #[inline(always)]
    #[must_use]
    pub const fn wire_length(&self, whole: u32, headers: u32) -> u32 {
        if self.gso_size == 0 { whole } else { headers + self.gso_size }
    }
}
