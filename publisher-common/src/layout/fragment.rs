//! What is kept of a datagram that comes in fragments: which session the later ones belong to.

use super::keys::{ForwardKey, ReplyKey};
use super::session::Handle;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A datagram: fragments with the same key belong together (RFC 8200 §4.5, RFC 791 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FragmentKey {
    /// Source address; an IPv4 address in the last four bytes, behind zeros.
    pub source: [u8; 16],
    /// Destination address, likewise.
    pub destination: [u8; 16],
    /// Identification, big-endian; that of IPv4 in the last two bytes.
    pub identification: [u8; 4],
    /// Interface index for a link-local source; 0 for others.
    pub scope: u32,
    /// Protocol number of what is in the datagram.
    pub protocol: u8,
    /// See [`ForwardKey::origin`]; 0 for fragments of containers.
    pub origin: u8,
    /// Written as 0.
    pub reserved: [u8; 2],
}

/// A part of a datagram: the offset of its first byte, and of the byte behind its last.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Range {
    /// Offset of the first byte.
    pub start: u16,
    /// Offset of the byte behind the last; the same as `start` if the range is empty.
    pub end: u16,
}

/// How many separate parts of a datagram are kept in mind.
pub const RANGES: usize = 4;

/// A datagram of which the first fragment was translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Datagram {
    /// The client's side of the session.
    pub forward: ForwardKey,
    /// The container's side of it.
    pub reply: ReplyKey,
    /// The container link.
    pub link: Handle,
    /// Interface index of the uplink.
    pub uplink: u32,
    /// When the last fragment came.
    pub last_seen: u32,
    /// What has come.
    pub ranges: [Range; RANGES],
    /// Where the datagram ends; 0 until its last fragment has come.
    pub end: u16,
    /// The bits of [`super::session_flags`] that say how the uplink is.
    pub flags: u8,
    /// Not 0 if fragments have overlapped: none is translated any more (RFC 5722 §4).
    pub spoiled: u8,
    /// Written as 0.
    pub reserved: [u8; 24],
}
