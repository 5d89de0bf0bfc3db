//! IPv6 (RFC 8200 §3) and IPv4 (RFC 791 §3.1) headers.

use crate::checksum::{Difference, checksum};
use crate::wide::words;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An IPv6 header, 40 bytes, as on the wire.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Ipv6Header {
    /// Version (4 bits), traffic class (8), flow label (20).
    pub version_class_flow: [u8; 4],
    /// Bytes after this header, big-endian.
    pub payload_length: [u8; 2],
    /// Protocol number of what follows.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
}

impl Ipv6Header {
    /// The window `bytes` as a header.
    #[inline(always)]
    #[must_use]
    pub fn of(bytes: &[u8; 40]) -> &Self {
        zerocopy::transmute_ref!(bytes)
    }

    /// The version field, 6 in every valid header.
    #[inline(always)]
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.version_class_flow[0] >> 4
    }

    /// The traffic class, all 8 bits.
    #[inline(always)]
    #[must_use]
    pub const fn traffic_class(&self) -> u8 {
        self.version_class_flow[0] << 4 | self.version_class_flow[1] >> 4
    }

    /// Bytes after this header.
    #[inline(always)]
    #[must_use]
    pub const fn payload(&self) -> u16 {
        u16::from_be_bytes(self.payload_length)
    }
}

/// An IPv4 header without options, 20 bytes, as on the wire.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version (4 bits) and header length in 32-bit words (4).
    pub version_length: u8,
    /// Type of service, all 8 bits (DSCP and ECN).
    pub tos: u8,
    /// Bytes of the packet, this header included, big-endian.
    pub total_length: [u8; 2],
    /// Identification, big-endian.
    pub identification: [u8; 2],
    /// Flags (3 bits) and fragment offset in 8-byte units (13), big-endian.
    pub flags_offset: [u8; 2],
    /// Hops left.
    pub ttl: u8,
    /// Protocol number of what follows.
    pub protocol: u8,
    /// Checksum of this header.
    pub checksum: [u8; 2],
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

impl Ipv4Header {
    /// Version 4 and no options.
    pub const VERSION_LENGTH: u8 = 0x45;
    /// The "don't fragment" bit of `flags_offset`.
    pub const DONT_FRAGMENT: u16 = 0x4000;
    /// The "more fragments" bit of `flags_offset`.
    pub const MORE_FRAGMENTS: u16 = 0x2000;
    /// The offset in `flags_offset`, in units of 8 bytes.
    pub const OFFSET: u16 = 0x1fff;

    /// The window `bytes` as a header.
    #[inline(always)]
    #[must_use]
    pub fn of(bytes: &[u8; 20]) -> &Self {
        zerocopy::transmute_ref!(bytes)
    }

    /// The same, read in words, for where all of it is needed.
    #[inline(always)]
    #[must_use]
    pub fn read(bytes: &[u8; 20]) -> Self {
        zerocopy::transmute!(words::<5, 20>(bytes))
    }

    /// The header's bytes, with its checksum summed.
    #[inline(always)]
    #[must_use]
    pub fn sealed(mut self) -> [u8; 20] {
        self.checksum = [0; 2];
        let bytes: [u8; 20] = zerocopy::transmute!(self);
        self.checksum = checksum(&bytes, Difference::new());
        zerocopy::transmute!(self)
    }

    /// The version field, 4 in every valid header.
    #[inline(always)]
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.version_length >> 4
    }

    /// Bytes of the packet, this header included.
    #[inline(always)]
    #[must_use]
    pub const fn total(&self) -> u16 {
        u16::from_be_bytes(self.total_length)
    }

    /// Length of the header with its options.
    #[inline(always)]
    #[must_use]
    pub const fn length(&self) -> u16 {
        (self.version_length & 0x0f) as u16 * 4
    }

    /// Whether this is a fragment: more follow, or the offset isn't 0.
    #[inline(always)]
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        u16::from_be_bytes(self.flags_offset) & 0x3fff != 0
    }

    /// Whether "don't fragment" is set.
    #[inline(always)]
    #[must_use]
    pub const fn must_not_fragment(&self) -> bool {
        u16::from_be_bytes(self.flags_offset) & Self::DONT_FRAGMENT != 0
    }

    /// Whether its payload is the start of the packet's, where the ports are.
    #[inline(always)]
    #[must_use]
    pub const fn starts_packet(&self) -> bool {
        u16::from_be_bytes(self.flags_offset) & 0x1fff == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h2_traffic_class_has_all_eight_bits() {
        for class in 0..=255u8 {
            let mut bytes = [0xff; 40];
            bytes[0] = 0x60 | class >> 4;
            bytes[1] = class << 4 | 0x0f;
            let header = Ipv6Header::of(&bytes);
            assert_eq!((header.version(), header.traffic_class()), (6, class));
        }
    }

    #[test]
    fn fragments_are_told_by_more_or_offset() {
        let mut header = *Ipv4Header::of(&[0; 20]);
        for (bits, fragment, first) in [
            (0u16, false, true),
            (0x4000, false, true),
            (0x8000, false, true),
            (0x2000, true, true),
            (1, true, false),
            (0x2001, true, false),
            (0x1fff, true, false),
        ] {
            header.flags_offset = bits.to_be_bytes();
            assert_eq!(header.is_fragment(), fragment, "{bits:#x}");
            assert_eq!(header.starts_packet(), first, "{bits:#x}");
        }
    }
}
