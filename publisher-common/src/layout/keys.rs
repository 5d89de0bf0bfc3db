//! Keys of the maps.

use crate::packet::Arrival;
use crate::wide::words;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A flow as the client sends it.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct ForwardKey {
    /// The client's address.
    pub client: [u8; 16],
    /// The host's address that the client asked.
    pub host: [u8; 16],
    /// The client's port.
    pub client_port: [u8; 2],
    /// The published port.
    pub host_port: [u8; 2],
    /// Interface index for a link-local client, whose address means something on that link only;
    /// 0 for others.
    pub scope: u32,
    /// Protocol number: TCP or UDP.
    pub protocol: u8,
    /// One of [`origin`]: a packet from the network that names the host as its source never meets a
    /// session of the host's own.
    pub origin: u8,
    /// Written as 0.
    pub reserved: [u8; 2],
}

/// Values of [`ForwardKey::origin`]: where the client is.
pub mod origin {
    /// Behind an uplink.
    pub const NETWORK: u8 = 0;
    /// On the host itself.
    pub const HOST: u8 = 1;
}

impl ForwardKey {
    /// The key of a client's packet, out of its IPv6 header, its ports and how it came in. Made of words,
    /// and read as such by the map.
    #[inline(always)]
    #[must_use]
    pub fn of_packet(header: &[u8; 40], ports: [u8; 4], arrival: &Arrival, protocol: u8) -> Self {
        let [_, _, a, b, c, d, e, f, g, h] = words::<10, 40>(header);
        let link_local = a & u32::from_ne_bytes([0xff, 0xc0, 0, 0]);
        let is_link_local = link_local == u32::from_ne_bytes([0xfe, 0x80, 0, 0]);
        let scope = if is_link_local { arrival.ifindex } else { 0 };
        let ports = u32::from_ne_bytes(ports);
        let protocol = u32::from_ne_bytes([protocol, arrival.origin(), 0, 0]);
        zerocopy::transmute!([a, b, c, d, e, f, g, h, ports, scope, protocol])
    }

    /// The same key, copied in words from wherever it stands.
    #[inline(always)]
    #[must_use]
    pub fn copied(&self) -> Self {
        let bytes: &[u8; 44] = zerocopy::transmute_ref!(self);
        zerocopy::transmute!(words::<11, 44>(bytes))
    }

    /// The flow the other way round: what its answers come by.
    #[inline(always)]
    #[must_use]
    pub const fn turned(&self) -> Self {
        Self {
            client: self.host,
            host: self.client,
            client_port: self.host_port,
            host_port: self.client_port,
            ..*self
        }
    }

    /// Whether both name the same client, whatever its port.
    #[inline(always)]
    #[must_use]
    pub fn same_client(&self, client: &[u8; 16], scope: u32) -> bool {
        equal(&self.client, client) && self.scope == scope
    }

    /// The flow's slot in [`super::names::DISPLACED`]. Any mix of its bits will do.
    #[inline(always)]
    #[must_use]
    pub fn slot(&self) -> u32 {
        let [.., a, b, c, d] = self.client;
        let ([e, f], [g, h]) = (self.client_port, self.host_port);
        let client = u32::from_ne_bytes([a, b, c, d]);
        let ports = u32::from_ne_bytes([e, f, g, h]);
        let mixed = (client ^ ports.rotate_left(7)).wrapping_mul(0x9e37_79b1);
        mixed >> (32 - super::DISPLACED_SLOTS.ilog2())
    }

    /// Whether both are the same flow. Unlike `==` this compiles to a few wide comparisons for
    /// the BPF target.
    #[inline(always)]
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        equal(&self.client, &other.client)
            && equal(&self.host, &other.host)
            && u16::from_ne_bytes(self.client_port) == u16::from_ne_bytes(other.client_port)
            && u16::from_ne_bytes(self.host_port) == u16::from_ne_bytes(other.host_port)
            && self.scope == other.scope
            && self.protocol == other.protocol
            && self.origin == other.origin
    }
}

/// Whether two IPv6 addresses are the same, in two wide comparisons.
#[inline(always)]
fn equal(a: &[u8; 16], b: &[u8; 16]) -> bool {
    u128::from_ne_bytes(*a) == u128::from_ne_bytes(*b)
}

/// A flow as the container answers it.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct ReplyKey {
    /// The container's address.
    pub target: [u8; 4],
    /// The IPv4 address that the container sees the client as.
    pub alias: [u8; 4],
    /// The container's port.
    pub target_port: [u8; 2],
    /// The port that the container sees the client as.
    pub alias_port: [u8; 2],
    /// Protocol number: TCP or UDP.
    pub protocol: u8,
    /// Written as 0.
    pub reserved: [u8; 3],
}

impl ReplyKey {
    /// The key of a container's packet, out of its IPv4 header and its ports, in words.
    #[inline(always)]
    #[must_use]
    pub fn of_packet(header: &[u8; 20], ports: [u8; 4], protocol: u8) -> Self {
        let [_, _, _, target, alias] = words::<5, 20>(header);
        let ports = u32::from_ne_bytes(ports);
        let protocol = u32::from_ne_bytes([protocol, 0, 0, 0]);
        zerocopy::transmute!([target, alias, ports, protocol])
    }

    /// The same key, copied in words from wherever it stands.
    #[inline(always)]
    #[must_use]
    pub fn copied(&self) -> Self {
        let bytes: &[u8; 16] = zerocopy::transmute_ref!(self);
        zerocopy::transmute!(words::<4, 16>(bytes))
    }
}

/// A published port of a host address; the unspecified address stands for all of them.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C, align(8))]
pub struct PublicationKey {
    /// The host's address, or `::`.
    pub host: [u8; 16],
    /// Interface index for a link-local host address; 0 for others.
    pub scope: u32,
    /// The published port.
    pub port: [u8; 2],
    /// Protocol number: TCP or UDP.
    pub protocol: u8,
    /// Written as 0.
    pub reserved: u8,
}

/// An address of the host, as the data of a longest-prefix key: prefix lengths count from the
/// first bit of `scope`, so a host route's is 160.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct LocalKey {
    /// Interface index, in host order, for link-local addresses; 0 for others. A link-local address that
    /// one interface alone has also stands under that of the loopback interface, with the other as its
    /// value.
    pub scope: [u8; 4],
    /// The address.
    pub address: [u8; 16],
}

impl LocalKey {
    /// Bits of `scope`, which every prefix covers.
    pub const SCOPE_BITS: u32 = 32;
    /// Bits of the key.
    pub const BITS: u32 = 160;
}

/// Index of the loopback interface, the same in every network namespace (`LOOPBACK_IFINDEX`).
pub const LOOPBACK: u32 = 1;

/// Which table a session that isn't established is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// No proof yet that the client gets our answers.
    HalfOpen,
    /// Both sides are done, or one has reset the connection.
    Closing,
}

/// The scope that belongs to `address` on interface `ifindex`: the interface for link-local
/// addresses (RFC 4007 §6), 0 for all others.
#[inline(always)]
#[must_use]
pub const fn address_scope(address: &[u8; 16], ifindex: u32) -> u32 {
    if address[0] == 0xfe && address[1] & 0xc0 == 0x80 { ifindex } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h12_link_local_addresses_are_scoped() {
        let mut address = [0u8; 16];
        for (first, second, scope) in [
            (0xfe, 0x80, 7),
            (0xfe, 0xbf, 7),
            (0xfe, 0xc0, 0),
            (0xfe, 0x7f, 0),
            (0x20, 0x01, 0),
            (0xff, 0x80, 0),
        ] {
            (address[0], address[1]) = (first, second);
            assert_eq!(address_scope(&address, 7), scope, "{first:x}{second:x}");
        }
    }
}
