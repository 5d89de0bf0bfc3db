//! One client, one publication and one container, for tests.

use super::MemoryTables;
use crate::layout::{
    Config, ForwardKey, Handle, Link, LocalKey, Publication, PublicationKey, ReplyKey, Timeouts,
    Uplink, link_flags, origin,
};
use crate::packet::Arrival;
use crate::wire::protocol;

/// The client, 2001:db8:1::5.
pub const CLIENT: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
/// The host, 2001:db8:1::1.
pub const HOST: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// The container.
pub const TARGET: [u8; 4] = [172, 17, 0, 2];
/// The bridge's address.
pub const GATEWAY: [u8; 4] = [172, 17, 0, 1];
/// The container's hardware address.
pub const TARGET_MAC: [u8; 6] = [2, 0x42, 0xac, 0x11, 0, 2];
/// The published port.
pub const PORT: [u8; 2] = 8080u16.to_be_bytes();
/// The container's port.
pub const TARGET_PORT: [u8; 2] = 80u16.to_be_bytes();
/// Interface index of the uplink.
pub const UPLINK: u32 = 10;
/// Interface index of the slow lane's way in.
pub const SLOW_LANE: u32 = 9;
/// Interface index of the host's side of the container's veth.
pub const VETH: u32 = 20;
/// Interface index of the bridge.
pub const BRIDGE: u32 = 21;

/// Pool 198.18.0.0/15, gateway ports 61000–64999.
#[must_use]
pub fn config() -> Config {
    Config {
        pool: [198, 18, 0, 0],
        pool_mask: [255, 254, 0, 0],
        key: *b"0123456789abcdef",
        gateway_first: 61_000,
        gateway_last: 64_999,
        timeouts: Timeouts::default(),
        ready: 1,
        slow_lane: SLOW_LANE,
        flags: 0,
        sessions_per_source: 0,
        aliases_per_source: 0,
        reserved: [0; 16],
    }
}

/// A TCP flow from the client to the published port.
#[must_use]
pub fn flow() -> ForwardKey {
    ForwardKey {
        client: CLIENT,
        host: HOST,
        client_port: 49_153u16.to_be_bytes(),
        host_port: PORT,
        scope: 0,
        protocol: protocol::TCP,
        origin: origin::NETWORK,
        reserved: [0; 2],
    }
}

/// What the container might see of [`flow`].
#[must_use]
pub fn reply() -> ReplyKey {
    ReplyKey {
        target: TARGET,
        alias: [198, 18, 0, 7],
        target_port: TARGET_PORT,
        alias_port: 49_153u16.to_be_bytes(),
        protocol: protocol::TCP,
        reserved: [0; 3],
    }
}

/// A link to the container by its veth.
#[must_use]
pub fn link() -> Link {
    Link {
        generation: 1,
        flags: link_flags::UP | link_flags::PEER,
        veth: VETH,
        device: BRIDGE,
        target: TARGET,
        gateway: GATEWAY,
        mac: TARGET_MAC,
        device_mac: [2, 0x42, 0, 0, 0, 1],
        mtu: 1500,
        reserved: [0; 16],
    }
}

/// An uplink with Ethernet headers.
#[must_use]
pub fn uplink(mtu: u32) -> Uplink {
    Uplink { mtu, flags: 0, mac: [2, 0, 0, 0, 0, 10], reserved: [0; 2] }
}

/// What the kernel says about a plain packet of `length` bytes on `ifindex`.
#[must_use]
pub fn arrival(ifindex: u32, length: usize) -> Arrival {
    Arrival {
        ifindex,
        length: length as u32,
        now: 1_000,
        gso_size: 0,
        gso_segments: 0,
        from_host: false,
    }
}

/// TCP and UDP port 8080 of every address of the host, published to port 80 of the container.
#[must_use]
pub fn tables() -> MemoryTables {
    let mut tables = MemoryTables { config: Some(config()), ..MemoryTables::default() };
    tables.locals.push((LocalKey::BITS, LocalKey { scope: [0; 4], address: HOST }));
    tables.links.push(link());
    tables.uplinks.insert(UPLINK, uplink(1500));
    for (index, number) in [protocol::TCP, protocol::UDP].into_iter().enumerate() {
        let key =
            PublicationKey { host: [0; 16], scope: 0, port: PORT, protocol: number, reserved: 0 };
        let value = Publication {
            handle: Handle { index: index as u32 + 1, generation: 1 },
            target: TARGET,
            target_port: TARGET_PORT,
            source: 0,
            flags: 0,
            link: 0,
            max_sessions: 0,
            rate: 0,
            source_rate: 0,
            reserved: [0; 8],
        };
        tables.publish(key, value);
    }
    tables
}
