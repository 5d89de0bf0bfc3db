//! Room for what is too large for the stack.

use super::extension::Extras;
use super::to_container::Route;
use super::{Answer, Detour, ToClient, ToContainer, Transport};
use crate::alias::Candidates;
use crate::layout::{
    Alias, Datagram, Forward, ForwardKey, FragmentKey, Publication, Record, ReplyKey, Reverse,
    Transient,
};
use crate::packet::Arrival;
use crate::reason::Reason;
use crate::wire::IPV6_LENGTH;
use zerocopy::FromZeros;

/// What a decision needs room for while it is made.
///
/// All the functions that are active in a BPF program share 512 bytes of stack, less than two map
/// values. The datapath keeps one of these per CPU; nothing in it outlives the decision. What a packet
/// of an established session needs comes first and stands together, in few lines of the cache.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C)]
pub struct Workspace {
    /// The client's flow: of the packet itself, or of the packet that a reply belongs to.
    pub(super) flow: ForwardKey,
    /// The container's flow.
    pub(super) reply: ReplyKey,
    /// The transport header.
    pub(super) transport: Transport,
    /// What the kernel says about the packet.
    pub(super) arrival: Arrival,
    /// What stands between the IP header and the transport header.
    pub extras: Extras,
    /// Length of the packet behind its IP header, as the header says; a container's fragment's from
    /// the transport header on.
    pub(super) payload: u16,
    /// Hop limit of a client's packet.
    pub(super) hops: u8,
    /// The checksum that a container's datagram without one is given; 0 for none.
    pub(super) seed: [u8; 2],
    /// Where the session's packets go.
    pub(super) route: Route,
    /// The way of a container's packet that is to be fragmented.
    pub(super) detour: Detour,
    /// The size that a client is told with [`super::Answer::TooBig`].
    pub(super) told_mtu: u32,
    /// The decision about a client's packet.
    pub to_container: ToContainer,
    /// The decision about a container's packet.
    pub to_client: ToClient,
    /// The datagram that a fragment belongs to.
    pub(super) fragment_key: FragmentKey,
    /// What is known of it, or a new entry.
    pub(super) datagram: Datagram,
    /// What the packet asks for.
    pub(super) publication: Publication,
    /// What it may be given.
    pub(super) candidates: Candidates,
    /// Which of these is looked at, or was found or taken.
    pub(super) candidate: u32,
    /// Whether the client may open a session.
    pub(super) may_open: bool,
    /// Why it may not.
    pub(super) refusal: Reason,
    /// Whether it may have an alias to itself.
    pub(super) may_bind: bool,
    /// A new entry.
    pub(super) transient: Transient,
    /// A new entry.
    pub(super) forward: Forward,
    /// A new entry.
    pub(super) reverse: Reverse,
    /// A new entry.
    pub(super) alias: Alias,
    /// A new entry of the session log.
    pub(super) record: Record,
    /// The flow as its answers have it.
    pub(super) turned: ForwardKey,
}

impl Workspace {
    /// Room for one decision.
    #[must_use]
    pub fn new() -> Self {
        Self::new_zeroed()
    }

    /// The datagram of a fragment that was decided on.
    #[inline(always)]
    #[must_use]
    pub const fn fragment_key(&self) -> &FragmentKey {
        &self.fragment_key
    }

    /// The number that goes with what a client is told: the size, or the offset of the field that is
    /// to blame.
    #[inline(always)]
    #[must_use]
    pub const fn told(&self, answer: Answer) -> u32 {
        match answer {
            Answer::TooBig => self.told_mtu,
            Answer::RoutingHeader => IPV6_LENGTH as u32 + self.extras.segments_left as u32,
            Answer::TimeExceeded | Answer::SourceRoute | Answer::Exhausted => 0,
        }
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}
