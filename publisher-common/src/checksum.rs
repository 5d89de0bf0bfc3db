//! Internet checksum arithmetic (RFC 1071, RFC 1624).
//!
//! A translator never sums a packet. It notes what it removed and what it added, and hands the
//! [`Difference`] to whoever owns the checksum field: a kernel helper in the datapath,
//! [`Difference::apply`] in the native core. A checksum that was wrong stays equally wrong (rule
//! G9), so corruption on the client's side is still seen by the container.
//!
//! Words are taken in memory order ("native endian"): the ones' complement sum does not care, as
//! long as everybody does the same.
use zerocopy::FromZeros;

/// What a checksum has to be corrected by, as a 32-bit ones' complement sum.
///
/// The value is what `bpf_l4_csum_replace` takes as `to` when its `from` and its size are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromZeros)]
#[must_use]
pub struct Difference(u64);

impl Difference {
    /// Nothing removed, nothing added.
    pub const fn new() -> Self {
        Self(0)
    }

    /// Notes that `word` is no longer there.
    #[inline(always)]
    pub const fn remove(self, word: [u8; 4]) -> Self {
        Self(self.0 + !u32::from_ne_bytes(word) as u64)
    }

    /// Notes that `word` is there now.
    #[inline(always)]
    pub const fn add(self, word: [u8; 4]) -> Self {
        Self(self.0 + u32::from_ne_bytes(word) as u64)
    }

    /// Notes that an IPv6 address is no longer there.
    #[inline(always)]
    pub fn remove_ipv6(self, address: &[u8; 16]) -> Self {
        let [a, b, c, d] = quarters(address);
        self.remove(a).remove(b).remove(c).remove(d)
    }

    /// Notes that an IPv6 address is there now.
    #[inline(always)]
    pub fn add_ipv6(self, address: &[u8; 16]) -> Self {
        let [a, b, c, d] = quarters(address);
        self.add(a).add(b).add(c).add(d)
    }

    /// Notes bytes that are there now by their sum, as [`crate::packet::Packet::sum`] gives it.
    #[inline(always)]
    pub const fn add_sum(self, sum: u32) -> Self {
        Self(self.0 + sum as u64)
    }

    /// Whether what was added is a whole message with its right checksum in it (RFC 1071 §1).
    #[inline(always)]
    #[must_use]
    pub const fn is_right(self) -> bool {
        fold(self.0) == 0xffff
    }

    /// The difference as a 32-bit ones' complement sum, in memory order.
    #[inline(always)]
    #[must_use]
    pub const fn value(self) -> u32 {
        let folded = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((folded & 0xffff_ffff) + (folded >> 32)) as u32
    }

    /// Corrects a checksum field, as RFC 1624 equation 3.
    #[must_use]
    pub const fn apply(self, field: [u8; 2]) -> [u8; 2] {
        let field = !u16::from_ne_bytes(field) as u64;
        (!fold(self.value() as u64 + field)).to_ne_bytes()
    }
}

/// The four 32-bit words of an IPv6 address.
#[inline(always)]
const fn quarters(address: &[u8; 16]) -> [[u8; 4]; 4] {
    let a = address;
    [
        [a[0], a[1], a[2], a[3]],
        [a[4], a[5], a[6], a[7]],
        [a[8], a[9], a[10], a[11]],
        [a[12], a[13], a[14], a[15]],
    ]
}

/// Folds a sum of fewer than 65,536 words of 16 or 32 bits to 16 bits.
#[inline(always)]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum over `bytes`, whose own checksum field must be 0, plus a `partial` sum (a pseudo
/// header, say). `N` must be a multiple of 4.
#[inline(always)]
#[must_use]
pub fn checksum<const N: usize>(bytes: &[u8; N], partial: Difference) -> [u8; 2] {
    let mut sum = partial;
    let (words, _) = bytes.as_chunks::<4>();
    for word in words {
        sum = sum.add(*word);
    }
    (!fold(sum.0)).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The plain sum of RFC 1071, the oracle of these tests.
    fn reference(bytes: &[u8]) -> [u8; 2] {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }

    #[test]
    fn header_of_rfc_1071_style_example() {
        let header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,
            0xc7,
        ];
        assert_eq!(checksum(&header, Difference::new()), [0xb8, 0x61]);
    }

    /// The same number in ones' complement; 0 only where nothing was added.
    fn assert_folded(folded: u16, sum: u64) {
        assert_eq!(u64::from(folded) % 0xffff, sum % 0xffff, "{sum:#x}");
        assert_eq!(folded == 0, sum == 0, "{sum:#x}");
    }

    #[test]
    fn sums_fold_at_every_edge() {
        // Sums of so many of the largest words, and what lies around them.
        for words in [1u64, 2, 3, 10, 1_000, 65_534, 65_535] {
            for middle in [words << 16, words << 32, words * 0xffff_ffff, (words << 32) + 0xffff] {
                for sum in (middle - 3..=middle + 3).filter(|sum| *sum <= words * 0xffff_ffff) {
                    assert_folded(fold(sum), sum);
                }
            }
        }
        assert_folded(fold(0), 0);
    }

    #[test]
    fn a_difference_folds_until_it_fits() {
        let word = |number: u32| number.to_ne_bytes();
        let largest = Difference::new().add(word(u32::MAX)).add(word(u32::MAX));
        assert_eq!(largest.value(), u32::MAX);
        // The carry of the first fold overflows again.
        assert_eq!(largest.add(word(1)).value(), 1);
        assert_eq!(largest.add(word(2)).value(), 2);
        assert_eq!(Difference::new().value(), 0);
    }

    proptest! {
        #[test]
        fn full_sum_agrees_with_the_reference(bytes: [u8; 32]) {
            prop_assert_eq!(checksum(&bytes, Difference::new()), reference(&bytes));
        }

        #[test]
        fn g9_correcting_equals_summing_again(
            mut bytes: [u8; 32], old: [u8; 4], new: [u8; 4],
            from6: [u8; 16], to6: [u8; 16],
        ) {
            bytes[..4].copy_from_slice(&old);
            bytes[4..20].copy_from_slice(&from6);
            let before = reference(&bytes);
            bytes[..4].copy_from_slice(&new);
            bytes[4..20].copy_from_slice(&to6);
            let after = reference(&bytes);
            let difference =
                Difference::new().remove(old).add(new).remove_ipv6(&from6).add_ipv6(&to6);
            // 0x0000 and 0xffff are the same number in ones' complement.
            let same = |a: [u8; 2], b: [u8; 2]| {
                a == b || (a == [0, 0] || a == [255, 255]) && (b == [0, 0] || b == [255, 255])
            };
            prop_assert!(same(difference.apply(before), after));
        }
    }
}
