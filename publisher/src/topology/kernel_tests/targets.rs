//! The way to a target, in the layouts that container engines make.

use std::{net::Ipv4Addr, time::Instant};

use super::harness::{Namespace, bridge_container, bridge_host, plug};
use crate::topology::{AliasRoute, DeviceKind, ResolvedTarget};

fn veth(resolved: &ResolvedTarget) -> Option<&str> {
    resolved.veth.as_ref().map(|veth| veth.name.as_str())
}

#[test]
fn container_on_a_bridge() {
    let host = bridge_host();
    let container = bridge_container(&host, "veth1", "172.30.0.2", 0x12);
    let _neighbour = bridge_container(&host, "veth2", "172.30.0.3", 0x13);
    container.ip("route add default via 172.30.0.1");
    let resolved = host.resolve("172.30.0.2").unwrap();
    assert_eq!(resolved.device.name, "br0");
    assert_eq!(resolved.device.kind, DeviceKind::Bridge);
    assert_eq!(veth(&resolved), Some("veth1"));
    assert_eq!(resolved.mac, Some([2, 0, 0, 0, 0, 0x12]));
    assert_eq!(resolved.gateway, Some(Ipv4Addr::new(172, 30, 0, 1)));
    assert_eq!(resolved.mtu, 1500);
    assert_eq!(resolved.peer, Ok(()));
    assert_eq!(resolved.alias_route, AliasRoute::Returns);
}

#[test]
fn the_smallest_mtu_on_the_way_counts() {
    let host = bridge_host();
    let _container = bridge_container(&host, "veth1", "172.30.0.2", 0x12);
    host.ip("link set veth1 mtu 1400");
    assert_eq!(host.resolve("172.30.0.2").unwrap().mtu, 1400);
    host.ip("route add 172.30.0.2/32 dev br0 mtu 1300");
    assert_eq!(host.resolve("172.30.0.2").unwrap().mtu, 1300);
}

#[test]
fn container_on_a_veth_of_its_own() {
    let (host, container) = (Namespace::new(), Namespace::new());
    host.ip(&format!("link add cali1 type veth peer name eth0 netns {}", container.name));
    host.ip("link set cali1 up");
    host.ip("addr add 10.77.0.1/32 dev cali1");
    container.ip("link set eth0 up");
    container.ip("addr add 10.77.0.2/32 dev eth0");
    host.ip("route add 10.77.0.2/32 dev cali1");
    container.ip("route add 10.77.0.1/32 dev eth0");
    container.ip("route add default via 10.77.0.1");
    let resolved = host.resolve("10.77.0.2").unwrap();
    assert_eq!(resolved.device.kind, DeviceKind::Veth);
    assert_eq!(resolved.veth, Some(resolved.device.clone()));
    assert_eq!(resolved.gateway, Some(Ipv4Addr::new(10, 77, 0, 1)));
    assert!(resolved.mac.is_some());
    assert_eq!(resolved.peer, Ok(()));
    assert_eq!(resolved.alias_route, AliasRoute::Returns);
}

#[test]
fn container_in_two_networks() {
    let host = bridge_host();
    let container = bridge_container(&host, "veth1", "172.30.0.2", 0x12);
    let resolved = host.resolve("172.30.0.2").unwrap();
    let none = "172.30.0.2 has no route to 198.18.0.9".to_owned();
    assert_eq!(resolved.alias_route, AliasRoute::Elsewhere { reason: none });

    host.ip("link add br1 type bridge");
    host.ip("addr add 172.31.0.1/24 dev br1");
    host.ip("link set br1 up");
    plug(&host, &container, "br1", "veth2", "eth1", "172.31.0.2/24", 0x22);
    container.ip("route add default via 172.31.0.1");
    let resolved = host.resolve("172.30.0.2").unwrap();
    assert_eq!(veth(&resolved), Some("veth1"));
    let other = "default route of 172.30.0.2 leaves by eth1".to_owned();
    assert_eq!(resolved.alias_route, AliasRoute::Elsewhere { reason: other });

    let resolved = host.resolve("172.31.0.2").unwrap();
    assert_eq!(veth(&resolved), Some("veth2"));
    assert_eq!(resolved.alias_route, AliasRoute::Returns);
}

#[test]
fn container_that_only_a_process_holds() {
    let host = bridge_host();
    let process = Sleeper::in_a_new_namespace();
    let inside = format!("--net=/proc/{}/ns/net", process.0.id());
    host.ip(&format!("link add veth1 type veth peer name eth0 netns {}", process.0.id()));
    host.ip("link set veth1 master br0 up");
    for arguments in
        ["addr add 172.30.0.2/24 dev eth0", "link set eth0 up", "route add default via 172.30.0.1"]
    {
        let status = std::process::Command::new("nsenter")
            .args([&inside, "ip"])
            .args(arguments.split(' '))
            .status();
        assert!(status.unwrap().success(), "{arguments}");
    }
    let resolved = host.resolve("172.30.0.2").unwrap();
    assert_eq!(resolved.alias_route, AliasRoute::Returns);
}

/// A process in an unnamed network namespace.
struct Sleeper(std::process::Child);

impl Sleeper {
    fn in_a_new_namespace() -> Self {
        let command = ["--net", "sleep", "60"];
        let process = Self(std::process::Command::new("unshare").args(command).spawn().unwrap());
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let file = format!("/proc/{}/ns/net", process.0.id());
        while std::fs::read_link(&file).unwrap() == own {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        process
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("the process can be ended");
    }
}

#[test]
fn container_whose_namespace_nobody_can_open() {
    let host = bridge_host();
    let container = bridge_container(&host, "veth1", "172.30.0.2", 0x12);
    container.ip("route add default via 172.30.0.1");
    // The thread keeps the namespace alive when its name is gone. Only a process's first thread
    // is looked at.
    let name = format!("/run/netns/{}", container.name);
    container.enter(|| {
        rustix::mount::unmount(&name, rustix::mount::UnmountFlags::DETACH).unwrap();
        let resolved = host.resolve("172.30.0.2").unwrap();
        assert_eq!(veth(&resolved), Some("veth1"));
        assert_eq!(resolved.peer, Ok(()));
        let reason = "the network namespace behind veth1 can't be found".to_owned();
        assert_eq!(resolved.alias_route, AliasRoute::Unknown { reason });
    });
}

#[test]
fn target_behind_a_router() {
    let host = bridge_host();
    let _router = bridge_container(&host, "veth1", "172.30.0.2", 0x12);
    host.ip("route add 10.99.0.0/16 via 172.30.0.2");
    let resolved = host.resolve("10.99.0.5").unwrap();
    assert_eq!(resolved.device.name, "br0");
    assert_eq!(resolved.device.kind, DeviceKind::Other);
    assert_eq!(resolved.veth, None);
    assert_eq!(resolved.mac, Some([2, 0, 0, 0, 0, 0x12]));
    let why = "10.99.0.5 is behind the router 172.30.0.2".to_owned();
    assert_eq!(resolved.peer, Err(why.clone()));
    assert_eq!(resolved.alias_route, AliasRoute::Unknown { reason: why });
}

#[test]
fn target_behind_a_tunnel_without_ethernet() {
    let host = Namespace::new();
    host.ip("tuntap add dev tun0 mode tun");
    host.ip("addr add 10.88.0.1/24 dev tun0");
    host.ip("link set tun0 up");
    let resolved = host.resolve("10.88.0.2").unwrap();
    assert_eq!((resolved.device.kind, resolved.mac), (DeviceKind::Other, None));
    let why = "10.88.0.2 is reached by tun0, which is not a veth".to_owned();
    assert_eq!(resolved.peer, Err(why));
}

#[test]
fn s16_targets_that_cannot_be() {
    let host = bridge_host();
    let reason = |target: &str| host.resolve(target).unwrap_err().reason;
    assert_eq!(reason("172.30.0.1"), "172.30.0.1 is an address of this host, not of a container");
    assert_eq!(reason("127.0.0.1"), "127.0.0.1 is an address of this host, not of a container");
    assert_eq!(reason("172.30.0.255"), "172.30.0.255 is a broadcast address");
    assert!(reason("10.1.2.3").starts_with("no route to 10.1.2.3: "), "{}", reason("10.1.2.3"));
    host.ip("route add default via 172.30.0.9");
    assert_eq!(reason("224.0.0.5"), "224.0.0.5 is a multicast address");
    host.ip("route add blackhole 10.2.0.0/16");
    assert!(reason("10.2.0.1").starts_with("no route to 10.2.0.1: "), "{}", reason("10.2.0.1"));
}

#[test]
fn target_that_doesnt_answer() {
    let host = bridge_host();
    let container = bridge_container(&host, "veth1", "172.30.0.2", 0x12);
    container.ip("addr del 172.30.0.2/24 dev eth0");
    let start = Instant::now();
    let reason = host.resolve("172.30.0.2").unwrap_err().reason;
    assert_eq!(reason, "no answer to ARP for 172.30.0.2 on br0");
    assert!(start.elapsed().as_millis() < 600, "took {:?}", start.elapsed());
    // It is asked again each time, also when the kernel has given up.
    container.ip("addr add 172.30.0.2/24 dev eth0");
    assert_eq!(veth(&host.resolve("172.30.0.2").unwrap()), Some("veth1"));
}
