//! The session log, as the datapath writes it.

use super::keys::{ForwardKey, ReplyKey};
use super::session::{Handle, Usage};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Something that happened to a session (RFC 6146 §5, RFC 6888 REQ-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Record {
    /// What the client has sent.
    pub sent: Usage,
    /// What the container has sent.
    pub received: Usage,
    /// The client's flow.
    pub forward: ForwardKey,
    /// When it happened, seconds of the monotonic clock.
    pub at: u32,
    /// The container's flow.
    pub reply: ReplyKey,
    /// The publication.
    pub publication: Handle,
    /// When the session was opened, seconds of the monotonic clock.
    pub created: u32,
    /// Interface index of the uplink.
    pub uplink: u32,
    /// One of [`record_kind`].
    pub kind: u8,
    /// Written as 0.
    pub reserved: [u8; 7],
}

/// Values of [`Record::kind`].
pub mod record_kind {
    /// It was established.
    pub const OPENED: u8 = 1;
    /// It was ended by a RST, and went on all the same.
    pub const RESUMED: u8 = 2;
    /// Both sides have sent a FIN.
    pub const FINISHED: u8 = 3;
    /// One side has sent a RST.
    pub const RESET: u8 = 4;
    /// Its container link is gone, or its target has moved.
    pub const TARGET_GONE: u8 = 5;
}
