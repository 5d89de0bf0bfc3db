//! Wide loads from where the compiler knows of no alignment: a packet, or a key in a map.
//!
//! For the BPF target it would load and store every byte by itself, and what is then read back in
//! wider words waits until the processor has put the bytes together. The kernel takes any alignment
//! there, on machines that do; it is on the stack alone that words must be aligned.

/// The word that `bytes` are, in memory order.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn word(bytes: &[u8; 4]) -> u32 {
    let word: u64;
    // SAFETY: it reads the four bytes that the reference is to, and does nothing else.
    unsafe {
        core::arch::asm!(
            "{word} = *(u32 *)({bytes} + 0)",
            word = out(reg) word,
            bytes = in(reg) bytes.as_ptr(),
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    word as u32
}

/// The word that `bytes` are, in memory order.
#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
#[must_use]
pub const fn word(bytes: &[u8; 4]) -> u32 {
    u32::from_ne_bytes(*bytes)
}

/// The words that the first `4 * N` bytes are; those that aren't there are 0.
#[inline(always)]
#[must_use]
pub fn words<const N: usize, const BYTES: usize>(bytes: &[u8; BYTES]) -> [u32; N] {
    let mut words = [0; N];
    let (chunks, _) = bytes.as_chunks::<4>();
    let mut index = 0;
    while index < N && index < BYTES / 4 {
        words[index] = word(&chunks[index]);
        index += 1;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn words_are_the_bytes_in_memory_order() {
        let bytes: [u8; 12] = core::array::from_fn(|index| index as u8 + 1);
        let expected = [1u32, 5, 9].map(|first| {
            u32::from_ne_bytes([first as u8, first as u8 + 1, first as u8 + 2, first as u8 + 3])
        });
        assert_eq!(words::<3, 12>(&bytes), expected);
        assert_eq!(words::<2, 12>(&bytes), expected[..2]);
        assert_eq!(words::<4, 12>(&bytes), [expected[0], expected[1], expected[2], 0]);
    }
}
