//! The size that a path carries, as each side has to be told.

use crate::wire::{HEADER_GROWTH, IPV6_MINIMUM_MTU};

/// What the host's own links carry; `u32::MAX` where it isn't known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// IPv6 MTU of the client's uplink.
    pub uplink: u32,
    /// IPv4 MTU of the container link.
    pub link: u32,
}

/// The MTU of "fragmentation needed" for that of "packet too big": 20 bytes less, and never more than
/// either link carries (RFC 7915 §5.2).
///
/// A value below 1280 is taken as 1280, since no IPv6 link has less and RFC 8201 §4 forbids to act on
/// less.
#[inline(always)]
#[must_use]
pub const fn to_ipv4(mtu: u32, limits: &Limits) -> u16 {
    let path = least(at_least(mtu, IPV6_MINIMUM_MTU), at_least(limits.uplink, IPV6_MINIMUM_MTU));
    let limit = least(least(path - HEADER_GROWTH, limits.link), u16::MAX as u32);
    limit as u16
}

/// The MTU of "packet too big" for that of "fragmentation needed" about a packet of `total` bytes: 20
/// bytes more, never more than either link carries and never below 1280 (RFC 7915 §4.2).
///
/// An MTU of 0 comes from a router that doesn't know of RFC 1191: the path's is estimated.
#[inline(always)]
#[must_use]
pub const fn to_ipv6(mtu: u16, total: u16, limits: &Limits) -> u32 {
    let mtu = if mtu == 0 { plateau(total) } else { mtu } as u32;
    let limit = least(least(mtu, limits.link) + HEADER_GROWTH, limits.uplink);
    at_least(limit, IPV6_MINIMUM_MTU)
}

/// The greatest plateau of RFC 1191 §7.1 below the length of a packet that didn't fit; 0 where that
/// is less than IPv6 allows anyway.
#[inline(always)]
const fn plateau(total: u16) -> u16 {
    match total {
        32_001.. => 32_000,
        17_915.. => 17_914,
        8_167.. => 8_166,
        4_353.. => 4_352,
        2_003.. => 2_002,
        1_493.. => 1_492,
        _ => 0,
    }
}

#[inline(always)]
const fn least(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}

#[inline(always)]
const fn at_least(a: u32, b: u32) -> u32 {
    if a > b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Limits = Limits { uplink: u32::MAX, link: u32::MAX - HEADER_GROWTH };

    #[test]
    fn i3_too_big_becomes_fragmentation_needed() {
        for (mtu, expected) in [
            (0, 1_260),
            (1, 1_260),
            (19, 1_260),
            (20, 1_260),
            (1_259, 1_260),
            (1_260, 1_260),
            (1_279, 1_260),
            (1_280, 1_260),
            (1_281, 1_261),
            (1_400, 1_380),
            (1_500, 1_480),
            (65_535, 65_515),
            (65_554, 65_534),
            (65_555, 65_535),
            (65_556, 65_535),
            (u32::MAX, 65_535),
        ] {
            assert_eq!(to_ipv4(mtu, &NONE), expected, "{mtu}");
        }
    }

    #[test]
    fn i3_the_hosts_own_links_are_limits_too() {
        for (mtu, uplink, link, expected) in [
            (9_000, 1_500, 9_000, 1_480),
            (9_000, 9_000, 1_500, 1_500),
            (9_000, 1_500, 1_480, 1_480),
            (9_000, 1_500, 1_479, 1_479),
            (1_400, 1_500, 1_300, 1_300),
            (1_280, 1_500, 1_000, 1_000),
            (1_400, 0, 1_500, 1_260),
            (9_000, 1_000, 1_500, 1_260),
        ] {
            let limits = Limits { uplink, link };
            assert_eq!(to_ipv4(mtu, &limits), expected, "{mtu} {limits:?}");
        }
    }

    #[test]
    fn i6_fragmentation_needed_becomes_too_big() {
        for (mtu, expected) in [
            (1, 1_280),
            (19, 1_280),
            (20, 1_280),
            (1_259, 1_280),
            (1_260, 1_280),
            (1_261, 1_281),
            (1_400, 1_420),
            (1_500, 1_520),
            (65_535, 65_555),
        ] {
            assert_eq!(to_ipv6(mtu, 1_500, &NONE), expected, "{mtu}");
        }
    }

    #[test]
    fn i6_the_hosts_own_links_are_limits_too() {
        for (mtu, uplink, link, expected) in [
            (9_000, 1_500, 9_000, 1_500),
            (9_000, 9_000, 1_500, 1_520),
            (1_400, 1_500, 1_300, 1_320),
            (1_400, 1_410, 1_500, 1_410),
            (1_400, 1_000, 1_500, 1_280),
            (1_400, 1_500, 576, 1_280),
        ] {
            let limits = Limits { uplink, link };
            assert_eq!(to_ipv6(mtu, 9_000, &limits), expected, "{mtu} {limits:?}");
        }
    }

    /// RFC 1191 §7.1, table 7-1.
    const PLATEAUS: [u32; 11] =
        [65_535, 32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 508, 296, 68];

    #[test]
    fn i6_without_an_mtu_the_plateau_below_the_packets_length() {
        for total in 0..=u16::MAX {
            let below = PLATEAUS.iter().find(|plateau| **plateau < u32::from(total));
            let expected = below.map_or(0, |plateau| plateau + 20).max(1_280);
            assert_eq!(to_ipv6(0, total, &NONE), expected, "{total}");
        }
    }

    #[test]
    fn i3_i6_no_mtu_overflows_or_underflows() {
        let values = [0, 1, 19, 20, 1_279, 1_280, 65_535, u32::MAX - 20, u32::MAX];
        for mtu in values {
            for uplink in values {
                for link in values {
                    let limits = Limits { uplink, link: link.min(u32::MAX - HEADER_GROWTH) };
                    let four = u32::from(to_ipv4(mtu, &limits));
                    assert!(four <= limits.link && four <= uplink.max(1_280) - 20);
                    let six = to_ipv6(mtu as u16, 1_500, &limits);
                    assert!(six >= 1_280 && (six == 1_280 || six <= uplink));
                }
            }
        }
    }
}
