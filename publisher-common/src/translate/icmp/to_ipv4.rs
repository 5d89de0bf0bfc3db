//! What an ICMPv6 error is in ICMPv4 (RFC 7915 §5.2).

use super::Mapped;
use crate::wire::{icmpv4, icmpv6};

/// The ICMPv4 error for an ICMPv6 one; `None` where there is none. The MTU of "packet too big", whose
/// code means nothing (RFC 4443 §3.2), is [`super::mtu`]'s.
#[inline(always)]
#[must_use]
pub const fn to_ipv4(kind: u8, code: u8, pointer: u32) -> Option<Mapped> {
    match kind {
        icmpv6::UNREACHABLE => {
            let code = match code {
                icmpv6::NO_ROUTE | icmpv6::BEYOND_SCOPE | icmpv6::ADDRESS => icmpv4::HOST,
                icmpv6::PROHIBITED => icmpv4::HOST_PROHIBITED,
                icmpv6::PORT => icmpv4::PORT,
                _ => return None,
            };
            Some(Mapped::plain(icmpv4::UNREACHABLE, code))
        }
        icmpv6::PACKET_TOO_BIG => {
            Some(Mapped::plain(icmpv4::UNREACHABLE, icmpv4::FRAGMENTATION_NEEDED))
        }
        icmpv6::TIME_EXCEEDED => Some(Mapped::plain(icmpv4::TIME_EXCEEDED, code)),
        icmpv6::PARAMETER_PROBLEM => match code {
            icmpv6::ERRONEOUS_FIELD => match to_ipv4_pointer(pointer) {
                Some(pointer) => Some(Mapped { kind: icmpv4::PARAMETER_PROBLEM, code: 0, pointer }),
                None => None,
            },
            icmpv6::UNKNOWN_NEXT_HEADER => {
                Some(Mapped::plain(icmpv4::UNREACHABLE, icmpv4::PROTOCOL))
            }
            _ => None,
        },
        _ => None,
    }
}

/// The field of an IPv4 header for one of an IPv6 header (RFC 7915 figure 6); `None` for a field that
/// IPv4 doesn't have, and behind the header.
#[inline(always)]
const fn to_ipv4_pointer(pointer: u32) -> Option<u8> {
    match pointer {
        0 | 1 => Some(pointer as u8),
        4 | 5 => Some(2),
        6 => Some(9),
        7 => Some(8),
        8..24 => Some(12),
        24..40 => Some(16),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table once more, as RFC 7915 §5.2 writes it: types and codes that have a counterpart.
    const TABLE: [((u8, u8), (u8, u8)); 7] = [
        ((1, 0), (3, 1)),
        ((1, 1), (3, 10)),
        ((1, 2), (3, 1)),
        ((1, 3), (3, 1)),
        ((1, 4), (3, 3)),
        ((4, 0), (12, 0)),
        ((4, 1), (3, 2)),
    ];

    #[test]
    fn i2_i4_i7_every_type_and_code() {
        let mut translated = 0;
        for kind in 0..=255u8 {
            for code in 0..=255u8 {
                let expected = match kind {
                    2 => Some((3, 4)),
                    3 => Some((11, code)),
                    _ => TABLE.iter().find(|(six, _)| *six == (kind, code)).map(|(_, four)| *four),
                };
                let found = to_ipv4(kind, code, 0).map(|mapped| (mapped.kind, mapped.code));
                assert_eq!(found, expected, "{kind}/{code}");
                translated += usize::from(found.is_some());
            }
        }
        assert_eq!(translated, 256 + 256 + TABLE.len());
    }

    #[test]
    fn i4_every_pointer() {
        let listed: [(u8, &[u32]); 6] = [
            (0, &[0]),
            (1, &[1]),
            (2, &[4, 5]),
            (9, &[6]),
            (8, &[7]),
            (12, &[8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]),
        ];
        for pointer in (0..300).chain([0x100_0000, 0x0100_0006, u32::MAX]) {
            let listed = listed.iter().find(|(_, six)| six.contains(&pointer));
            let expected = match pointer {
                24..=39 => Some(16),
                _ => listed.map(|(four, _)| *four),
            };
            let found = to_ipv4(4, 0, pointer);
            assert_eq!(found.map(|mapped| mapped.pointer), expected, "{pointer}");
            assert!(found.is_none_or(|mapped| (mapped.kind, mapped.code) == (12, 0)));
        }
    }

    #[test]
    fn i4_only_a_parameter_problem_has_a_pointer() {
        for (kind, code) in [(1, 0), (1, 4), (2, 0), (3, 0), (3, 1), (4, 1)] {
            for pointer in [0, 6, 40, u32::MAX] {
                let mapped = to_ipv4(kind, code, pointer).expect("a counterpart");
                assert_eq!(mapped.pointer, 0, "{kind}/{code}");
            }
        }
    }
}
