//! The layout of the maps: names, keys, values and sizes. Version [`VERSION`].
//!
//! Maps outlive the daemon: they are pinned under a directory named after the version, so a change
//! of any type here, or of what a field means, needs a new version. Every value ends in reserved
//! bytes, which are written as 0 and may be given a meaning for which 0 is right.
//!
//! Addresses, ports and everything else that comes from a packet are kept as the bytes of the
//! packet (big-endian). Indices, counters and times are in host order; times are seconds of the
//! monotonic clock. There is no padding: `zerocopy::IntoBytes` refuses it at compile time.

mod access;
mod fragment;
mod keys;
mod objects;
pub mod older;
#[cfg(feature = "user")]
mod pod;
mod record;
mod session;

pub use access::{AccessKey, RateKey, Rule, Source, SourceKey, Use, Window, verdict};
pub use fragment::{Datagram, FragmentKey, RANGES, Range};
pub use keys::{
    Class, ForwardKey, LOOPBACK, LocalKey, PublicationKey, ReplyKey, address_scope, origin,
};
pub use objects::{
    Alias, Config, Link, Publication, Timeouts, Uplink, config_flags, link_flags,
    publication_flags, source_mode, uplink_flags,
};
pub use record::{Record, record_kind};
pub use session::{Forward, Handle, Reverse, Session, State, Transient, Usage, session_flags};

/// Version of the layout; part of the pin directory's name.
pub const VERSION: u32 = 2;

/// Counters of dropped packets, one per [`crate::reason::Reason`].
pub const DROP_COUNTERS: u32 = 64;
/// Words of 64 bits in the bitmap of published ports: TCP ports first, then UDP.
pub const PORT_WORDS: u32 = 2 * 65_536 / 64;
/// Targets that can be published at once.
pub const LINKS: u32 = 16_384;
/// Interfaces that clients arrive on.
pub const UPLINKS: u32 = 1_024;
/// Publications, one per port and protocol and host address.
pub const PUBLICATIONS: u32 = 131_072;
/// Prefixes of the host's own addresses.
pub const LOCALS: u32 = 16_384;
/// Default capacity of each table of established sessions, and of the table of aliases.
pub const SESSIONS: u32 = 262_144;
/// Default capacity of the table of half-open sessions: at the rate of a flood, they must live for longer
/// than a client takes to answer.
pub const HALF_OPEN: u32 = 262_144;
/// Default capacity of the table of closing sessions.
pub const CLOSING: u32 = 65_536;
/// Access rules of all publications.
pub const RULES: u32 = 131_072;
/// Publications and /64s of which new sessions are counted at once.
pub const RATES: u32 = 65_536;
/// Slots that say which flows may have another tuple than their first candidate; a power of 2.
pub const DISPLACED_SLOTS: u32 = 65_536;
/// Bytes of the session log that wait for the daemon.
pub const EVENT_BYTES: u32 = 4 << 20;
/// Datagrams in fragments that are kept track of at once, in each direction.
pub const DATAGRAMS: u32 = 4_096;

/// Names of the maps, which are also the names of their pins.
pub mod names {
    /// Array of one [`super::Config`].
    pub const CONFIG: &str = "CONFIG";
    /// Array of [`super::PORT_WORDS`] words: the bitmap of published ports.
    pub const PORTS: &str = "PORTS";
    /// Longest-prefix trie of [`super::LocalKey`]: the host's own addresses.
    pub const LOCALS: &str = "LOCALS";
    /// Hash of [`super::PublicationKey`] to [`super::Publication`].
    pub const PUBLICATIONS: &str = "PUBLICATIONS";
    /// Array of [`super::Link`].
    pub const LINKS: &str = "LINKS";
    /// Hash of interface index to [`super::Uplink`].
    pub const UPLINKS: &str = "UPLINKS";
    /// Hash of [`super::ForwardKey`] to [`super::Forward`]: established sessions, client to container.
    pub const FORWARD: &str = "FORWARD";
    /// Hash of [`super::ReplyKey`] to [`super::Reverse`]: established sessions, container to client.
    pub const REVERSE: &str = "REVERSE";
    /// LRU hash of [`super::ReplyKey`] to [`super::Transient`]: sessions not yet established.
    pub const HALF_OPEN: &str = "HALF_OPEN";
    /// LRU hash of [`super::ReplyKey`] to [`super::Transient`]: sessions that are ending.
    pub const CLOSING: &str = "CLOSING";
    /// Hash of IPv4 address to [`super::Alias`].
    pub const ALIASES: &str = "ALIASES";
    /// LRU hash of [`super::FragmentKey`] to [`super::Datagram`]: fragments to containers.
    pub const FRAGMENTS_IN: &str = "FRAGMENTS_IN";
    /// LRU hash of [`super::FragmentKey`] to [`super::Datagram`]: fragments to clients.
    pub const FRAGMENTS_OUT: &str = "FRAGMENTS_OUT";
    /// Per-CPU array of packet counters, one per [`crate::reason::Reason`].
    pub const DROPS: &str = "DROPS";
    /// Longest-prefix trie of [`super::AccessKey`] to [`super::Rule`].
    pub const ACCESS: &str = "ACCESS";
    /// Hash of a publication's number to [`super::Use`].
    pub const USES: &str = "USES";
    /// Hash of [`super::SourceKey`] to [`super::Source`].
    pub const SOURCES: &str = "SOURCES";
    /// LRU hash of [`super::RateKey`] to [`super::Window`].
    pub const RATES: &str = "RATES";
    /// Array of the seconds of the monotonic clock at which a flow of each slot
    /// ([`super::ForwardKey::slot`]) was last seen, half-open or closing, at another tuple than its first
    /// candidate.
    pub const DISPLACED: &str = "DISPLACED";
    /// Ring buffer of [`super::Record`].
    pub const EVENTS: &str = "EVENTS";
    /// Per-CPU array of one counter: records that found no room.
    pub const EVENTS_LOST: &str = "EVENTS_LOST";

    /// All of them.
    pub const ALL: [&str; 21] = [
        CONFIG,
        PORTS,
        LOCALS,
        PUBLICATIONS,
        LINKS,
        UPLINKS,
        FORWARD,
        REVERSE,
        HALF_OPEN,
        CLOSING,
        ALIASES,
        FRAGMENTS_IN,
        FRAGMENTS_OUT,
        DROPS,
        ACCESS,
        USES,
        SOURCES,
        RATES,
        DISPLACED,
        EVENTS,
        EVENTS_LOST,
    ];
}

/// Where a port's bit is in the bitmap of published ports: the word's index and the bit in it.
#[inline(always)]
#[must_use]
pub const fn port_bit(protocol: u8, port: [u8; 2]) -> (u32, u64) {
    let port = u16::from_be_bytes(port) as u32;
    let base = if protocol == crate::wire::protocol::UDP { PORT_WORDS / 2 } else { 0 };
    (base + port / 64, 1 << (port % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::protocol::{TCP, UDP};
    use core::mem::size_of;

    /// A change of a size is a change of the layout: raise `VERSION` with it.
    #[test]
    fn sizes_of_version_2() {
        assert_eq!(VERSION, 2);
        let sizes = [
            ("ForwardKey", size_of::<ForwardKey>(), 44),
            ("ReplyKey", size_of::<ReplyKey>(), 16),
            ("PublicationKey", size_of::<PublicationKey>(), 24),
            ("LocalKey", size_of::<LocalKey>(), 20),
            ("Forward", size_of::<Forward>(), 80),
            ("Reverse", size_of::<Reverse>(), 104),
            ("Transient", size_of::<Transient>(), 120),
            ("FragmentKey", size_of::<FragmentKey>(), 44),
            ("Datagram", size_of::<Datagram>(), 120),
            ("Publication", size_of::<Publication>(), 40),
            ("Link", size_of::<Link>(), 56),
            ("Uplink", size_of::<Uplink>(), 16),
            ("Alias", size_of::<Alias>(), 40),
            ("Config", size_of::<Config>(), 80),
            ("AccessKey", size_of::<AccessKey>(), 20),
            ("Rule", size_of::<Rule>(), 8),
            ("SourceKey", size_of::<SourceKey>(), 16),
            ("Source", size_of::<Source>(), 16),
            ("Use", size_of::<Use>(), 16),
            ("RateKey", size_of::<RateKey>(), 16),
            ("Window", size_of::<Window>(), 8),
            ("Record", size_of::<Record>(), 120),
        ];
        for (name, size, expected) in sizes {
            assert_eq!(size, expected, "{name}");
        }
    }

    #[test]
    fn every_port_has_a_bit_of_its_own() {
        let mut seen = std::vec![0u64; PORT_WORDS as usize];
        for protocol in [TCP, UDP] {
            for port in 0..=u16::MAX {
                let (word, bit) = port_bit(protocol, port.to_be_bytes());
                assert_eq!(seen[word as usize] & bit, 0, "{protocol} {port}");
                seen[word as usize] |= bit;
            }
        }
        assert!(seen.iter().all(|word| *word == u64::MAX));
    }
}
