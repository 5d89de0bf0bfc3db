//! The options of a container's packet (RFC 791 §3.1).
//!
//! They are ignored and taken out; only a source route that isn't used up stops the packet (RFC 7915
//! §4.1): the container's packet isn't at its destination yet.

use super::extension::{Extras, Obstacle};
use crate::packet::Packet;
use crate::wire::IPV4_LENGTH;

/// Options that are looked at before giving up; there are 40 bytes of them at the most.
const OPTIONS: usize = 20;
/// 32-bit words of options.
const WORDS: u16 = 10;
/// End of the options.
const END: u8 = 0;
/// One byte of padding.
const PADDING: u8 = 1;
/// Loose source route.
const LOOSE: u8 = 131;
/// Strict source route.
const STRICT: u8 = 137;

/// Reads the `extras.length` bytes of options behind the IPv4 header.
#[inline(always)]
pub(super) fn walk<P: Packet>(packet: &P, extras: &mut Extras) {
    for index in 0..WORDS {
        if index * 4 >= extras.length {
            break;
        }
        sum(packet, index, extras);
    }
    let mut at = 0;
    for _ in 0..OPTIONS {
        at = step(packet, at, extras);
        if at >= extras.length || extras.obstacle != Obstacle::None {
            return;
        }
    }
    extras.obstacle = Obstacle::Options;
}

/// Takes a word into the sum.
#[inline(never)]
fn sum<P: Packet>(packet: &P, index: u16, extras: &mut Extras) {
    match packet.load::<4>(IPV4_LENGTH + (index & 15) as usize * 4) {
        Some(word) => extras.sum = extras.sum.add(word),
        None => extras.obstacle = Obstacle::Options,
    }
}

/// Looks at the option at `at`, and says where the next one is.
#[inline(never)]
fn step<P: Packet>(packet: &P, at: u16, extras: &mut Extras) -> u16 {
    let start = IPV4_LENGTH + (at & 63) as usize;
    let Some([kind]) = packet.load::<1>(start) else {
        extras.obstacle = Obstacle::Options;
        return at;
    };
    match kind {
        END => return extras.length,
        PADDING => return at + 1,
        _ => {}
    }
    let Some([_, length, pointer]) = packet.load::<3>(start) else {
        extras.obstacle = Obstacle::Options;
        return at;
    };
    let next = at + u16::from(length);
    if length < 2 || next > extras.length {
        extras.obstacle = Obstacle::Options;
    } else if (kind == LOOSE || kind == STRICT) && pointer <= length {
        // The pointer counts from 1; behind the option's end, the route is used up.
        extras.obstacle = Obstacle::SourceRoute;
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::{Difference, checksum};
    use crate::native::SlicePacket;
    use zerocopy::FromZeros;

    fn walked(options: &[u8]) -> Extras {
        let mut bytes = std::vec![0; IPV4_LENGTH];
        bytes.extend_from_slice(options);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let mut extras = Extras::new_zeroed();
        extras.clear(6);
        extras.length = (bytes.len() - IPV4_LENGTH) as u16;
        bytes.extend_from_slice(&[0xee; 8]);
        walk(&SlicePacket::new(&bytes), &mut extras);
        extras
    }

    #[test]
    fn options_are_ignored() {
        for options in [
            &[1, 1, 1, 0][..],
            &[0, 131, 3, 4][..],
            &[7, 7, 4, 1, 2, 3, 4, 0][..],
            &[148, 4, 0, 0][..],
            &[1, 68, 11, 13, 0, 1, 2, 3, 4, 5, 6, 7][..],
            &[7, 39, 4],
        ] {
            let mut options = options.to_vec();
            if options[0] == 7 && options[1] == 39 {
                options.resize(39, 9);
            }
            assert_eq!(walked(&options).obstacle, Obstacle::None, "{options:?}");
        }
    }

    #[test]
    fn a_source_route_stops_a_packet_until_it_is_used_up() {
        for kind in [LOOSE, STRICT] {
            for pointer in 0..=255u8 {
                let used_up = pointer > 7;
                let extras = walked(&[1, kind, 7, pointer, 10, 0, 0, 1]);
                let expected = if used_up { Obstacle::None } else { Obstacle::SourceRoute };
                assert_eq!(extras.obstacle, expected, "{kind} {pointer}");
            }
        }
    }

    #[test]
    fn lying_options_are_told() {
        for options in [
            &[7, 0, 0, 0][..],
            &[7, 1, 0, 0][..],
            &[7, 5, 0, 0][..],
            &[7, 255, 0, 0][..],
            &[1; 40][..],
        ] {
            assert_eq!(walked(options).obstacle, Obstacle::Options, "{options:?}");
        }
        let mut extras = Extras::new_zeroed();
        extras.length = 40;
        walk(&SlicePacket::new(&[0; 30]), &mut extras);
        assert_eq!(extras.obstacle, Obstacle::Options);
    }

    #[test]
    fn g7_options_are_part_of_the_header_checksum() {
        let options: [u8; 12] = [1, 2, 3, 4, 0xff, 0xfe, 0xfd, 0xfc, 9, 8, 7, 6];
        let extras = walked(&options);
        assert_eq!(checksum(&[0; 20], extras.sum), checksum(&options, Difference::new()),);
    }
}
