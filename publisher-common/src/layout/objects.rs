//! What the daemon writes for the datapath to read.

use super::keys::ForwardKey;
use super::session::Handle;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Values of [`Publication::source`]: what the container sees as the client's address.
pub mod source_mode {
    /// An alias out of the pool, one per client.
    pub const ALIAS: u8 = 0;
    /// The container link's own address, with a port out of a reserved range.
    pub const GATEWAY: u8 = 1;
}

/// A published port and its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Publication {
    /// The publication's number and generation.
    pub handle: Handle,
    /// The container's address.
    pub target: [u8; 4],
    /// The container's port.
    pub target_port: [u8; 2],
    /// One of [`source_mode`].
    pub source: u8,
    /// The bits of [`publication_flags`].
    pub flags: u8,
    /// Index of the target's link.
    pub link: u32,
    /// Established sessions that it may have at once; 0 for no limit.
    pub max_sessions: u32,
    /// Sessions that may be opened in a second; 0 for no limit.
    pub rate: u32,
    /// Sessions that each /64 may open in a second; 0 for no limit.
    pub source_rate: u32,
    /// Written as 0.
    pub reserved: [u8; 8],
}

/// Bits of [`Publication::flags`].
pub mod publication_flags {
    /// Clients are let in by the access rules of [`super::super::names::ACCESS`]; where none matches, a
    /// client is kept out.
    pub const ACCESS: u8 = 1 << 0;
    /// Sessions are opened past sockets that are bound to the port: it is the daemon's own that has it, or
    /// the kernel path was asked for beside whoever has it. Only a connected socket is somebody else's.
    pub const PAST_BOUND: u8 = 1 << 1;
}

/// Bits of [`Link::flags`].
pub mod link_flags {
    /// The target can be reached.
    pub const UP: u32 = 1 << 0;
    /// `bpf_redirect_peer` to `veth` is right.
    pub const PEER: u32 = 1 << 1;
}

/// How a target is reached.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Link {
    /// Raised when the target's link or hardware address changes; older sessions end.
    pub generation: u32,
    /// The bits of [`link_flags`].
    pub flags: u32,
    /// Interface index of the host's side of the container's veth; 0 while it isn't known.
    pub veth: u32,
    /// Interface index of what the route to the target names: a bridge, or the veth itself.
    pub device: u32,
    /// The target's address.
    pub target: [u8; 4],
    /// The host's address on `device`: the source of gateway mode and of translated ICMP errors.
    pub gateway: [u8; 4],
    /// The target's hardware address.
    pub mac: [u8; 6],
    /// The hardware address of `device`.
    pub device_mac: [u8; 6],
    /// IPv4 MTU towards the target.
    pub mtu: u32,
    /// Written as 0.
    pub reserved: [u8; 16],
}

impl Link {
    /// Whether sessions of this generation may use the link.
    #[inline(always)]
    #[must_use]
    pub const fn serves(&self, generation: u32) -> bool {
        self.flags & link_flags::UP != 0 && self.generation == generation
    }
}

/// Bits of [`Uplink::flags`].
pub mod uplink_flags {
    /// Packets have no Ethernet header.
    pub const RAW: u32 = 1 << 0;
}

/// An interface that clients arrive on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Uplink {
    /// IPv6 MTU.
    pub mtu: u32,
    /// The bits of [`uplink_flags`].
    pub flags: u32,
    /// Its hardware address, or 0.
    pub mac: [u8; 6],
    /// Written as 0.
    pub reserved: [u8; 2],
}

/// Which client an alias stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Alias {
    /// The client's address.
    pub client: [u8; 16],
    /// Interface index for a link-local client; 0 for others.
    pub scope: u32,
    /// When it was bound.
    pub created: u32,
    /// When a session of the client was last seen; kept by the daemon.
    pub last_seen: u32,
    /// 1 if it stands for the whole /64 of `client`, whose other half is 0 then.
    pub whole_prefix: u8,
    /// Written as 0.
    pub reserved: [u8; 11],
}

impl Alias {
    /// Whether the client of a flow may be seen as this alias.
    #[inline(always)]
    #[must_use]
    pub fn is_of(&self, flow: &ForwardKey) -> bool {
        let difference = u128::from_be_bytes(self.client) ^ u128::from_be_bytes(flow.client);
        let (prefix, rest) = ((difference >> 64) as u64, difference as u64);
        prefix == 0 && (rest == 0 || self.whole_prefix != 0) && self.scope == flow.scope
    }
}

/// How long a session may be idle, in seconds (RFC 6146 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Timeouts {
    /// UDP, default 5 minutes.
    pub udp: u32,
    /// Established TCP, default 2 hours and 4 minutes.
    pub tcp_established: u32,
    /// TCP half-open, closing or reset, default 4 minutes.
    pub tcp_transitory: u32,
    /// Between two fragments of a datagram, default 5 seconds.
    pub fragments: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { udp: 300, tcp_established: 7_440, tcp_transitory: 240, fragments: 5 }
    }
}

/// What holds for the whole datapath.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    /// First address of the alias pool.
    pub pool: [u8; 4],
    /// Network mask of the alias pool.
    pub pool_mask: [u8; 4],
    /// What aliases and ports are hashed with.
    pub key: [u8; 16],
    /// First and last source port of gateway mode, host order.
    pub gateway_first: u16,
    /// See `gateway_first`.
    pub gateway_last: u16,
    /// How long a session may be idle.
    pub timeouts: Timeouts,
    /// 1 once the daemon has written a whole configuration.
    pub ready: u32,
    /// Interface index of the slow lane's way in; 0 where there is none.
    pub slow_lane: u32,
    /// The bits of [`config_flags`].
    pub flags: u32,
    /// Established sessions that each /64 may have; 0 for no limit.
    pub sessions_per_source: u32,
    /// Aliases that the clients of each /64 may have to themselves; 0 for no limit.
    pub aliases_per_source: u32,
    /// Written as 0.
    pub reserved: [u8; 16],
}

/// Bits of [`Config::flags`].
pub mod config_flags {
    /// There are access rules that hold for all publications.
    pub const BANS: u32 = 1 << 0;
    /// All clients of a /64 are seen as one alias.
    pub const ALIAS_PER_PREFIX: u32 = 1 << 1;
    /// The tables of an older layout may still hold sessions.
    pub const ADOPTING: u32 = 1 << 2;
}

impl Config {
    /// Whether any of these bits of [`config_flags`] is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flags: u32) -> bool {
        self.flags & flags != 0
    }

    /// Whether an address is out of the alias pool.
    #[inline(always)]
    #[must_use]
    pub const fn is_alias(&self, address: [u8; 4]) -> bool {
        u32::from_ne_bytes(address) & u32::from_ne_bytes(self.pool_mask)
            == u32::from_ne_bytes(self.pool)
    }

    /// Whether a port is one of gateway mode's.
    #[inline(always)]
    #[must_use]
    pub const fn is_gateway_port(&self, port: [u8; 2]) -> bool {
        let port = u16::from_be_bytes(port);
        self.gateway_first <= port && port <= self.gateway_last
    }
}
