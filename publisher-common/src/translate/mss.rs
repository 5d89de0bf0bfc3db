//! The maximum segment size of SYN and SYN-ACK, lowered to what both sides' links carry (rule S19).

use crate::checksum::Difference;
use crate::decide::Transport;
use crate::packet::Packet;
use core::hint::black_box;
use zerocopy::FromZeros;

/// Largest number of options that are looked at: the option space has 40 bytes.
const OPTIONS: usize = 12;
/// End of the option list.
const END: u8 = 0;
/// One byte of padding.
const PADDING: u8 = 1;
/// Maximum segment size, 4 bytes in all.
const MSS: u8 = 2;

/// A new value for an MSS option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
pub struct MssPatch {
    /// Offset of the value from the start of the TCP header; 0 where nothing is to be changed.
    pub offset: u8,
    /// The value that stands there.
    pub old: [u8; 2],
    /// The value that should.
    pub new: [u8; 2],
}

impl MssPatch {
    /// Nothing to change.
    pub const NONE: Self = Self { offset: 0, old: [0; 2], new: [0; 2] };

    /// Whether there is something to change.
    #[inline(always)]
    #[must_use]
    pub const fn is_some(&self) -> bool {
        self.offset != 0
    }

    /// Notes the change in a checksum difference.
    #[inline(always)]
    pub fn note(&self, difference: Difference) -> Difference {
        // At an odd offset the value's bytes belong to two 16-bit words, the other way round.
        let word = |[a, b]: [u8; 2]| {
            if self.offset.is_multiple_of(2) { [a, b, 0, 0] } else { [b, a, 0, 0] }
        };
        difference.remove(word(self.old)).add(word(self.new))
    }
}

/// The largest segment that fits both sides: IPv6 and TCP headers take 60 bytes, IPv4's 40.
#[inline(always)]
#[must_use]
pub const fn mss_limit(ipv6_mtu: u32, ipv4_mtu: u32) -> u16 {
    let six = ipv6_mtu.saturating_sub(60);
    let four = ipv4_mtu.saturating_sub(40);
    let limit = if six < four { six } else { four };
    if limit > 0xffff { 0xffff } else { limit as u16 }
}

/// Finds the MSS option of a SYN whose TCP header starts at `start`, and says how to lower it to
/// `limit`; [`MssPatch::NONE`] where it is low enough or isn't there.
#[inline(always)]
pub fn clamp_mss<P: Packet>(packet: &P, start: usize, header: &Transport, limit: u16) -> MssPatch {
    let end = header.length as usize;
    let mut offset = 20;
    for _ in 0..OPTIONS {
        if offset + 2 > end {
            return MssPatch::NONE;
        }
        let Some([kind, length]) = packet.load::<2>(start + offset) else { return MssPatch::NONE };
        let length = match kind {
            END => return MssPatch::NONE,
            PADDING => 1,
            _ => length as usize,
        };
        if (kind != PADDING && length < 2) || offset + length > end {
            return MssPatch::NONE;
        }
        if kind == MSS && length == 4 {
            let Some(old) = packet.load::<2>(start + offset + 2) else { return MssPatch::NONE };
            if u16::from_be_bytes(old) <= limit {
                return MssPatch::NONE;
            }
            return MssPatch { offset: (offset + 2) as u8, old, new: limit.to_be_bytes() };
        }
        // A header has 60 bytes at the most. Said so that the verifier sees it: with a bound that is
        // the same in each round it has one path to follow instead of 2 to the number of rounds.
        offset = black_box(offset + length) & 63;
    }
    MssPatch::NONE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::Extras;
    use crate::native::SlicePacket;
    use crate::wire::protocol;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn segment(options: &[u8]) -> Vec<u8> {
        let mut bytes = std::vec![0u8; 20];
        bytes.extend_from_slice(options);
        while !bytes.len().is_multiple_of(4) {
            bytes.push(0);
        }
        bytes[12] = ((bytes.len() / 4) << 4) as u8;
        bytes
    }

    fn header(packet: &SlicePacket<'_>) -> Transport {
        let (mut header, mut extras) = (Transport::new_zeroed(), Extras::new_zeroed());
        extras.clear(protocol::TCP);
        header.read::<0, _>(packet, &extras).expect("a header");
        header
    }

    fn clamp(options: &[u8], limit: u16) -> Option<MssPatch> {
        let bytes = segment(options);
        let packet = SlicePacket::new(&bytes);
        let header = header(&packet);
        let patch = clamp_mss(&packet, 0, &header, limit);
        patch.is_some().then_some(patch)
    }

    #[test]
    fn s19_limit_is_what_the_smaller_side_carries() {
        assert_eq!(mss_limit(1500, 1500), 1440);
        assert_eq!(mss_limit(1500, 1400), 1360);
        assert_eq!(mss_limit(1280, 9000), 1220);
        assert_eq!(mss_limit(65_575, 65_535), 65_495);
        assert_eq!(mss_limit(1_000_000, 1_000_000), 65_535);
        assert_eq!(mss_limit(0, 0), 0);
    }

    #[test]
    fn s19_a_larger_value_is_lowered_wherever_it_stands() {
        let mss = [2, 4, 0x05, 0xb4];
        for padding in 0..8 {
            let mut options = std::vec![1u8; padding];
            options.extend_from_slice(&mss);
            let patch = clamp(&options, 1400).expect("1460 is above 1400");
            assert_eq!(patch.offset as usize, 22 + padding);
            assert_eq!((patch.old, patch.new), (1460u16.to_be_bytes(), 1400u16.to_be_bytes()));
        }
        assert_eq!(clamp(&mss, 1460), None);
        assert!(
            clamp(&[3, 3, 7, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 0xff, 0xff], 9).is_some()
        );
    }

    #[test]
    fn s19_lying_options_are_left_alone() {
        for options in [
            &[][..],
            &[2][..],
            &[2, 4][..],
            &[2, 3, 5, 0xb4][..],
            &[2, 0, 5, 0xb4][..],
            &[0, 2, 4, 5, 0xb4][..],
            &[0, 4, 9, 9, 2, 4, 5, 0xb4][..],
            &[5, 1, 2, 4, 5, 0xb4][..],
            &[5, 200, 2, 4, 5, 0xb4][..],
        ] {
            assert_eq!(clamp(options, 100), None, "{options:?}");
        }
    }

    #[test]
    fn s19_what_follows_the_header_is_no_option() {
        // The list ends within or right behind an option's head; the payload looks like the rest.
        for options in [&[1, 1, 2, 4][..], &[1, 1, 1, 2], &[1, 1, 1, 1], &[1, 2, 4, 5]] {
            let mut bytes = segment(options);
            bytes.extend_from_slice(&[4, 0xff, 0xff, 2, 4, 0xff, 0xff]);
            let packet = SlicePacket::new(&bytes);
            let header = header(&packet);
            assert_eq!(header.length, 24);
            assert_eq!(clamp_mss(&packet, 0, &header, 100), MssPatch::NONE, "{options:?}");
        }
    }

    proptest! {
        #[test]
        fn s19_never_reads_or_writes_outside_the_options(options: Vec<u8>, limit: u16) {
            let options = &options[..options.len().min(40)];
            if let Some(patch) = clamp(options, limit) {
                let bytes = segment(options);
                let at = patch.offset as usize;
                prop_assert!(at >= 22 && at + 2 <= bytes.len());
                prop_assert_eq!(&bytes[at..at + 2], &patch.old[..]);
                prop_assert!(u16::from_be_bytes(patch.old) > limit);
            }
        }

        #[test]
        fn s19_the_difference_keeps_the_checksum_right(offset in 20u8..38, old: [u8; 2], new: [u8; 2], mut bytes: [u8; 40]) {
            use crate::checksum::checksum;
            let at = offset as usize;
            bytes[at..at + 2].copy_from_slice(&old);
            let before = checksum(&bytes, Difference::new());
            bytes[at..at + 2].copy_from_slice(&new);
            let after = checksum(&bytes, Difference::new());
            let corrected = MssPatch { offset, old, new }.note(Difference::new()).apply(before);
            prop_assert!(corrected == after || [corrected, after].contains(&[0, 0]) && [corrected, after].contains(&[255, 255]));
        }
    }
}
