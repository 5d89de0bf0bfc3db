//! What happens to a packet: the decision as a value, for TC to carry out.
//!
//! Client to container: [`to_container::decide`], and [`errors::from_client`] for ICMPv6. Container
//! to client: [`to_client::decide`], and [`errors::from_container`] for ICMP. A packet that is
//! nobody's but the host's is [`Stop::Pass`], and nothing has been changed by then.

mod access;
mod address;
mod close;
pub mod errors;
mod establish;
mod extension;
mod fragments;
mod open;
mod options;
pub mod state;
#[cfg(test)]
mod tests;
pub mod to_client;
pub mod to_container;
mod transport;
mod work;

use crate::layout::{Link, link_flags};
use crate::reason::Reason;
use crate::translate::TransportRewrite;
use core::mem::size_of;
use zerocopy::FromZeros;

pub use address::from_host;
pub use extension::{Extras, Fragment};
pub use fragments::Way;
pub use transport::Transport;
pub use work::Workspace;

/// A packet goes no further through the translator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It isn't ours: the host's stack gets it as it came.
    Pass,
    /// A client's fragment that may be ours, once the first one of its datagram has come: the host's stack
    /// gets it as it came, and a copy is kept under [`Workspace::fragment_key`].
    Hold,
    /// It is ours, and is dropped.
    Drop(Reason),
    /// It is ours, and is dropped; its sender is told [`Answer::TimeExceeded`].
    TimeExceeded,
    /// It is ours, and is dropped; its sender is told [`Answer::TooBig`].
    TooBig,
    /// It is ours, and is dropped; its sender is told [`Answer::RoutingHeader`].
    RoutingHeader,
    /// It is ours, and is dropped; its sender is told [`Answer::SourceRoute`].
    SourceRoute,
    /// It is ours, and is dropped; its sender is told [`Answer::Exhausted`].
    Exhausted,
}

impl Stop {
    /// What the packet's sender is told. A function rather than a variant's value: with one value
    /// among the variants, a `Stop` has four bytes, and comes back in a register.
    #[inline(always)]
    #[must_use]
    pub const fn answer(self) -> Option<Answer> {
        match self {
            Self::TimeExceeded => Some(Answer::TimeExceeded),
            Self::TooBig => Some(Answer::TooBig),
            Self::RoutingHeader => Some(Answer::RoutingHeader),
            Self::SourceRoute => Some(Answer::SourceRoute),
            Self::Exhausted => Some(Answer::Exhausted),
            Self::Pass | Self::Hold | Self::Drop(_) => None,
        }
    }
}

const _: () = assert!(size_of::<Decision<()>>() == 4);

/// What the sender of a packet is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Answer {
    /// The hop limit or TTL would reach 0.
    TimeExceeded,
    /// The next link doesn't carry a packet of this size.
    TooBig,
    /// To a client: an IPv6 routing header isn't used up.
    RoutingHeader,
    /// To a container: an IPv4 source route isn't used up.
    SourceRoute,
    /// To a client: no alias and port is left (RFC 6146 §3.5.1.1).
    Exhausted,
}

impl Answer {
    /// The answer with this number.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::TimeExceeded),
            1 => Some(Self::TooBig),
            2 => Some(Self::RoutingHeader),
            3 => Some(Self::SourceRoute),
            4 => Some(Self::Exhausted),
            _ => None,
        }
    }

    /// Why the packet itself was dropped.
    #[inline(always)]
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::TimeExceeded => Reason::HopLimit,
            Self::TooBig => Reason::TooBig,
            Self::RoutingHeader => Reason::RoutingHeader,
            Self::SourceRoute => Reason::Ipv4Options,
            Self::Exhausted => Reason::Exhausted,
        }
    }
}

/// What to do with a packet, or why nothing is done.
///
/// It carries small numbers only, no reference and no large value (those go to the [`Workspace`]):
/// the compiler lays the value over the reason, and computes with the one where the verifier sees
/// the other. Hence also `let … else` where `ok_or` would be shorter.
pub type Decision<T> = Result<T, Stop>;

/// Where a translated packet goes to the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
#[repr(u32)]
pub enum Exit {
    /// Into the container, through the host's side of its veth.
    Peer(u32),
    /// Out of an interface of the host, to the neighbour that the route to the target names.
    Neighbour(u32),
}

impl Exit {
    /// The way that a link allows.
    #[inline(always)]
    #[must_use]
    pub const fn of(link: &Link) -> Self {
        if link.flags & link_flags::PEER != 0 {
            Self::Peer(link.veth)
        } else {
            Self::Neighbour(link.device)
        }
    }
}

/// A client's packet as the container gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
pub struct ToContainer {
    /// The IPv4 header, in place of the IPv6 header.
    pub header: [u8; 20],
    /// Bytes of extension headers behind the IPv6 header, which go.
    pub extra: u16,
    /// What changes behind it.
    pub transport: TransportRewrite,
    /// Where it goes.
    pub exit: Exit,
    /// Ethernet addresses for an uplink that has none: the container's, then the link's.
    pub ethernet: [[u8; 6]; 2],
    /// Whether it is the first fragment of its datagram: copies of others may be kept, under
    /// [`Workspace::fragment_key`].
    pub leads: bool,
}

/// A container's packet as the client gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
pub struct ToClient {
    /// The IPv6 header, in place of the IPv4 header.
    pub header: [u8; 40],
    /// Bytes of options behind the IPv4 header, which go.
    pub extra: u16,
    /// In how many IPv6 fragments it goes out; 0 for a packet that is none.
    pub pieces: u16,
    /// The Fragment header behind the IPv6 header, where it has one.
    pub fragment: [u8; 8],
    /// What changes behind it.
    pub transport: TransportRewrite,
    /// The interface that the client came in on.
    pub uplink: Uplink,
    /// The way by the slow lane.
    pub detour: Detour,
}

/// The way of a packet that is to be fragmented, and isn't a fragment yet: by a pair of interfaces that
/// completes its checksum and segments super-packets, to the program at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
pub struct Detour {
    /// Interface index of the way in; 0 for a packet that doesn't go that way.
    pub ifindex: u32,
    /// Identification of the IPv4 packet.
    pub identification: [u8; 2],
    /// Whether it is a super-packet, whose segments need a number each.
    pub segmented: bool,
}

impl Detour {
    /// None.
    pub const NONE: Self = Self { ifindex: 0, identification: [0; 2], segmented: false };
}

/// The interface that a reply leaves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
pub struct Uplink {
    /// Interface index.
    pub ifindex: u32,
    /// Whether it has no Ethernet header.
    pub raw: bool,
    /// Whether the client is on this host: the reply goes in by the interface rather than out.
    pub to_host: bool,
}
