//! The Fragment header of IPv6 (RFC 8200 §4.5).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An IPv6 Fragment header, 8 bytes, as on the wire.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct FragmentHeader {
    /// Protocol number of what follows.
    pub next_header: u8,
    /// Written as 0.
    pub reserved: u8,
    /// Offset in bytes, a multiple of 8; the lowest bit says that more fragments follow. Big-endian.
    pub offset_more: [u8; 2],
    /// Identification, big-endian.
    pub identification: [u8; 4],
}

impl FragmentHeader {
    /// The "more fragments" bit of `offset_more`.
    pub const MORE: u16 = 1;
    /// The offset in `offset_more`, in bytes.
    pub const OFFSET: u16 = 0xfff8;

    /// The window `bytes` as a header.
    #[inline(always)]
    #[must_use]
    pub fn of(bytes: &[u8; 8]) -> &Self {
        zerocopy::transmute_ref!(bytes)
    }
}
