//! IPv6 fragments for a client, out of a container's (RFC 7915 §4.1).
//!
//! An IPv4 sender that lets its packets be fragmented doesn't look for the MTU of the path, and isn't
//! told when one is too big: what it sends goes out in pieces that every IPv6 link carries.

use crate::decide::Fragment;
use crate::wire::{FRAGMENT_LENGTH, FragmentHeader, IPV6_LENGTH, Ipv6Header, protocol};

/// Largest IPv6 packet that pieces are made of: the smallest MTU that an IPv6 link may have
/// (`lowest-ipv6-mtu` of RFC 7915 §4, its default).
const LOWEST_MTU: usize = 1_280;
/// Payload of every piece but the last: a multiple of 8.
const PIECE: u16 = ((LOWEST_MTU - HEADERS) & !7) as u16;
/// IPv6 and Fragment header.
const HEADERS: usize = IPV6_LENGTH + FRAGMENT_LENGTH;
/// Pieces that a fragment may be split into: enough for a link with an MTU of 9,000 and more.
pub const PIECES: u16 = 16;

/// The Fragment header for a container's fragment (RFC 7915 §4.1): offset and "more fragments" are
/// copied; the identification goes to the lower half.
#[inline(always)]
#[must_use]
pub fn fragment_header(fragment: &Fragment, next: u8) -> [u8; FRAGMENT_LENGTH] {
    let [_, _, high, low] = fragment.identification;
    zerocopy::transmute!(FragmentHeader {
        next_header: next,
        reserved: 0,
        offset_more: (fragment.offset | fragment.more as u16).to_be_bytes(),
        identification: [0, 0, high, low],
    })
}

/// In how many pieces `payload` bytes go out; 0 where that would be more than [`PIECES`].
#[inline(always)]
#[must_use]
pub const fn pieces(payload: u16) -> u16 {
    let count = payload.div_ceil(PIECE);
    if count > PIECES { 0 } else { count }
}

/// Makes a fragment of a whole IPv6 packet, for pieces to be made of: its header stands at the start of
/// `headers`, the Fragment header is put behind. In how many pieces it goes out, as [`pieces`].
#[inline(always)]
#[must_use]
pub fn make_fragment(headers: &mut [u8; HEADERS], identification: [u8; 4]) -> u16 {
    let Some(ipv6) = headers.first_chunk::<IPV6_LENGTH>() else { return 0 };
    let header = Ipv6Header::of(ipv6);
    let (payload, next) = (header.payload(), header.next_header);
    let Some(length) = payload.checked_add(FRAGMENT_LENGTH as u16) else { return 0 };
    [headers[4], headers[5]] = length.to_be_bytes();
    headers[6] = protocol::FRAGMENT;
    let [a, b, c, d] = identification;
    headers[IPV6_LENGTH..].copy_from_slice(&[next, 0, 0, 0, a, b, c, d]);
    pieces(payload)
}

/// One piece of an IPv6 fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Bytes of the fragment's payload before the piece.
    pub skip: u16,
    /// Bytes of the piece.
    pub length: u16,
}

/// Makes piece `index` of the fragment whose IPv6 and Fragment headers are `headers`: these become
/// the piece's own. Pieces of a piece, so to speak: offsets count on from the fragment's (RFC 8200
/// §4.5). `false` where there is no such piece.
#[inline(always)]
pub fn piece(headers: &mut [u8; HEADERS], index: u16, piece: &mut Piece) -> bool {
    let [.., next, reserved, high, low, a, b, c, d] = *headers;
    let Some(ipv6) = headers.first_chunk::<IPV6_LENGTH>() else { return false };
    let payload = Ipv6Header::of(ipv6).payload().wrapping_sub(FRAGMENT_LENGTH as u16);
    let skip = index.wrapping_mul(PIECE);
    if index >= PIECES || skip >= payload {
        return false;
    }
    let last = payload - skip <= PIECE;
    piece.skip = skip;
    piece.length = if last { payload - skip } else { PIECE };
    let field = u16::from_be_bytes([high, low]);
    let more = if last { field & FragmentHeader::MORE } else { FragmentHeader::MORE };
    let offset = (field & FragmentHeader::OFFSET).wrapping_add(skip) | more;
    let [high, low] = offset.to_be_bytes();
    [headers[4], headers[5]] = (piece.length + FRAGMENT_LENGTH as u16).to_be_bytes();
    headers[IPV6_LENGTH..].copy_from_slice(&[next, reserved, high, low, a, b, c, d]);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::samples;
    use crate::translate::ipv6_header;
    use crate::wire::Ipv4Header;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn fragment(offset: u16, more: bool) -> Fragment {
        Fragment { is_some: true, more, offset, identification: [9, 9, 0x12, 0x34] }
    }

    fn headers(of: &Fragment, payload: u16) -> [u8; HEADERS] {
        let ipv4 = Ipv4Header { ttl: 64, ..*Ipv4Header::of(&[0; 20]) };
        let mut bytes = [0; HEADERS];
        let ipv6 = ipv6_header(&ipv4, &samples::flow(), payload + 8, 44);
        bytes[..IPV6_LENGTH].copy_from_slice(&ipv6);
        bytes[IPV6_LENGTH..].copy_from_slice(&fragment_header(of, 17));
        bytes
    }

    #[test]
    fn g6_fields_are_copied_and_half_of_the_identification_is_new() {
        for offset in (0..=0xfff8u16).step_by(8) {
            for more in [false, true] {
                let bytes = fragment_header(&fragment(offset, more), 17);
                assert_eq!(
                    Fragment::of_ipv6(FragmentHeader::of(&bytes)),
                    Fragment { identification: [0, 0, 0x12, 0x34], ..fragment(offset, more) }
                );
                assert_eq!((bytes[0], bytes[1]), (17, 0));
            }
        }
    }

    #[test]
    fn g6_what_fits_stays_whole() {
        assert_eq!((pieces(0), pieces(1), pieces(1_232), pieces(1_233)), (0, 1, 1, 2));
        assert_eq!((pieces(1_480), pieces(8_980), pieces(19_712), pieces(19_713)), (2, 8, 16, 0));
        let before = headers(&fragment(1_480, true), 1_232);
        let (mut after, mut part) = (before, Piece { skip: 0, length: 0 });
        assert!(piece(&mut after, 0, &mut part));
        assert_eq!((after, part), (before, Piece { skip: 0, length: 1_232 }));
        assert!(!piece(&mut after, 1, &mut part));
    }

    proptest! {
        #[test]
        fn g6_pieces_are_the_fragment(payload in 1u16..19_712, offset in 0u16..4_000, more: bool) {
            // All fragments but the last have a multiple of 8 bytes.
            let payload = if more { payload.next_multiple_of(8) } else { payload };
            let whole = fragment(offset * 8, more);
            let (mut at, mut seen) = (0, Vec::new());
            for index in 0..pieces(payload) {
                let (mut bytes, mut part) = (headers(&whole, payload), Piece { skip: 0, length: 0 });
                prop_assert!(piece(&mut bytes, index, &mut part));
                prop_assert_eq!(part.skip, at);
                at += part.length;
                prop_assert!(usize::from(part.length) + HEADERS <= LOWEST_MTU);
                let ipv6 = Ipv6Header::of(bytes.first_chunk().expect("40 bytes"));
                prop_assert_eq!(ipv6.payload(), part.length + 8);
                let header = FragmentHeader::of(bytes.last_chunk().expect("8 bytes"));
                let of_piece = Fragment::of_ipv6(header);
                prop_assert_eq!(of_piece.offset, whole.offset + part.skip);
                prop_assert_eq!(of_piece.identification, [0, 0, 0x12, 0x34]);
                seen.push(of_piece.more);
            }
            prop_assert_eq!(at, payload);
            let last = seen.pop();
            prop_assert_eq!(last, Some(more));
            prop_assert!(seen.into_iter().all(|more| more));
        }
    }
}
