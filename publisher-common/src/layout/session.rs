//! What is kept of a session.
//!
//! An established session has an entry for each direction, so that a packet needs one look-up and
//! data packets write their own direction's entry only. A session that isn't established has one
//! [`Transient`] entry under its reply key; the client's direction is derived again.

use super::keys::{ForwardKey, ReplyKey};
use crate::packet::Arrival;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// State of a session, the TCP states of RFC 6146 §3.5.2 (UDP knows the first two).
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct State(pub u8);

impl State {
    /// There is no session.
    pub const CLOSED: Self = Self(0);
    /// The client has sent, and has not proved yet that it gets our answers.
    pub const V6_INIT: Self = Self(1);
    /// Both directions are open.
    pub const ESTABLISHED: Self = Self(2);
    /// The client has sent a FIN.
    pub const V6_FIN_RCV: Self = Self(3);
    /// The container has sent a FIN.
    pub const V4_FIN_RCV: Self = Self(4);
    /// Both have sent a FIN.
    pub const V4_FIN_V6_FIN_RCV: Self = Self(5);
    /// One side has sent a RST: ends soon, unless other packets follow.
    pub const TRANS: Self = Self(6);

    /// The state's name, as `publisherctl sessions` prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CLOSED => "closed",
            Self::V6_INIT => "half-open",
            Self::ESTABLISHED => "established",
            Self::V6_FIN_RCV => "v6-fin",
            Self::V4_FIN_RCV => "v4-fin",
            Self::V4_FIN_V6_FIN_RCV => "closing",
            Self::TRANS => "trans",
            Self(_) => "unknown",
        }
    }
}

/// Bits of [`Session::flags`].
pub mod session_flags {
    /// The uplink has no Ethernet header (tun, WireGuard).
    pub const RAW_UPLINK: u8 = 1 << 0;
    /// The container has answered.
    pub const REPLIED: u8 = 1 << 1;
    /// The client has sent a FIN.
    pub const CLIENT_FIN: u8 = 1 << 2;
    /// The container has sent a FIN.
    pub const CONTAINER_FIN: u8 = 1 << 3;
    /// The session's tuple isn't the first candidate of its flow (see `alias`).
    pub const DISPLACED: u8 = 1 << 4;
}

/// A numbered object and which one of those that had the number in turn.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Handle {
    /// The number.
    pub index: u32,
    /// Raised each time the number comes to mean something else.
    pub generation: u32,
}

/// What both directions know of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Session {
    /// The container link, an index of the map of links.
    pub link: Handle,
    /// The publication it was opened by.
    pub publication: Handle,
    /// Interface index of the uplink that the client came in on.
    pub uplink: u32,
    /// When it was opened.
    pub created: u32,
    /// The container's initial sequence number (TCP), host order; valid once it has answered.
    pub container_isn: u32,
    /// The state.
    pub state: State,
    /// The bits of [`session_flags`].
    pub flags: u8,
    /// Written as 0.
    pub reserved: [u8; 2],
}

/// What one direction has carried.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Usage {
    /// Packets on the wire: a super-packet counts as its segments.
    pub packets: u64,
    /// Bytes from the network header on, as they arrived.
    pub bytes: u64,
}

impl Usage {
    /// Counts a packet.
    #[inline(always)]
    pub fn count(&mut self, arrival: &Arrival) {
        self.packets = self.packets.wrapping_add(arrival.segments() as u64);
        self.bytes = self.bytes.wrapping_add(arrival.length as u64);
    }
}

/// An established session, client to container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Forward {
    /// The other direction's key: source and destination of the translated packet.
    pub reply: ReplyKey,
    /// What both directions know.
    pub session: Session,
    /// When this direction last carried a packet.
    pub last_seen: u32,
    /// Written as 0.
    pub reserved: [u8; 4],
    /// What this direction has carried.
    pub usage: Usage,
    /// Written as 0.
    pub reserved_tail: [u8; 8],
}

/// An established session, container to client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Reverse {
    /// The other direction's key: destination and source of the translated packet.
    pub forward: ForwardKey,
    /// When this direction last carried a packet.
    pub last_seen: u32,
    /// What both directions know.
    pub session: Session,
    /// What this direction has carried.
    pub usage: Usage,
    /// Written as 0.
    pub reserved_tail: [u8; 8],
}

/// A session that is half-open or closing, both directions in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Transient {
    /// The client's side of the flow.
    pub forward: ForwardKey,
    /// When either direction last carried a packet.
    pub last_seen: u32,
    /// What both directions know.
    pub session: Session,
    /// What the client has sent.
    pub sent: Usage,
    /// What the container has sent.
    pub received: Usage,
    /// Written as 0.
    pub reserved_tail: [u8; 8],
}
