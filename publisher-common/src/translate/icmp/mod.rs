//! ICMP errors of one family out of those of the other (RFC 7915 §4.2, §4.3, §5.2, §5.3).
//!
//! What an error says is a table ([`to_ipv4`], [`to_ipv6`]) and two rules about sizes ([`mtu`]). How
//! much of the packet that it is about goes along is a [`Shape`]; [`ipv4_error`] and [`ipv6_error`] make
//! the headers. The rest is copied as it is.

pub mod mtu;
mod shape;
mod to_ipv4;
mod to_ipv6;
mod write;

use zerocopy::FromZeros;

pub use shape::{ESSENTIAL, Shape};
pub use to_ipv4::to_ipv4;
pub use to_ipv6::to_ipv6;
pub use write::{
    Embedded, IPV4_BODY, IPV4_ERROR, IPV6_BODY, IPV6_ERROR, Outer, Parts, ipv4_error, ipv6_error,
};

/// What an error says: type, code and pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
pub struct Mapped {
    /// ICMP type.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// Offset of the field that a parameter problem is about; 0 for others.
    pub pointer: u8,
}

impl Mapped {
    #[inline(always)]
    const fn plain(kind: u8, code: u8) -> Self {
        Self { kind, code, pointer: 0 }
    }
}
