//! The extension headers of a client's packet (RFC 8200 §4).
//!
//! They have no counterpart in IPv4: the translator takes them out and translates what is left
//! (RFC 7915 §5.1), but for the Fragment header, whose fields IPv4 has too (§5.1.1).

use crate::checksum::Difference;
use crate::packet::Packet;
use crate::wire::{FRAGMENT_LENGTH, FragmentHeader, IPV6_LENGTH, Ipv4Header, protocol};
use zerocopy::FromZeros;

/// Extension headers that are walked before giving up.
const HEADERS: usize = 8;
/// Bytes of extension headers that are walked before giving up.
const LONGEST: u16 = 1_024;

/// What a packet is of its datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromZeros)]
pub struct Fragment {
    /// Whether it has a Fragment header (IPv6), or is less than its datagram (IPv4).
    pub is_some: bool,
    /// Whether more fragments follow.
    pub more: bool,
    /// Where in the datagram's payload it starts, in bytes.
    pub offset: u16,
    /// Identification, big-endian; that of IPv4 in the last two bytes.
    pub identification: [u8; 4],
}

impl Fragment {
    /// A whole packet.
    pub const NONE: Self = Self { is_some: false, more: false, offset: 0, identification: [0; 4] };

    /// What a Fragment header says.
    #[inline(always)]
    #[must_use]
    pub const fn of_ipv6(header: &FragmentHeader) -> Self {
        let field = u16::from_be_bytes(header.offset_more);
        Self {
            is_some: true,
            more: field & FragmentHeader::MORE != 0,
            offset: field & FragmentHeader::OFFSET,
            identification: header.identification,
        }
    }

    /// What an IPv4 header says.
    #[inline(always)]
    #[must_use]
    pub const fn of_ipv4(header: &Ipv4Header) -> Self {
        let field = u16::from_be_bytes(header.flags_offset);
        let [high, low] = header.identification;
        Self {
            is_some: header.is_fragment(),
            more: field & Ipv4Header::MORE_FRAGMENTS != 0,
            offset: (field & Ipv4Header::OFFSET) * 8,
            identification: [0, 0, high, low],
        }
    }
}

/// Where a walk along extension headers has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
#[repr(u32)]
pub enum Progress {
    /// It isn't over.
    Walking,
    /// TCP or UDP, or what follows a later fragment's header: nobody can read that.
    Transport,
    /// Anything else: another protocol, or a chain that is cut off or too long.
    Lost,
}

/// Why a packet with these extension headers can't be translated, even if it is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
#[repr(u32)]
pub enum Obstacle {
    /// It can.
    None,
    /// An authentication header: what it protects would change (rule H8).
    Authentication,
    /// A routing header with segments left (rule H6): this host isn't the packet's destination.
    Routing,
    /// An extension header behind a Fragment header (rule H8).
    BehindFragment,
    /// Hop-by-hop options elsewhere than right behind the IPv6 header (RFC 8200 §4.1).
    Misplaced,
    /// An IPv4 source route that isn't used up (rule G2): this host isn't the packet's destination.
    SourceRoute,
    /// IPv4 options that can't be read.
    Options,
}

/// What stands between the IP header and the transport header: IPv6 extension headers, as far as they
/// were walked, or IPv4 options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
pub struct Extras {
    /// Protocol number of what follows.
    pub next: u8,
    /// Bytes of the extras.
    pub length: u16,
    /// Where the walk has come to.
    pub progress: Progress,
    /// What stands in the way of translating the packet.
    pub obstacle: Obstacle,
    /// With [`Obstacle::Routing`], where its Segments Left field stands behind the IPv6 header.
    pub segments_left: u16,
    /// The Fragment header in it, or the fragment fields of the IPv4 header.
    pub fragment: Fragment,
    /// The sum of IPv4 options, which are part of the header's checksum.
    pub sum: Difference,
}

impl Extras {
    /// Nothing stands there. What isn't there already stays as it is: for a run of zeros the compiler
    /// would call a function that writes them byte by byte, for every packet.
    #[inline(always)]
    pub fn clear(&mut self, next: u8) {
        self.next = next;
        if self.length != 0 || self.fragment.is_some || self.obstacle != Obstacle::None {
            self.length = 0;
            self.obstacle = Obstacle::None;
            self.fragment = Fragment::NONE;
            self.sum = Difference::new();
        }
    }
}

/// Walks the extension headers behind the IPv6 header, the first of which is `next`.
///
/// Hop-by-hop options, destination options and used up routing headers are skipped (RFC 7915 §5.1),
/// as is a Fragment header, which is noted.
#[inline(always)]
pub fn walk<P: Packet>(packet: &P, next: u8, extras: &mut Extras) {
    extras.clear(next);
    extras.progress = Progress::Walking;
    for _ in 0..=HEADERS {
        step(packet, extras);
        if extras.progress != Progress::Walking {
            return;
        }
    }
    extras.progress = Progress::Lost;
}

/// Looks at the next header. A function of its own for the verifier, which follows each way out of
/// a loop's body to its end.
#[inline(never)]
fn step<P: Packet>(packet: &P, extras: &mut Extras) {
    if extras.fragment.offset != 0 || matches!(extras.next, protocol::TCP | protocol::UDP) {
        extras.progress = Progress::Transport;
        return;
    }
    let known = matches!(
        extras.next,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
    );
    let start = IPV6_LENGTH + extras.length as usize;
    let bytes = if known && extras.length <= LONGEST { packet.load::<8>(start) } else { None };
    let Some(bytes) = bytes else {
        extras.progress = Progress::Lost;
        return;
    };
    if extras.fragment.is_some {
        extras.obstacle = Obstacle::BehindFragment;
    } else if extras.next == protocol::HOP_BY_HOP && extras.length != 0 {
        extras.obstacle = Obstacle::Misplaced;
    }
    let length = u16::from(bytes[1]);
    let before = extras.length;
    extras.length += match extras.next {
        protocol::FRAGMENT => {
            extras.fragment = Fragment::of_ipv6(FragmentHeader::of(&bytes));
            FRAGMENT_LENGTH as u16
        }
        protocol::AUTHENTICATION => {
            extras.obstacle = Obstacle::Authentication;
            (length + 2) * 4
        }
        number => {
            let segments_left = bytes[3];
            if number == protocol::ROUTING && segments_left != 0 {
                extras.obstacle = Obstacle::Routing;
                extras.segments_left = before + 3;
            }
            (length + 1) * 8
        }
    };
    extras.next = bytes[0];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::SlicePacket;
    use std::vec::Vec;
    use zerocopy::FromZeros;

    /// Walks `headers`, each a kind and its bytes from the second on, up to `last`.
    fn walked(headers: &[(u8, &[u8])], last: u8) -> Extras {
        let mut bytes: Vec<u8> = [0; IPV6_LENGTH].into();
        for (index, (_, header)) in headers.iter().enumerate() {
            bytes.push(headers.get(index + 1).map_or(last, |(kind, _)| *kind));
            bytes.extend_from_slice(header);
        }
        bytes.extend_from_slice(&[0; 20]);
        let mut extras = Extras::new_zeroed();
        let first = headers.first().map_or(last, |(kind, _)| *kind);
        walk(&SlicePacket::new(&bytes), first, &mut extras);
        extras
    }

    const OPTIONS: (u8, &[u8]) = (protocol::HOP_BY_HOP, &[0; 7]);
    const LONG: (u8, &[u8]) = (protocol::DESTINATION_OPTIONS, &{
        let mut bytes = [0; 31];
        bytes[0] = 3;
        bytes
    });
    const FIRST: (u8, &[u8]) = (protocol::FRAGMENT, &[0, 0, 1, 1, 2, 3, 4]);

    #[test]
    fn h5_options_and_used_up_routing_headers_are_skipped() {
        let used_up: (u8, &[u8]) = (protocol::ROUTING, &[0, 4, 0, 0, 0, 0, 0]);
        for last in [protocol::TCP, protocol::UDP] {
            let extras = walked(&[OPTIONS, LONG, used_up], last);
            assert_eq!(
                (extras.progress, extras.next, extras.length),
                (Progress::Transport, last, 48)
            );
            assert_eq!((extras.obstacle, extras.fragment), (Obstacle::None, Fragment::NONE));
        }
    }

    #[test]
    fn segments_left_stand_in_the_way() {
        for left in 1..=255u8 {
            let routing: (u8, &[u8]) = (protocol::ROUTING, &[0, 4, left, 0, 0, 0, 0]);
            let extras = walked(&[OPTIONS, routing], protocol::TCP);
            assert_eq!(extras.obstacle, Obstacle::Routing, "{left}");
            assert_eq!(extras.progress, Progress::Transport);
        }
    }

    #[test]
    fn h7_every_field_of_a_fragment_header_is_noted() {
        for offset in [0u16, 8, 1_448, 0xfff8] {
            for (more, reserved) in [(0u16, 0u16), (1, 0), (0, 6), (1, 6)] {
                let [high, low] = (offset | more | reserved).to_be_bytes();
                let header: (u8, &[u8]) = (protocol::FRAGMENT, &[0xff, high, low, 9, 8, 7, 6]);
                let extras = walked(&[OPTIONS, header], protocol::UDP);
                let expected = Fragment {
                    is_some: true,
                    more: more != 0,
                    offset,
                    identification: [9, 8, 7, 6],
                };
                assert_eq!((extras.fragment, extras.next, extras.length), (expected, 17, 16));
            }
        }
    }

    #[test]
    fn h7_nothing_is_read_behind_a_later_fragments_header() {
        let later: (u8, &[u8]) = (protocol::FRAGMENT, &[0, 0, 8, 1, 2, 3, 4]);
        let extras = walked(&[later], protocol::DESTINATION_OPTIONS);
        assert_eq!((extras.progress, extras.length), (Progress::Transport, 8));
        assert_eq!((extras.next, extras.obstacle), (protocol::DESTINATION_OPTIONS, Obstacle::None));
    }

    #[test]
    fn h8_what_can_not_be_translated_stands_in_the_way() {
        let authentication: (u8, &[u8]) = (protocol::AUTHENTICATION, &{
            let mut bytes = [0; 23];
            bytes[0] = 4;
            bytes
        });
        for (headers, obstacle) in [
            ([FIRST, OPTIONS], Obstacle::BehindFragment),
            ([FIRST, LONG], Obstacle::BehindFragment),
            ([FIRST, FIRST], Obstacle::BehindFragment),
            ([OPTIONS, authentication], Obstacle::Authentication),
            ([OPTIONS, OPTIONS], Obstacle::Misplaced),
            ([LONG, OPTIONS], Obstacle::Misplaced),
            ([FIRST, authentication], Obstacle::Authentication),
        ] {
            let extras = walked(&headers, protocol::TCP);
            assert_eq!((extras.obstacle, extras.progress), (obstacle, Progress::Transport));
        }
    }

    #[test]
    fn h10_other_protocols_end_the_walk() {
        for number in 0..=255u8 {
            let extras = walked(&[OPTIONS], number);
            let transport = matches!(number, protocol::TCP | protocol::UDP);
            assert_eq!(extras.progress == Progress::Transport, transport, "{number}");
        }
    }

    #[test]
    fn h5_chains_that_are_too_long_or_cut_off_are_nobodys() {
        assert_eq!(walked(&[LONG; HEADERS], protocol::TCP).progress, Progress::Transport);
        assert_eq!(walked(&[LONG; HEADERS + 1], protocol::TCP).progress, Progress::Lost);
        let bytes = [0; IPV6_LENGTH + 12];
        for length in IPV6_LENGTH..bytes.len() {
            let mut extras = Extras::new_zeroed();
            walk(&SlicePacket::new(&bytes[..length]), protocol::HOP_BY_HOP, &mut extras);
            assert_eq!(extras.progress, Progress::Lost, "{length}");
        }
    }
}
