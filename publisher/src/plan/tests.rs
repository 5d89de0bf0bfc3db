//! Plans, without a kernel.

mod access;

use super::*;
use crate::datapath::Hook;
use crate::model::SourceMode;
use crate::topology::{AliasRoute, Device, DeviceKind, LinkInfo, LocalPrefix, Uplink};
use publisher_common::layout::{
    LOOPBACK, LocalKey, link_flags, publication_flags, source_mode, uplink_flags,
};
use std::time::SystemTime;

const UPLINK: u32 = 2;
const BRIDGE: u32 = 3;
const VETH: u32 = 4;
const MAC: [u8; 6] = [2, 0x42, 0xac, 0x11, 0, 2];
const TARGET: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);

/// A host with one uplink, a bridge and one container, and something published.
struct Host {
    publications: Vec<Publication>,
    bans: BTreeMap<ClientPrefix, u32>,
    draining: Vec<Draining>,
    snapshot: Snapshot,
    resolutions: Resolutions,
    mtu: Mtu,
    proxied: BTreeMap<u32, bool>,
    held: BTreeMap<u32, BTreeSet<u16>>,
    table: LinkTable,
}

fn publication(id: u32, published: &str, target: &str, source: SourceMode) -> Publication {
    let spec = crate::model::PublicationSpec::new(
        published.parse().expect("a valid published side"),
        target.parse().expect("a valid target"),
        source,
    )
    .expect("a valid publication");
    Publication { id, generation: 1, spec, created: SystemTime::UNIX_EPOCH }
}

fn interface(ifindex: u32, name: &str) -> (u32, LinkInfo) {
    let link = LinkInfo {
        ifindex,
        name: name.into(),
        flags: libc::IFF_UP as u32,
        mtu: 1500,
        mac: Some([2, 0, 0, 0, 0, ifindex as u8]),
        ..LinkInfo::default()
    };
    (ifindex, link)
}

impl Host {
    fn new() -> Self {
        let snapshot = Snapshot {
            uplinks: vec![Uplink {
                ifindex: UPLINK,
                name: "eth0".into(),
                mtu: 1500,
                ethernet: true,
            }],
            locals: vec![
                LocalPrefix { address: "2001:db8::1".parse().unwrap(), prefix_len: 128, scope: 0 },
                LocalPrefix { address: "fe80::1".parse().unwrap(), prefix_len: 128, scope: UPLINK },
            ],
            links: [
                interface(UPLINK, "eth0"),
                interface(BRIDGE, "docker0"),
                interface(VETH, "veth1"),
            ]
            .into(),
            warnings: Vec::new(),
        };
        let mut host = Self {
            publications: vec![publication(7, "8080", "172.17.0.2:80", SourceMode::Auto)],
            bans: BTreeMap::new(),
            draining: Vec::new(),
            snapshot,
            resolutions: Resolutions::new(),
            mtu: Mtu::default(),
            proxied: BTreeMap::new(),
            held: BTreeMap::new(),
            table: LinkTable::default(),
        };
        host.resolve(|_| {});
        host
    }

    fn resolve(&mut self, change: impl FnOnce(&mut ResolvedTarget)) {
        let device = |ifindex, name: &str, kind| Device { ifindex, name: name.into(), kind };
        let mut resolved = ResolvedTarget {
            target: TARGET,
            device: device(BRIDGE, "docker0", DeviceKind::Bridge),
            veth: Some(device(VETH, "veth1", DeviceKind::Veth)),
            mac: Some(MAC),
            gateway: Some(Ipv4Addr::new(172, 17, 0, 1)),
            mtu: 1500,
            peer: Ok(()),
            alias_route: AliasRoute::Returns,
        };
        change(&mut resolved);
        self.resolutions.insert(TARGET, Ok(resolved));
    }

    fn unresolve(&mut self) {
        self.resolutions.insert(TARGET, Err(Unresolved { reason: "no answer".into() }));
    }

    fn desired(&mut self) -> Desired {
        let Self { publications, bans, draining, snapshot, resolutions, mtu, proxied, held, table } =
            self;
        let facts = Facts {
            publications,
            bans,
            draining,
            snapshot,
            resolutions,
            mtu,
            proxied,
            held,
            loopback: true,
        };
        Desired::from_facts(&facts, table)
    }

    fn link(&mut self) -> layout::Link {
        let desired = self.desired();
        desired.links[&self.table.index(TARGET).expect("a link")]
    }
}

#[test]
fn a_publication_becomes_an_entry_a_link_and_programs() {
    let mut host = Host::new();
    let desired = host.desired();
    let (key, value) = desired.publications.first_key_value().expect("an entry");
    assert_eq!((key.host, key.port, key.protocol), ([0; 16], 8080u16.to_be_bytes(), 6));
    assert_eq!((value.target, value.target_port), (TARGET.octets(), 80u16.to_be_bytes()));
    assert_eq!((value.handle.index, value.source), (7, source_mode::ALIAS));
    let link = desired.links[&value.link];
    assert_eq!((link.veth, link.device, link.mac), (VETH, BRIDGE, MAC));
    assert_eq!(link.flags, link_flags::UP | link_flags::PEER);
    assert_eq!(link.gateway, [172, 17, 0, 1]);
    let hooks: Vec<_> = desired.attachments.iter().map(|at| (at.ifindex, at.hook)).collect();
    assert_eq!(hooks, [(UPLINK, Hook::UplinkEthernet), (BRIDGE, Hook::Bridge), (VETH, Hook::Veth)]);
}

#[test]
fn what_the_proxy_serves_alone_is_not_in_the_kernel() {
    let mut host = Host::new();
    for (missing, flags) in [([8081], publication_flags::PAST_BOUND), ([8080], 0)] {
        host.held.insert(7, missing.into());
        let (_, entry) = host.desired().publications.pop_first().expect("an entry");
        assert_eq!(entry.flags, flags);
    }
    for (has_sessions, ports) in [(false, vec![]), (true, vec![(6, 8080u16.to_be_bytes())])] {
        host.proxied.insert(7, has_sessions);
        let desired = host.desired();
        assert!(desired.publications.is_empty());
        // Sessions of before go on.
        assert_eq!(desired.draining, ports);
    }
}

#[test]
fn a_range_is_one_entry_per_port() {
    let mut host = Host::new();
    host.publications = vec![publication(1, "8000-8009/udp", "172.17.0.2:90-99", SourceMode::Auto)];
    let ports: Vec<_> = host
        .desired()
        .publications
        .iter()
        .map(|(key, value)| (u16::from_be_bytes(key.port), u16::from_be_bytes(value.target_port)))
        .collect();
    assert_eq!(ports, (0..10).map(|offset| (8000 + offset, 90 + offset)).collect::<Vec<_>>());
}

#[test]
fn link_local_hosts_are_scoped_by_their_interface() {
    let mut host = Host::new();
    host.publications = vec![
        publication(1, "[fe80::1%eth0]:80", "172.17.0.2:80", SourceMode::Auto),
        publication(2, "[fe80::1%eth9]:80", "172.17.0.2:80", SourceMode::Auto),
    ];
    let desired = host.desired();
    let scopes: Vec<_> = desired.publications.keys().map(|key| key.scope).collect();
    assert_eq!(scopes, [UPLINK]);
    let link_local = |scope: u32| {
        let mut found = desired.locals.iter().filter(move |(bits, key, _)| {
            *bits == LocalKey::BITS && key.scope == scope.to_ne_bytes() && key.address[0] == 0xfe
        });
        found.next().map(|(.., value)| *value)
    };
    assert_eq!(link_local(UPLINK), Some(0));
    assert_eq!(link_local(LOOPBACK), Some(UPLINK), "the interface that has it");
}

#[test]
fn uplinks_without_ethernet_get_the_program_for_them() {
    let mut host = Host::new();
    host.snapshot.uplinks[0].ethernet = false;
    host.mtu.ipv6 = Some(1280);
    let desired = host.desired();
    assert!(desired.attachments.contains(&Attachment { ifindex: UPLINK, hook: Hook::UplinkRaw }));
    assert_eq!(desired.uplinks[&UPLINK].flags, uplink_flags::RAW);
    assert_eq!(desired.uplinks[&UPLINK].mtu, 1280);
}

#[test]
fn s19_configured_mtus_come_before_those_that_were_found() {
    for (configured, found, expected) in
        [(None, 1_400, 1_400), (Some(1_300), 1_400, 1_300), (Some(1_500), 1_400, 1_500)]
    {
        let mut host = Host::new();
        host.snapshot.uplinks[0].mtu = found;
        host.resolve(|resolved| resolved.mtu = found + 10);
        host.mtu.ipv6 = configured;
        assert_eq!(host.desired().uplinks[&UPLINK].mtu, expected, "{configured:?}");
        assert_eq!(host.link().mtu, found + 10, "one says nothing about the other");
        host.mtu = Mtu { ipv6: None, ipv4: configured };
        assert_eq!(host.desired().uplinks[&UPLINK].mtu, found);
        assert_eq!(host.link().mtu, configured.unwrap_or(found + 10), "{configured:?}");
    }
}

#[test]
fn an_mtu_that_changes_is_a_step_and_ends_no_session() {
    let mut host = Host::new();
    let before = host.desired();
    host.snapshot.uplinks[0].mtu = 1_400;
    host.resolve(|resolved| resolved.mtu = 1_300);
    let after = host.desired();
    let index = host.table.index(TARGET).expect("a link");
    assert_eq!(plan(&after, &before), [Action::SetUplinks, Action::SetLink(index)]);
    assert_eq!(after.links[&index].generation, before.links[&index].generation);
}

#[test]
fn nothing_published_is_nothing_attached() {
    let mut host = Host::new();
    host.publications.clear();
    assert!(host.desired().attachments.is_empty());
}

#[test]
fn sessions_outlive_the_discovery_of_the_veth_and_a_silent_container() {
    let mut host = Host::new();
    host.resolve(|resolved| resolved.veth = None);
    let before = host.link();
    assert_eq!((before.veth, before.flags), (0, link_flags::UP));
    host.resolve(|_| {});
    let known = host.link();
    assert_eq!(known.generation, before.generation);
    host.unresolve();
    assert_eq!(host.link(), known, "its veth is there: it may be paused");
}

#[test]
fn sessions_end_with_their_veth_and_with_another_hardware_address() {
    for change in ["restart", "new mac", "gone"] {
        let mut host = Host::new();
        let before = host.link();
        match change {
            "restart" => host.resolve(|resolved| {
                resolved.veth.as_mut().expect("a veth").ifindex = VETH + 1;
            }),
            "new mac" => host.resolve(|resolved| resolved.mac = Some([2; 6])),
            _ => {
                host.snapshot.links.remove(&VETH);
                host.unresolve();
            }
        }
        let after = host.link();
        assert_ne!(after.generation, before.generation, "{change}");
        assert_eq!(after.flags & link_flags::UP == 0, change == "gone");
    }
}

#[test]
fn generations_go_on_over_a_restart_of_the_daemon() {
    let mut host = Host::new();
    let before = host.link();
    host.table = LinkTable::new(host.desired().links);
    assert_eq!(host.link(), before);
    host.table = LinkTable::new(host.desired().links);
    host.resolve(|resolved| resolved.mac = Some([9; 6]));
    assert_eq!(host.link().generation, before.generation + 1);
}

#[test]
fn a_target_that_nobody_publishes_is_taken_down_unless_it_drains() {
    let mut host = Host::new();
    host.desired();
    let publications = std::mem::take(&mut host.publications);
    host.draining = vec![Draining {
        id: publications[0].id,
        targets: [TARGET].into(),
        ports: [(6, 8080u16.to_be_bytes())].into(),
        until: 0,
    }];
    let desired = host.desired();
    assert!(desired.publications.is_empty());
    assert_eq!(desired.draining, [(6, 8080u16.to_be_bytes())]);
    assert_eq!(desired.attachments.len(), 3);
    assert_ne!(host.link().flags & link_flags::UP, 0);
    host.draining.clear();
    assert_eq!(host.link().flags & link_flags::UP, 0);
}

#[test]
fn auto_falls_back_to_the_gateway_where_aliases_do_not_return() {
    let elsewhere = AliasRoute::Elsewhere { reason: "default route leaves by eth1".into() };
    for (mode, expected) in [
        (SourceMode::Auto, source_mode::GATEWAY),
        (SourceMode::Alias, source_mode::ALIAS),
        (SourceMode::Gateway, source_mode::GATEWAY),
    ] {
        let mut host = Host::new();
        host.publications = vec![publication(1, "80", "172.17.0.2:80", mode)];
        host.resolve(|resolved| resolved.alias_route = elsewhere.clone());
        let desired = host.desired();
        assert_eq!(desired.publications.values().next().expect("an entry").source, expected);
    }
}

#[test]
fn steps_attach_before_they_publish_and_detach_last() {
    let mut host = Host::new();
    let empty = Desired::default();
    let full = host.desired();
    let steps = plan(&full, &empty);
    let position =
        |wanted: &dyn Fn(&Action) -> bool| steps.iter().position(wanted).expect("a step");
    let last_attach = steps.iter().rposition(|step| matches!(step, Action::Attach(_))).unwrap();
    let link = position(&|step| matches!(step, Action::SetLink(_)));
    let publish = position(&|step| *step == Action::SetPublications);
    assert!(last_attach < link && link < publish);
    assert!(plan(&full, &full).is_empty());
    let back = plan(&empty, &full);
    assert!(matches!(back.last(), Some(Action::Detach(_))));
    assert_eq!(back.iter().filter(|step| matches!(step, Action::Detach(_))).count(), 3);
}

#[test]
fn a_peer_that_would_skip_the_owners_qdisc_is_not_used() {
    let mut host = Host::new();
    host.resolve(|resolved| resolved.peer = Err("egress qdisc tbf on veth1".into()));
    let link = host.link();
    assert_eq!((link.flags, link.veth), (link_flags::UP, VETH));
}

#[test]
fn an_index_is_taken_from_an_unused_target_only_when_none_is_free() {
    let mut links = BTreeMap::new();
    for index in 0..layout::LINKS {
        let target = (0x0a00_0000 + index).to_be_bytes();
        links.insert(index, layout::Link { generation: 5, target, ..layout::Link::default() });
    }
    let mut host = Host::new();
    host.table = LinkTable::new(links);
    let link = host.link();
    assert_eq!(link.target, TARGET.octets());
    assert_eq!(link.generation, 6, "sessions of the old target end");
}
