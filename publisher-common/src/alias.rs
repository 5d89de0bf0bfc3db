//! Which alias and port a client is given.
//!
//! The choice is a keyed hash and a short walk from there, so that the client's direction of a
//! session that isn't established can be derived again instead of stored, and so that a client
//! keeps its alias for as long as the key is kept.

use crate::layout::{Config, ForwardKey, config_flags};
use zerocopy::FromZeros;

/// Candidates that a flow has, in the order of preference.
pub const CANDIDATES: u32 = 16;
/// Up to here, the alias is to be the client's alone.
pub const OWN: u32 = 8;
/// Up to here, it is to be its /64's alone; after that it may be anybody's.
pub const NEIGHBOURS: u32 = 12;
/// Aliases that the clients of a /64 are given when it has had its share: so many from the /64's home on.
pub const SPREAD: u32 = 64;

/// An alias and a port that a flow could be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The IPv4 address.
    pub alias: [u8; 4],
    /// The port.
    pub port: [u8; 2],
}

/// The candidates of one flow.
#[derive(Clone, Copy, Debug, FromZeros)]
pub struct Candidates {
    /// First address of the pool, host order.
    pool: u32,
    /// Where in the pool the client is at home.
    home: u32,
    /// Where its /64 is.
    prefix_home: u32,
    /// Host bits of the pool; 0 for gateway mode.
    mask: u32,
    /// The gateway address in gateway mode.
    gateway: [u8; 4],
    /// Hash of the flow, the start of chosen ports.
    seed: u64,
    /// The port that the client uses.
    client_port: [u8; 2],
    /// First port that may be chosen, and how many there are.
    first: u16,
    /// See `first`.
    count: u32,
}

impl Candidates {
    /// Candidates out of the alias pool: the client's port is kept where it is free, else one is
    /// chosen among 1024–65535 (RFC 6056 §3.2).
    #[inline(always)]
    #[must_use]
    pub fn of_pool(config: &Config, flow: &ForwardKey) -> Self {
        let home = siphash(&config.key, &flow.client, u64::from(flow.scope)) as u32;
        let prefix_home = siphash(&config.key, &prefix(&flow.client), u64::from(flow.scope)) as u32;
        Self {
            pool: u32::from_be_bytes(config.pool),
            home: if config.has(config_flags::ALIAS_PER_PREFIX) { prefix_home } else { home },
            prefix_home,
            mask: !u32::from_be_bytes(config.pool_mask),
            gateway: [0; 4],
            seed: Self::seed(config, flow),
            client_port: flow.client_port,
            first: 1024,
            count: 65_536 - 1024,
        }
    }

    /// Candidates on the gateway address, with ports out of the reserved range.
    #[inline(always)]
    #[must_use]
    pub fn of_gateway(config: &Config, flow: &ForwardKey, gateway: [u8; 4]) -> Self {
        Self {
            pool: 0,
            home: 0,
            prefix_home: 0,
            mask: 0,
            gateway,
            seed: Self::seed(config, flow),
            client_port: flow.client_port,
            first: config.gateway_first,
            count: u32::from(config.gateway_last.saturating_sub(config.gateway_first)) + 1,
        }
    }

    #[inline(always)]
    fn seed(config: &Config, flow: &ForwardKey) -> u64 {
        let ports = u64::from(u16::from_be_bytes(flow.client_port)) << 48
            | u64::from(u16::from_be_bytes(flow.host_port)) << 32
            | u64::from(flow.protocol);
        siphash(&config.key, &flow.client, ports) ^ siphash(&config.key, &flow.host, ports)
    }

    /// Candidate number `index`, of [`CANDIDATES`].
    ///
    /// Up to [`OWN`] they walk the aliases from the client's home on, with its own port and a chosen one
    /// each; up to [`NEIGHBOURS`] they are chosen ports on the aliases of its /64; then chosen ports
    /// anywhere in the pool. In gateway mode every port is chosen.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, index: u32) -> Candidate {
        let chosen = self.chosen_port(index);
        if self.mask == 0 {
            return Candidate { alias: self.gateway, port: chosen };
        }
        let place = if index < OWN {
            self.home.wrapping_add(index / 2)
        } else {
            let mixed = (self.mixed(index) >> 16) as u32;
            let spread = if index < NEIGHBOURS { SPREAD } else { u32::MAX };
            self.prefix_home.wrapping_add(mixed % spread)
        };
        // Neither the first nor the last address of the pool: they look like a network's own.
        let hosts = self.mask.wrapping_sub(1);
        let offset = if hosts == 0 { 0 } else { place % hosts + 1 };
        let alias = (self.pool | offset).to_be_bytes();
        let kept = index < OWN && index.is_multiple_of(2) && self.client_port != [0, 0];
        Candidate { alias, port: if kept { self.client_port } else { chosen } }
    }

    /// An odd multiplier spreads the attempts; the product's high bits choose the port.
    #[inline(always)]
    const fn mixed(&self, index: u32) -> u64 {
        self.seed.wrapping_add(index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[inline(always)]
    fn chosen_port(&self, index: u32) -> [u8; 2] {
        let offset = ((self.mixed(index) >> 32) * u64::from(self.count)) >> 32;
        self.first.wrapping_add(offset as u16).to_be_bytes()
    }
}

/// The first 64 bits of an address; the rest is 0.
#[inline(always)]
#[must_use]
pub const fn prefix(address: &[u8; 16]) -> [u8; 16] {
    let upper = u128::from_be_bytes(*address) >> 64 << 64;
    upper.to_be_bytes()
}

/// SipHash-1-3 of an address and a number.
#[inline(always)]
fn siphash(key: &[u8; 16], address: &[u8; 16], number: u64) -> u64 {
    let half = |bytes: &[u8; 16], upper: bool| -> u64 {
        let value = u128::from_ne_bytes(*bytes);
        if upper { (value >> 64) as u64 } else { value as u64 }
    };
    let (k0, k1) = (half(key, false), half(key, true));
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    for word in [half(address, false), half(address, true), number] {
        v[3] ^= word;
        round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    round(&mut v);
    round(&mut v);
    round(&mut v);
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline(always)]
const fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::samples;
    use std::collections::HashSet;

    #[test]
    fn s11_the_clients_port_comes_first_and_port_0_never() {
        let config = samples::config();
        for port in 0..=u16::MAX {
            let mut flow = samples::flow();
            flow.client_port = port.to_be_bytes();
            let candidates = Candidates::of_pool(&config, &flow);
            if port != 0 {
                assert_eq!(candidates.get(0).port, flow.client_port);
            }
            for index in 0..CANDIDATES {
                assert_ne!(candidates.get(index).port, [0, 0]);
            }
        }
    }

    #[test]
    fn aliases_stay_in_the_pool_and_off_its_ends() {
        for prefix in [15u32, 24, 28, 29, 30] {
            let mut config = samples::config();
            config.pool_mask = (!0u32 << (32 - prefix)).to_be_bytes();
            let last = u32::from_be_bytes(config.pool) | (!0u32 >> prefix);
            for client in 0..=255u8 {
                let mut flow = samples::flow();
                flow.client[15] = client;
                for index in 0..CANDIDATES {
                    let alias = Candidates::of_pool(&config, &flow).get(index).alias;
                    assert!(config.is_alias(alias));
                    assert_ne!(alias, config.pool);
                    assert_ne!(u32::from_be_bytes(alias), last, "/{prefix}");
                }
            }
        }
    }

    #[test]
    fn a_client_keeps_its_alias_whatever_its_port() {
        let config = samples::config();
        let homes: HashSet<_> = (1..1000u16)
            .map(|port| {
                let mut flow = samples::flow();
                flow.client_port = port.to_be_bytes();
                Candidates::of_pool(&config, &flow).get(0).alias
            })
            .collect();
        assert_eq!(homes.len(), 1);
    }

    #[test]
    fn clients_spread_over_the_pool() {
        let config = samples::config();
        let homes: HashSet<_> = (0..10_000u32)
            .map(|client| {
                let mut flow = samples::flow();
                flow.client[12..].copy_from_slice(&client.to_be_bytes());
                Candidates::of_pool(&config, &flow).get(0).alias
            })
            .collect();
        // 10,000 draws out of 131,070 leave about 9,629 different ones.
        assert!((9_500..9_750).contains(&homes.len()), "{}", homes.len());
    }

    #[test]
    fn gateway_ports_stay_in_the_reserved_range() {
        let config = samples::config();
        let mut seen = HashSet::new();
        for port in 1..=2000u16 {
            let mut flow = samples::flow();
            flow.client_port = port.to_be_bytes();
            let candidates = Candidates::of_gateway(&config, &flow, [172, 17, 0, 1]);
            for index in 0..CANDIDATES {
                let candidate = candidates.get(index);
                assert_eq!(candidate.alias, [172, 17, 0, 1]);
                assert!(config.is_gateway_port(candidate.port));
                seen.insert(candidate.port);
            }
        }
        assert!(seen.len() > 3_500, "{}", seen.len());
    }

    #[test]
    fn another_key_gives_other_homes() {
        let (config, flow) = (samples::config(), samples::flow());
        let mut other = config;
        other.key[0] ^= 1;
        assert_ne!(
            Candidates::of_pool(&config, &flow).get(0).alias,
            Candidates::of_pool(&other, &flow).get(0).alias
        );
    }
}
