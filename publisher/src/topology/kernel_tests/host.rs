//! The host's own interfaces, addresses and routes.

use std::net::Ipv6Addr;

use super::harness::{Namespace, bridge_container, bridge_host};
use crate::topology::{LocalPrefix, Snapshot, SnapshotOptions};

fn snapshot(host: &Namespace, options: &SnapshotOptions) -> Snapshot {
    host.with_topology(async |topology| topology.snapshot(options).await.unwrap())
}

fn uplinks(snapshot: &Snapshot) -> Vec<(&str, bool)> {
    snapshot.uplinks.iter().map(|uplink| (uplink.name.as_str(), uplink.ethernet)).collect()
}

fn local(address: &str, prefix_len: u8, scope: u32) -> LocalPrefix {
    LocalPrefix { address: address.parse().unwrap(), prefix_len, scope }
}

#[test]
fn uplinks_of_a_container_host() {
    let (host, router) = (bridge_host(), Namespace::new());
    host.ip(&format!("link add wan0 type veth peer name lan0 netns {}", router.name));
    host.ip("link set wan0 up");
    host.ip("addr add 2001:db8::1/64 dev wan0 nodad");
    let _container = bridge_container(&host, "veth1", "172.30.0.2", 0x12);
    for (name, mode) in [("tun0", "tun"), ("tap0", "tap")] {
        host.ip(&format!("tuntap add dev {name} mode {mode}"));
        host.ip(&format!("link set {name} up"));
    }
    host.ip("link add off0 type veth peer name off1");
    let options = SnapshotOptions::default();
    let found = snapshot(&host, &options);
    let mut sorted = uplinks(&found);
    sorted.sort();
    assert_eq!(sorted, [("tap0", true), ("tun0", false), ("wan0", true)]);

    // A card in the bridge makes the bridge an uplink, and the card is none any more.
    host.ip("link set tap0 master br0");
    let found = snapshot(&host, &options);
    let mut sorted = uplinks(&found);
    sorted.sort();
    assert_eq!(sorted, [("br0", true), ("tun0", false), ("wan0", true)]);

    // IPv6 can be switched off.
    host.enter(|| {
        std::fs::write("/proc/sys/net/ipv6/conf/tun0/disable_ipv6", "1").unwrap();
    });
    let found = snapshot(&host, &options);
    assert!(uplinks(&found).iter().all(|(name, _)| *name != "tun0"));

    let options = SnapshotOptions { uplinks: vec!["veth1".into()], ..options };
    let found = snapshot(&host, &options);
    assert_eq!(uplinks(&found), [("veth1", true)]);
    assert!(found.warnings.is_empty());
}

#[test]
fn a_default_route_makes_a_bridge_an_uplink() {
    let host = bridge_host();
    let _container = bridge_container(&host, "veth1", "172.30.0.2", 0x12);
    let links = snapshot(&host, &SnapshotOptions::default()).links;
    let bridge = links.values().find(|link| link.name == "br0").unwrap();
    let veth = links.values().find(|link| link.name == "veth1").unwrap();
    assert!(veth.is_container_veth() && veth.master == Some(bridge.ifindex));
    assert!(!bridge.has_default_route && !bridge.has_global_address);
    host.ip("link add card0 type veth peer name card1");
    host.ip("link set card0 master br0 up");
    host.ip("link set card1 up");
    host.ip("-6 route add default dev br0");
    let options =
        SnapshotOptions { container_links: [bridge.ifindex].into(), ..SnapshotOptions::default() };
    let found = snapshot(&host, &options);
    assert!(uplinks(&found).contains(&("br0", true)), "{:?}", found.uplinks);
}

#[test]
fn local_addresses() {
    let (host, router) = (Namespace::new(), Namespace::new());
    host.ip(&format!("link add wan0 type veth peer name lan0 netns {}", router.name));
    host.ip("link set wan0 up");
    router.ip("link set lan0 up");
    host.ip("addr add 2001:db8::1/64 dev wan0 nodad");
    host.ip("addr add fe80::77/64 dev wan0 nodad");
    host.ip("addr add 2001:db8:2::1/128 dev lo");
    host.ip("-6 route add local 2001:db8:1::/64 dev lo");
    host.ip("-6 route add local 2001:db8:3::/48 dev lo table 100");
    host.ip("-6 route add 2001:db8:4::/64 dev wan0");
    // As for a transparent proxy: not everything is the host's own.
    host.ip("-6 route add local default dev lo table 100");
    let found = snapshot(&host, &SnapshotOptions::default());
    let wan = found.links.values().find(|link| link.name == "wan0").unwrap().ifindex;
    for expected in [
        local("2001:db8::1", 128, 0),
        local("fe80::77", 128, wan),
        local("2001:db8:2::1", 128, 0),
        local("2001:db8:1::", 64, 0),
        local("2001:db8:3::", 48, 0),
    ] {
        assert!(found.locals.contains(&expected), "{expected:?} in {:?}", found.locals);
    }
    for prefix in &found.locals {
        let LocalPrefix { address, scope, .. } = prefix;
        assert!(!address.is_multicast() && *address != Ipv6Addr::LOCALHOST, "{prefix:?}");
        assert_eq!(*scope != 0, address.is_unicast_link_local(), "{prefix:?}");
        assert!(prefix.prefix_len >= 48 && *address != "2001:db8:4::".parse::<Ipv6Addr>().unwrap());
    }
    assert!(found.locals.is_sorted());
}

#[test]
fn s16_routes_that_overlap_the_alias_pool() {
    let host = bridge_host();
    let conflicts = |pool: &str| {
        let pool = pool.parse().unwrap();
        host.with_topology(async |topology| topology.route_conflicts(pool).await.unwrap())
    };
    host.ip("route add default via 172.30.0.9");
    host.ip("route add 198.20.0.0/16 via 172.30.0.9");
    assert!(conflicts("198.18.0.0/15").is_empty());
    host.ip("route add 198.18.0.0/16 via 172.30.0.9 table 42");
    host.ip("route add blackhole 198.19.7.0/24");
    host.ip("addr add 198.18.3.4/32 dev br0");
    assert_eq!(
        conflicts("198.18.0.0/15"),
        [
            "local address 198.18.3.4/32 dev br0",
            "route 198.18.0.0/16 dev br0 table 42",
            "unreachable or special route 198.19.7.0/24",
        ]
    );
    assert_eq!(
        conflicts("172.30.0.128/25"),
        ["route 172.30.0.0/24 dev br0"],
        "a pool inside a route"
    );
}

#[test]
fn reserved_ports_as_the_kernel_keeps_them() {
    use crate::topology::reserved_ports::{
        PortSet, read_ephemeral, read_reserved, reserve, write_reserved,
    };
    Namespace::new().enter(|| {
        let none = PortSet::default();
        assert_eq!(read_reserved().unwrap(), none);
        let range = "/proc/sys/net/ipv4/ip_local_port_range";
        std::fs::write(range, "40000 40003").unwrap();
        assert_eq!(read_ephemeral().unwrap(), 40_000..=40_003);
        let owner: PortSet = "9000,40003".parse().unwrap();
        write_reserved(&owner).unwrap();
        let published = "80,40001-40003".parse().unwrap();
        let reservation = reserve(&owner, &none, &published, read_ephemeral().unwrap());
        write_reserved(&reservation.next).unwrap();
        assert_eq!(read_reserved().unwrap().to_string(), "9000,40001-40003");
        let last = reserve(&read_reserved().unwrap(), &reservation.ours, &none, 1..=2);
        write_reserved(&last.next).unwrap();
        assert_eq!(read_reserved().unwrap(), owner);
        write_reserved(&none).unwrap();
        assert_eq!(read_reserved().unwrap(), none);
    });
}
