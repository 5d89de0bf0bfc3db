//! What an ICMPv4 error is in ICMPv6 (RFC 7915 §4.2).

use super::Mapped;
use crate::wire::{icmpv4, icmpv6};

/// Offset of the next header in an IPv6 header.
const NEXT_HEADER: u8 = 6;

/// The ICMPv6 error for an ICMPv4 one; `None` where there is none: source quench, redirects, missing
/// options, precedence cut-off, and what isn't known. The MTU of "fragmentation needed" is
/// [`super::mtu`]'s.
#[inline(always)]
#[must_use]
pub const fn to_ipv6(kind: u8, code: u8, pointer: u8) -> Option<Mapped> {
    match kind {
        icmpv4::UNREACHABLE => unreachable(code),
        icmpv4::TIME_EXCEEDED => Some(Mapped::plain(icmpv6::TIME_EXCEEDED, code)),
        // The pointer names the error, or a wrong length.
        icmpv4::PARAMETER_PROBLEM if code == 0 || code == 2 => match to_ipv6_pointer(pointer) {
            Some(pointer) => Some(Mapped {
                kind: icmpv6::PARAMETER_PROBLEM,
                code: icmpv6::ERRONEOUS_FIELD,
                pointer,
            }),
            None => None,
        },
        _ => None,
    }
}

#[inline(always)]
const fn unreachable(code: u8) -> Option<Mapped> {
    let code = match code {
        // Network and host, unknown or isolated, for this type of service or for all.
        0 | 1 | 5..=8 | 11 | 12 => icmpv6::NO_ROUTE,
        icmpv4::PROTOCOL => {
            return Some(Mapped {
                kind: icmpv6::PARAMETER_PROBLEM,
                code: icmpv6::UNKNOWN_NEXT_HEADER,
                pointer: NEXT_HEADER,
            });
        }
        icmpv4::PORT => icmpv6::PORT,
        icmpv4::FRAGMENTATION_NEEDED => return Some(Mapped::plain(icmpv6::PACKET_TOO_BIG, 0)),
        // Prohibited, by whatever policy.
        9 | 10 | 13 | 15 => icmpv6::PROHIBITED,
        _ => return None,
    };
    Some(Mapped::plain(icmpv6::UNREACHABLE, code))
}

/// The field of an IPv6 header for one of an IPv4 header (RFC 7915 figure 3); `None` for a field that
/// IPv6 doesn't have, and behind the header.
#[inline(always)]
const fn to_ipv6_pointer(pointer: u8) -> Option<u8> {
    match pointer {
        0 | 1 => Some(pointer),
        2 | 3 => Some(4),
        8 => Some(7),
        9 => Some(NEXT_HEADER),
        12..16 => Some(8),
        16..20 => Some(24),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table once more, as RFC 7915 §4.2 writes it: codes of "unreachable" with a counterpart.
    const UNREACHABLE: [(u8, (u8, u8, u8)); 15] = [
        (0, (1, 0, 0)),
        (1, (1, 0, 0)),
        (2, (4, 1, 6)),
        (3, (1, 4, 0)),
        (4, (2, 0, 0)),
        (5, (1, 0, 0)),
        (6, (1, 0, 0)),
        (7, (1, 0, 0)),
        (8, (1, 0, 0)),
        (9, (1, 1, 0)),
        (10, (1, 1, 0)),
        (11, (1, 0, 0)),
        (12, (1, 0, 0)),
        (13, (1, 1, 0)),
        (15, (1, 1, 0)),
    ];

    #[test]
    fn i5_i7_every_type_and_code() {
        let mut translated = 0;
        for kind in 0..=255u8 {
            for code in 0..=255u8 {
                let expected = match (kind, code) {
                    (3, _) => {
                        UNREACHABLE.iter().find(|(four, _)| *four == code).map(|(_, six)| *six)
                    }
                    (11, _) => Some((3, code, 0)),
                    (12, 0 | 2) => Some((4, 0, 0)),
                    _ => None,
                };
                let found =
                    to_ipv6(kind, code, 0).map(|mapped| (mapped.kind, mapped.code, mapped.pointer));
                assert_eq!(found, expected, "{kind}/{code}");
                translated += usize::from(found.is_some());
            }
        }
        assert_eq!(translated, UNREACHABLE.len() + 256 + 2);
    }

    #[test]
    fn i5_every_pointer() {
        for code in [0, 2] {
            for pointer in 0..=255u8 {
                let expected = match pointer {
                    0 => Some(0),
                    1 => Some(1),
                    2 | 3 => Some(4),
                    8 => Some(7),
                    9 => Some(6),
                    12..=15 => Some(8),
                    16..=19 => Some(24),
                    _ => None,
                };
                let found = to_ipv6(12, code, pointer);
                assert_eq!(found.map(|mapped| mapped.pointer), expected, "{pointer}");
                assert!(found.is_none_or(|mapped| (mapped.kind, mapped.code) == (4, 0)));
            }
        }
    }

    #[test]
    fn i5_only_a_parameter_problem_has_a_pointer() {
        for (kind, code) in [(3, 0), (3, 3), (3, 4), (11, 0), (11, 1)] {
            for pointer in 0..=255 {
                let mapped = to_ipv6(kind, code, pointer).expect("a counterpart");
                assert_eq!(mapped.pointer, 0, "{kind}/{code}");
            }
        }
    }
}
