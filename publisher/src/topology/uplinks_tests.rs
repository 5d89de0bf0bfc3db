use super::*;

/// A link of index `ifindex` named `name` that would be an uplink if it were a plain card.
fn card(ifindex: u32, name: &str) -> LinkInfo {
    LinkInfo {
        ifindex,
        name: name.to_owned(),
        arphrd: libc::ARPHRD_ETHER,
        flags: libc::IFF_UP as u32,
        mtu: 1500,
        ipv6: true,
        has_address: true,
        has_global_address: true,
        ..LinkInfo::default()
    }
}

fn of_kind(ifindex: u32, name: &str, kind: &str) -> LinkInfo {
    LinkInfo { kind: Some(kind.to_owned()), ..card(ifindex, name) }
}

fn port(link: LinkInfo, master: u32) -> LinkInfo {
    LinkInfo { master: Some(master), has_address: false, has_global_address: false, ..link }
}

fn container_veth(ifindex: u32, name: &str) -> LinkInfo {
    LinkInfo { link: Some(2), link_netnsid: Some(0), ..of_kind(ifindex, name, "veth") }
}

/// A bridge without an IPv6 address but the link-local one.
fn silent(link: LinkInfo) -> LinkInfo {
    LinkInfo { has_global_address: false, ..link }
}

fn loopback() -> LinkInfo {
    LinkInfo {
        arphrd: libc::ARPHRD_LOOPBACK,
        flags: (libc::IFF_UP | libc::IFF_LOOPBACK) as u32,
        ..card(1, "lo")
    }
}

fn chosen(links: &[LinkInfo], targets: &[u32]) -> Vec<String> {
    let options = SnapshotOptions {
        container_links: targets.iter().copied().collect(),
        ..SnapshotOptions::default()
    };
    let links = links.iter().map(|link| (link.ifindex, link.clone())).collect();
    choose(&links, &options).0.into_iter().map(|uplink| uplink.name).collect()
}

#[test]
fn a_docker_host() {
    let links = [
        loopback(),
        card(2, "eth0"),
        silent(of_kind(3, "docker0", "bridge")),
        port(container_veth(4, "veth1"), 3),
        silent(of_kind(5, "br-1234", "bridge")),
        port(container_veth(6, "veth2"), 5),
        port(container_veth(7, "veth3"), 5),
    ];
    assert_eq!(chosen(&links, &[3, 4]), ["eth0"]);
    assert_eq!(chosen(&links, &[]), ["eth0"]);
}

#[test]
fn s15_a_network_of_containers_that_has_ipv6() {
    let links = [
        card(2, "eth0"),
        of_kind(3, "docker0", "bridge"),
        port(container_veth(4, "veth1"), 3),
        silent(of_kind(5, "br-1234", "bridge")),
        port(container_veth(6, "veth2"), 5),
    ];
    for targets in [&[][..], &[3, 4], &[3, 4, 5, 6]] {
        assert_eq!(chosen(&links, targets), ["eth0", "docker0"]);
    }
}

#[test]
fn what_is_down_or_without_ipv6_or_made_of_nothing_is_left_out() {
    let links = [
        LinkInfo { flags: 0, ..card(2, "down") },
        LinkInfo { ipv6: false, ..card(3, "without6") },
        of_kind(4, "dummy0", "dummy"),
        of_kind(5, "vrf-blue", "vrf"),
        LinkInfo { arphrd: libc::ARPHRD_INFINIBAND, ..card(6, "ib0") },
        card(7, "eth0"),
    ];
    assert_eq!(chosen(&links, &[]), ["eth0"]);
}

#[test]
fn bonds_and_vlans_rather_than_their_ports() {
    let links = [
        port(card(2, "eth0"), 4),
        port(card(3, "eth1"), 4),
        of_kind(4, "bond0", "bond"),
        LinkInfo { link: Some(4), ..of_kind(5, "bond0.10", "vlan") },
    ];
    assert_eq!(chosen(&links, &[]), ["bond0", "bond0.10"]);
}

#[test]
fn members_of_a_vrf_rather_than_the_vrf() {
    let links = [of_kind(2, "blue", "vrf"), LinkInfo { master: Some(2), ..card(3, "eth0") }];
    assert_eq!(chosen(&links, &[]), ["eth0"]);
}

#[test]
fn a_bridge_of_the_hosts_own_network() {
    let bridge = of_kind(3, "br0", "bridge");
    let silent = silent(bridge.clone());
    for outside in [card(2, "eth0"), of_kind(2, "tap0", "tun"), of_kind(2, "vx0", "vxlan")] {
        let links = [port(outside.clone(), 3), bridge.clone(), port(container_veth(4, "lxc"), 3)];
        assert_eq!(chosen(&links, &[]), ["br0"]);
        // It holds a target too, and still the host's clients come by it.
        assert_eq!(chosen(&links, &[3, 4]), ["br0"]);
        let links = [port(outside.clone(), 3), silent.clone()];
        assert_eq!(chosen(&links, &[]), ["br0"], "link-local clients");
        assert!(chosen(&links, &[3]).is_empty());
        let routed = LinkInfo { has_default_route: true, ..silent.clone() };
        assert_eq!(chosen(&[port(outside, 3), routed], &[3]), ["br0"]);
    }
}

#[test]
fn a_bridge_without_ports_or_with_containers_only() {
    let bridge = of_kind(3, "br0", "bridge");
    assert!(chosen(std::slice::from_ref(&bridge), &[]).is_empty());
    assert!(chosen(&[silent(bridge), port(container_veth(4, "a"), 3)], &[]).is_empty());
}

#[test]
fn a_veth_with_an_address_unless_a_target_is_behind_it() {
    let veth = container_veth(2, "uplink0");
    assert_eq!(chosen(std::slice::from_ref(&veth), &[]), ["uplink0"]);
    assert!(chosen(std::slice::from_ref(&veth), &[2]).is_empty());
    let bare = LinkInfo { has_address: false, has_global_address: false, ..veth };
    assert!(chosen(&[bare], &[]).is_empty());
}

#[test]
fn a_target_behind_a_network_card_leaves_it_an_uplink() {
    assert_eq!(chosen(&[card(2, "eth0")], &[2]), ["eth0"]);
    assert_eq!(chosen(&[of_kind(2, "tap0", "tun")], &[2]), ["tap0"]);
}

#[test]
fn devices_without_ethernet_header_say_so() {
    let bare = |ifindex, name, kind| LinkInfo {
        arphrd: libc::ARPHRD_NONE,
        ..of_kind(ifindex, name, kind)
    };
    let links = [bare(2, "wg0", "wireguard"), bare(3, "tun0", "tun"), of_kind(4, "tap0", "tun")];
    let links = links.into_iter().map(|link| (link.ifindex, link)).collect();
    let (uplinks, _) = choose(&links, &SnapshotOptions::default());
    let ethernet: Vec<_> =
        uplinks.iter().map(|uplink| (uplink.name.as_str(), uplink.ethernet)).collect();
    assert_eq!(ethernet, [("wg0", false), ("tun0", false), ("tap0", true)]);
}

#[test]
fn the_owners_choice_overrides_everything() {
    let links = [loopback(), card(2, "eth0"), container_veth(3, "veth0")];
    let links = links.into_iter().map(|link| (link.ifindex, link)).collect();
    let options = SnapshotOptions {
        uplinks: vec!["veth0".into(), "wan7".into(), "wan7".into()],
        container_links: [3].into(),
        ignore: BTreeSet::new(),
    };
    let (uplinks, warnings) = choose(&links, &options);
    assert_eq!(uplinks.iter().map(|uplink| uplink.ifindex).collect::<Vec<_>>(), [3]);
    assert_eq!(warnings, ["uplink wan7 doesn't exist; it is used as soon as it appears"]);
}

#[test]
fn our_own_interfaces_are_ignored() {
    let links = [card(2, "eth0"), of_kind(3, "publane0", "veth")];
    let links = links.into_iter().map(|link| (link.ifindex, link)).collect();
    let options =
        SnapshotOptions { ignore: ["publane0".to_owned()].into(), ..SnapshotOptions::default() };
    let (uplinks, warnings) = choose(&links, &options);
    assert_eq!(uplinks.iter().map(|uplink| uplink.name.as_str()).collect::<Vec<_>>(), ["eth0"]);
    assert!(warnings.is_empty());
}
