//! Notices of changes, and how soon a restarted container is found again.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::harness::{ALIAS, Namespace, bridge_container, bridge_host, plug};
use crate::topology::{Changes, Watcher};

/// Waits for notices until `wanted` holds for one of them.
async fn expect(watcher: &mut Watcher, what: &str, wanted: impl Fn(Changes) -> bool) {
    let found = async { while !wanted(watcher.next().await.unwrap()) {} };
    timeout(Duration::from_secs(2), found).await.unwrap_or_else(|_| panic!("no notice of {what}"));
}

/// Takes what is still on its way from the preparations.
async fn settle(watcher: &mut Watcher) {
    while timeout(Duration::from_millis(150), watcher.next()).await.is_ok() {}
}

#[test]
fn each_kind_of_change_is_noticed() {
    let host = bridge_host();
    let container = bridge_container(&host, "veth1", "172.30.0.2", 0x12);
    host.with_topology(async |topology| {
        let mut watcher = topology.watch().unwrap();
        settle(&mut watcher).await;
        host.ip("link set br0 mtu 1400");
        expect(&mut watcher, "an MTU", |changes| changes.links).await;
        host.ip("addr add 2001:db8::1/64 dev br0 nodad");
        expect(&mut watcher, "an address", |changes| changes.addresses).await;
        host.ip("-6 route add local 2001:db8:1::/64 dev lo");
        expect(&mut watcher, "AnyIP", |changes| changes.addresses && !changes.routes).await;
        host.ip("route add 10.1.0.0/16 dev br0");
        expect(&mut watcher, "a route", |changes| changes.routes && !changes.addresses).await;
        host.ip("neigh add 172.30.0.7 lladdr 02:00:00:00:00:07 dev br0");
        expect(&mut watcher, "a neighbour", |changes| changes.neighbours).await;
        host.tc("qdisc add dev veth1 root tbf rate 1mbit burst 10k latency 50ms");
        expect(&mut watcher, "a qdisc", |changes| changes.traffic_control).await;
        container.ip("link set eth0 down");
        expect(&mut watcher, "a lost carrier", |changes| changes.links).await;
    });
}

#[test]
fn a_burst_is_one_notice_and_a_stream_isnt_held_back() {
    let host = bridge_host();
    host.with_topology(async |topology| {
        let mut watcher = topology.watch().unwrap();
        settle(&mut watcher).await;
        let batch: String =
            (0..200).map(|n| format!("route add 10.1.{n}.0/24 dev br0\n")).collect();
        host.feed(&["ip", "-batch", "-"], &batch);
        let changes = timeout(Duration::from_secs(1), watcher.next()).await.unwrap().unwrap();
        assert!(changes.routes && !changes.overrun);
        let more = timeout(Duration::from_millis(200), watcher.next()).await;
        assert!(more.is_err(), "one burst gave a second notice: {more:?}");
    });
}

#[test]
fn lost_notices_are_told() {
    let host = bridge_host();
    host.with_topology(async |topology| {
        let mut watcher = topology.watch().unwrap();
        let batch: String = (0..60_000_u32)
            .map(|n| format!("route add 10.{}.{}.{}/32 dev br0\n", n >> 16, n >> 8 & 255, n & 255))
            .collect();
        host.feed(&["ip", "-batch", "-"], &batch);
        expect(&mut watcher, "an overrun", |changes| changes == Changes::OVERRUN).await;
        settle(&mut watcher).await;
        host.ip("link set br0 mtu 1400");
        expect(&mut watcher, "a change after it", |changes| changes.links && !changes.overrun)
            .await;
    });
}

/// Otherwise a caller that resolves at every notice would never come to rest.
#[test]
fn resolving_a_dead_or_unlearned_target_isnt_a_change() {
    let host = bridge_host();
    let (dead, unlearned) = (Namespace::new(), Namespace::new());
    for namespace in [&host, &dead, &unlearned] {
        // Its own chatter would be news for the forwarding table.
        namespace.enter(|| {
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        });
    }
    plug(&host, &dead, "br0", "veth1", "eth0", "172.30.0.99/24", 0x12);
    plug(&host, &unlearned, "br0", "veth2", "eth0", "172.30.0.3/24", 0x13);
    host.ip("link set veth2 type bridge_slave learning off");
    host.with_topology(async |topology| {
        let (dead, unlearned) = ("172.30.0.2".parse().unwrap(), "172.30.0.3".parse().unwrap());
        topology.resolve(dead, ALIAS).await.unwrap_err();
        let resolved = topology.resolve(unlearned, ALIAS).await.unwrap();
        assert_eq!(resolved.veth, None, "the port learns");
        assert_eq!(resolved.mac, Some([2, 0, 0, 0, 0, 0x13]));
        let mut watcher = topology.watch().unwrap();
        settle(&mut watcher).await;
        topology.resolve(dead, ALIAS).await.unwrap_err();
        topology.resolve(unlearned, ALIAS).await.unwrap();
        while let Ok(changes) = timeout(Duration::from_millis(300), watcher.next()).await {
            let changes = changes.unwrap();
            assert!(!changes.neighbours, "{changes:?}");
        }
    });
}

/// Container engines give a restarted container a new veth, and newer ones a new hardware
/// address, while the host's ARP entry still holds the old one as reachable.
#[test]
fn a_restarted_container_is_found_in_less_than_a_second() {
    for new_mac in [0x12, 0x55] {
        let host = bridge_host();
        let container = bridge_container(&host, "veth1", "172.30.0.2", 0x12);
        host.with_topology(async |topology| {
            let target = "172.30.0.2".parse().unwrap();
            let before = topology.resolve(target, ALIAS).await.unwrap();
            let mut watcher = topology.watch().unwrap();
            settle(&mut watcher).await;
            host.ip("link del veth1");
            drop(container);
            expect(&mut watcher, "the container's end", |changes| changes.links).await;
            assert!(topology.resolve(target, ALIAS).await.is_err());

            let start = Instant::now();
            let _restarted: Namespace = bridge_container(&host, "veth7", "172.30.0.2", new_mac);
            let after = loop {
                timeout(Duration::from_secs(2), watcher.next()).await.unwrap().unwrap();
                if let Ok(resolved) = topology.resolve(target, ALIAS).await {
                    break resolved;
                }
            };
            let took = start.elapsed();
            assert!(took < Duration::from_millis(800), "took {took:?}");
            assert_eq!(after.mac, Some([2, 0, 0, 0, 0, new_mac]));
            assert_eq!(after.veth.as_ref().unwrap().name, "veth7");
            assert_ne!(after.veth, before.veth);
        });
    }
}
