//! TCP (RFC 9293 §3.1) and UDP (RFC 768) headers.

use crate::wide::words;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bits of the TCP flags byte.
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgment field is significant.
    pub const ACK: u8 = 0x10;
}

/// A TCP header without options, 20 bytes, as on the wire.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct TcpHeader {
    /// Source and destination port, each big-endian.
    pub ports: [u8; 4],
    /// Sequence number, big-endian.
    pub sequence: [u8; 4],
    /// Acknowledgment number, big-endian.
    pub acknowledgment: [u8; 4],
    /// Header length in 32-bit words (4 bits), reserved bits.
    pub data_offset: u8,
    /// The flags of [`tcp_flags`].
    pub flags: u8,
    /// Receive window, big-endian.
    pub window: [u8; 2],
    /// Checksum over pseudo-header, header and payload.
    pub checksum: [u8; 2],
    /// Urgent pointer, big-endian.
    pub urgent: [u8; 2],
}

impl TcpHeader {
    /// The window `bytes` as a header.
    #[inline(always)]
    #[must_use]
    pub fn of(bytes: &[u8; 20]) -> &Self {
        zerocopy::transmute_ref!(bytes)
    }

    /// The same, read in words.
    #[inline(always)]
    #[must_use]
    pub fn read(bytes: &[u8; 20]) -> Self {
        zerocopy::transmute!(words::<5, 20>(bytes))
    }

    /// Length of the header with its options, in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn length(&self) -> usize {
        ((self.data_offset >> 4) as usize) * 4
    }
}

/// A UDP header, 8 bytes, as on the wire.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct UdpHeader {
    /// Source and destination port, each big-endian.
    pub ports: [u8; 4],
    /// Bytes of header and payload, big-endian.
    pub length: [u8; 2],
    /// Checksum over pseudo-header, header and payload; 0 is "none" in IPv4 and invalid in IPv6.
    pub checksum: [u8; 2],
}

impl UdpHeader {
    /// The window `bytes` as a header.
    #[inline(always)]
    #[must_use]
    pub fn of(bytes: &[u8; 8]) -> &Self {
        zerocopy::transmute_ref!(bytes)
    }

    /// The same, read in words.
    #[inline(always)]
    #[must_use]
    pub fn read(bytes: &[u8; 8]) -> Self {
        zerocopy::transmute!(words::<2, 8>(bytes))
    }
}
