//! Who may open sessions, and how many: what the daemon sets, and what is counted.

use super::keys::ForwardKey;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A client's prefix in a publication's access rules, as the data of a longest-prefix key: prefix lengths
/// count from the first bit of `publication`, so a single client's is 160.
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
#[repr(C)]
pub struct AccessKey {
    /// The publication's number, big-endian; that of no publication, 0, for what holds for all of them.
    pub publication: [u8; 4],
    /// The client's address.
    pub client: [u8; 16],
}

impl AccessKey {
    /// Bits of `publication`, which every prefix covers.
    pub const PUBLICATION_BITS: u32 = 32;
    /// Bits of the key.
    pub const BITS: u32 = 160;

    /// The key of a client that asks for a publication.
    #[inline(always)]
    #[must_use]
    pub const fn new(publication: u32, client: [u8; 16]) -> Self {
        Self { publication: publication.to_be_bytes(), client }
    }
}

/// What an access rule says. The longest prefix decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rule {
    /// One of [`verdict`].
    pub verdict: u32,
    /// Until when it holds, seconds of the monotonic clock; 0 for a rule without an end.
    pub until: u32,
}

/// Values of [`Rule::verdict`].
pub mod verdict {
    /// The client may open sessions.
    pub const ALLOW: u32 = 0;
    /// It may not.
    pub const DENY: u32 = 1;
}

impl Rule {
    /// Whether the rule keeps a client out at time `now`.
    #[inline(always)]
    #[must_use]
    pub const fn denies(&self, now: u32) -> bool {
        let is_over = self.until != 0 && now.wrapping_sub(self.until) <= u32::MAX / 2;
        self.verdict == verdict::DENY && !is_over
    }
}

/// Where clients come from: a /64, which is what a single subscriber has at least (RFC 6177 §2).
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
#[repr(C, align(8))]
pub struct SourceKey {
    /// The first 64 bits of the client's address.
    pub prefix: [u8; 8],
    /// Interface index for link-local clients; 0 for others.
    pub scope: u32,
    /// Written as 0.
    pub reserved: [u8; 4],
}

impl SourceKey {
    /// Where the client of a flow comes from.
    #[inline(always)]
    #[must_use]
    pub const fn of(flow: &ForwardKey) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = flow.client;
        Self { prefix: [a, b, c, d, e, f, g, h], scope: flow.scope, reserved: [0; 4] }
    }
}

/// What a /64 has. It is noted when a session becomes established, so that a spoofed source can't fill
/// the table.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Source {
    /// Established sessions. Changed by both sides, so approximate for a moment; the daemon counts anew
    /// from time to time.
    pub sessions: u64,
    /// Aliases that are bound to its clients, counted likewise.
    pub aliases: u64,
}

/// What a publication has; the entry is the daemon's to make.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Use {
    /// Established sessions, counted as those of [`Source`].
    pub sessions: u64,
    /// Sessions that were opened in this second.
    pub opened: Window,
}

/// A /64's new sessions of one publication.
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
#[repr(C, align(8))]
pub struct RateKey {
    /// See [`SourceKey::prefix`].
    pub prefix: [u8; 8],
    /// See [`SourceKey::scope`].
    pub scope: u32,
    /// The publication's number.
    pub publication: u32,
}

/// How much has happened in a second.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Window {
    /// The second, of the monotonic clock.
    pub second: u32,
    /// How often.
    pub count: u32,
}

impl Window {
    /// Counts one more at time `now`; `false` where there were `limit` in this second.
    #[inline(always)]
    #[must_use]
    pub const fn take(&mut self, now: u32, limit: u32) -> bool {
        if self.second != now {
            (self.second, self.count) = (now, 0);
        }
        if self.count >= limit {
            return false;
        }
        self.count += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lets_so_many_through() {
        let mut window = Window::default();
        let taken = |window: &mut Window, now| (0..10).filter(|_| window.take(now, 3)).count();
        assert_eq!(taken(&mut window, 7), 3);
        assert_eq!(taken(&mut window, 7), 0);
        assert_eq!(taken(&mut window, 8), 3);
        assert!(!window.take(9, 0));
    }

    #[test]
    fn a_ban_ends_with_its_time() {
        let rule = Rule { verdict: verdict::DENY, until: 100 };
        assert!(rule.denies(0) && rule.denies(99));
        assert!(!rule.denies(100) && !rule.denies(5_000));
        assert!(Rule { until: 0, ..rule }.denies(u32::MAX));
        assert!(Rule { until: 5, ..rule }.denies(u32::MAX), "the clock comes round");
        assert!(!Rule { verdict: verdict::ALLOW, until: 0 }.denies(1));
    }
}
