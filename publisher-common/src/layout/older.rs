//! Layout 1, as far as it differs: its sessions are taken over, in the datapath on a miss and by the daemon
//! for the rest.
//!
//! It had more reserved bytes behind each entry, and less in its configuration. Keys, publications,
//! links, uplinks, host addresses and aliases have not changed, where what was reserved is 0.

use super::objects::{Config, Timeouts};
use super::session::{Forward, Reverse, Transient};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The layout's version.
pub const VERSION: u32 = 1;

/// Names of the maps by which the datapath reads it.
pub mod names {
    /// Its [`super::super::names::FORWARD`].
    pub const FORWARD: &str = "OLD_FORWARD";
    /// Its [`super::super::names::REVERSE`].
    pub const REVERSE: &str = "OLD_REVERSE";
    /// Its [`super::super::names::HALF_OPEN`].
    pub const HALF_OPEN: &str = "OLD_HALF_OPEN";
    /// Its [`super::super::names::CLOSING`].
    pub const CLOSING: &str = "OLD_CLOSING";
}

/// An established session, client to container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OldForward {
    /// The same as this layout has it.
    pub entry: Forward,
    /// Reserved.
    pub reserved_tail: [u8; 16],
}

/// An established session, container to client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OldReverse {
    /// The same as this layout has it.
    pub entry: Reverse,
    /// Reserved.
    pub reserved_tail: [u8; 24],
}

/// A session that is half-open or closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OldTransient {
    /// The same as this layout has it.
    pub entry: Transient,
    /// Reserved.
    pub reserved_tail: [u8; 24],
}

/// The configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OldConfig {
    /// See [`Config::pool`].
    pub pool: [u8; 4],
    /// See [`Config::pool_mask`].
    pub pool_mask: [u8; 4],
    /// See [`Config::key`].
    pub key: [u8; 16],
    /// See [`Config::gateway_first`].
    pub gateway_first: u16,
    /// See [`Config::gateway_last`].
    pub gateway_last: u16,
    /// See [`Timeouts::udp`].
    pub udp: u32,
    /// See [`Timeouts::tcp_established`].
    pub tcp_established: u32,
    /// See [`Timeouts::tcp_transitory`].
    pub tcp_transitory: u32,
    /// See [`Config::ready`].
    pub ready: u32,
    /// See [`Config::slow_lane`].
    pub slow_lane: u32,
    /// Reserved.
    pub reserved: [u8; 32],
}

impl OldConfig {
    /// The same in this layout; what it didn't have is as it was before there was a choice.
    #[must_use]
    pub fn renewed(&self) -> Config {
        Config {
            pool: self.pool,
            pool_mask: self.pool_mask,
            key: self.key,
            gateway_first: self.gateway_first,
            gateway_last: self.gateway_last,
            timeouts: Timeouts {
                udp: self.udp,
                tcp_established: self.tcp_established,
                tcp_transitory: self.tcp_transitory,
                ..Timeouts::default()
            },
            ready: self.ready,
            slow_lane: self.slow_lane,
            flags: 0,
            sessions_per_source: 0,
            aliases_per_source: 0,
            reserved: [0; 16],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::size_of;

    #[test]
    fn sizes_of_version_1() {
        assert_eq!(size_of::<OldForward>(), 96);
        assert_eq!(size_of::<OldReverse>(), 128);
        assert_eq!(size_of::<OldTransient>(), 144);
        assert_eq!(size_of::<OldConfig>(), 80);
    }

    /// Every byte differs, so that a field in the wrong place shows.
    fn counted<T: FromBytes, const N: usize>() -> T {
        let bytes: [u8; N] = core::array::from_fn(|index| index as u8 + 1);
        T::read_from_bytes(&bytes).expect("the size")
    }

    /// Where layout 1 had them.
    #[test]
    fn entries_begin_with_what_they_are_now() {
        let forward: OldForward = counted::<_, 96>();
        let reverse: OldReverse = counted::<_, 128>();
        let transient: OldTransient = counted::<_, 144>();
        let (forward_bytes, reverse_bytes) = (forward.as_bytes(), reverse.as_bytes());
        assert_eq!(forward.entry.session.as_bytes(), &forward_bytes[16..48]);
        assert_eq!(forward.entry.last_seen.as_bytes(), &forward_bytes[48..52]);
        assert_eq!(forward.entry.usage.as_bytes(), &forward_bytes[56..72]);
        assert_eq!(reverse.entry.last_seen.as_bytes(), &reverse_bytes[44..48]);
        assert_eq!(reverse.entry.session.as_bytes(), &reverse_bytes[48..80]);
        assert_eq!(reverse.entry.usage.as_bytes(), &reverse_bytes[80..96]);
        assert_eq!(transient.entry.session.as_bytes(), &transient.as_bytes()[48..80]);
        assert_eq!(transient.entry.received.as_bytes(), &transient.as_bytes()[96..112]);
    }

    #[test]
    fn a_configuration_keeps_what_it_said() {
        let old: OldConfig = counted::<_, 80>();
        let new = old.renewed();
        assert_eq!(new.as_bytes()[..40], old.as_bytes()[..40]);
        assert_eq!(new.timeouts.fragments, 5);
        assert_eq!((new.ready, new.slow_lane), (old.ready, old.slow_lane));
        assert_eq!(new.as_bytes()[52..], [0; 28]);
    }
}
