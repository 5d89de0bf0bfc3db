//! Who frames are from: many addresses over many /64s.

use std::net::Ipv6Addr;

use socket2::SockFilter;

/// Bits of a prefix of [`Sources`].
pub const PREFIX_LENGTH: u32 = 36;

/// Addresses below `2001:db8:X000::/36`, so many in each /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sources {
    /// Of all of them: `2001:db8:X000::`.
    pub prefix: Ipv6Addr,
    /// How many there are.
    pub count: u64,
    /// How many of them share a /64.
    pub per_network: u64,
}

impl Sources {
    /// A million sources of a flood, in 62,500 networks.
    pub const FLOOD: Self = Self {
        prefix: Ipv6Addr::new(0x2001, 0xdb8, 0x5000, 0, 0, 0, 0, 0),
        count: 1_000_000,
        per_network: 16,
    };
    /// Clients that mean it, each in a network of its own.
    pub const CLIENTS: Self = Self {
        prefix: Ipv6Addr::new(0x2001, 0xdb8, 0x6000, 0, 0, 0, 0, 0),
        count: 1 << 28,
        per_network: 1,
    };

    /// The prefix as routes name it.
    pub fn route(&self) -> String {
        format!("{}/{PREFIX_LENGTH}", self.prefix)
    }

    /// The `index`-th address; they repeat after `count`.
    pub fn address(&self, index: u64) -> [u8; 16] {
        let index = index % self.count;
        let network = index / self.per_network;
        let prefix = (u128::from(self.prefix) >> 64) as u64;
        let interface = mixed(index) | 1;
        (u128::from(prefix | network) << 64 | u128::from(interface)).to_be_bytes()
    }

    /// A socket filter for Ethernet frames with IPv6 to one of them.
    pub fn filter(&self) -> [SockFilter; 7] {
        let words = u128::from(self.prefix);
        let (first, second) = ((words >> 96) as u32, (words >> 64) as u32);
        let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        let and = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
        let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        let answer = (libc::BPF_RET | libc::BPF_K) as u16;
        // The destination is 24 bytes into the IPv6 header, that 14 into the frame. A load beyond
        // the end of a frame drops it.
        [
            SockFilter::new(load, 0, 0, 42),
            SockFilter::new(and, 0, 0, u32::MAX << (64 - PREFIX_LENGTH)),
            SockFilter::new(equal, 0, 3, second),
            SockFilter::new(load, 0, 0, 38),
            SockFilter::new(equal, 0, 1, first),
            SockFilter::new(answer, 0, 0, u32::MAX),
            SockFilter::new(answer, 0, 0, 0),
        ]
    }
}

/// A number that looks random, and is the same for the same number (the mixer of SplitMix64).
pub const fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn sources_differ_and_share_networks_as_said() {
        let some = Sources { count: 1_000, ..Sources::FLOOD };
        let addresses: BTreeSet<_> = (0..2_000).map(|index| some.address(index)).collect();
        assert_eq!(addresses.len(), 1_000);
        let networks: BTreeSet<_> = addresses.iter().map(|address| &address[..8]).collect();
        assert_eq!(networks.len(), 1_000_usize.div_ceil(16));
        let last = Sources::FLOOD.address(999_999);
        assert_eq!(last[..8], [0x20, 1, 0x0d, 0xb8, 0x50, 0, 0xf4, 0x23]);
    }
}
