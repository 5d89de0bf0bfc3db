//! Who may open a session, and to what.

use super::packets::from_client;
use super::*;
use crate::layout::{ForwardKey, LocalKey, port_bit, publication_flags};
use crate::wire::protocol;

const LINK_LOCAL_CLIENT: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const LINK_LOCAL_HOST: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

fn udp() -> ForwardKey {
    ForwardKey { protocol: protocol::UDP, ..samples::flow() }
}

#[test]
fn s1_the_container_cannot_open_a_session() {
    let mut scene = Scene::new();
    let reply = samples::reply();
    for segment in [Segment::syn(), Segment::syn_ack(), Segment::data(3), Segment::rst()] {
        assert_eq!(scene.container(&reply, segment), dropped(Reason::ReplyNoSession));
    }
    let reply = crate::layout::ReplyKey { protocol: protocol::UDP, ..reply };
    assert_eq!(scene.container(&reply, Body::datagram(3)), dropped(Reason::ReplyNoSession));
    scene.assert_paired();
    assert!(scene.tables.half_open.is_empty() && scene.tables.forward.is_empty());
}

#[test]
fn s1_an_open_session_admits_its_own_tuple_only() {
    let mut scene = Scene::new();
    let reply = scene.establish(&samples::flow());
    let others = [
        crate::layout::ReplyKey { target_port: 81u16.to_be_bytes(), ..reply },
        crate::layout::ReplyKey { alias_port: 1u16.to_be_bytes(), ..reply },
        crate::layout::ReplyKey { target: [172, 17, 0, 3], ..reply },
        crate::layout::ReplyKey { alias: [198, 19, 255, 254], ..reply },
    ];
    for other in others {
        assert_eq!(
            scene.container(&other, Segment::data(1)),
            dropped(Reason::ReplyNoSession),
            "{other:?}"
        );
    }
}

#[test]
fn an_exact_host_address_comes_before_the_wildcard() {
    let mut scene = Scene::new();
    let second = [0xfd; 16];
    scene.tables.locals.push((LocalKey::BITS, LocalKey { scope: [0; 4], address: second }));
    scene.publish_exactly(second, 0);
    assert_eq!(scene.open(&samples::flow()).target_port, samples::TARGET_PORT);
    let flow = ForwardKey { host: second, ..samples::flow() };
    assert_eq!(scene.open(&flow).target_port, 81u16.to_be_bytes());
}

#[test]
fn an_exact_publication_serves_no_other_address() {
    let mut scene = Scene::new();
    scene.tables.publications.clear();
    assert_eq!(scene.client(&samples::flow(), Segment::syn()), PASSED);
    let tcp = Scene::new();
    scene.tables.publications = tcp.tables.publications;
    scene.publish_exactly([0xfd; 16], 0);
    scene.tables.publications.retain(|key, _| key.host != [0; 16]);
    assert_eq!(scene.client(&samples::flow(), Segment::syn()), PASSED);
    assert_eq!(scene.client(&udp(), Body::datagram(1)), PASSED);
}

#[test]
fn only_the_hosts_own_addresses_are_published() {
    let mut scene = Scene::new();
    let routed = ForwardKey { host: [0xfd; 16], ..samples::flow() };
    assert_eq!(scene.client(&routed, Segment::syn()), PASSED);
    assert_eq!(scene.client(&routed, Segment::data(10)), PASSED);
    assert_eq!(scene.client(&ForwardKey { host: [0xfd; 16], ..udp() }, Body::datagram(1)), PASSED);
    // AnyIP: a whole prefix is the host's, here fd00::/64.
    let mut address = [0; 16];
    address[0] = 0xfd;
    scene.tables.locals.push((32 + 64, LocalKey { scope: [0; 4], address }));
    assert_eq!(scene.client(&routed, Segment::syn()), PASSED);
    address[9] = 77;
    let inside = ForwardKey { host: address, ..samples::flow() };
    assert_eq!(scene.open(&inside).target, samples::TARGET);
}

#[test]
fn h10_other_ports_and_protocols_pass() {
    let mut scene = Scene::new();
    for port in [0u16, 1, 80, 8_079, 8_081, 65_535] {
        let flow = ForwardKey { host_port: port.to_be_bytes(), ..samples::flow() };
        assert_eq!(scene.client(&flow, Segment::syn()), PASSED, "{port}");
        let flow = ForwardKey { host_port: port.to_be_bytes(), ..udp() };
        assert_eq!(scene.client(&flow, Body::datagram(4)), PASSED, "{port}");
    }
    let bytes = from_client(&samples::flow(), &Segment::syn().into());
    for number in 0..=255u8 {
        if matches!(number, protocol::TCP | protocol::UDP) {
            continue;
        }
        let mut bytes = bytes.clone();
        bytes[6] = number;
        assert_eq!(scene.uplink(&bytes), PASSED, "protocol {number}");
    }
    assert!(scene.tables.half_open.is_empty());
}

#[test]
fn a_port_that_is_not_in_the_bitmap_is_not_looked_up() {
    for flow in [samples::flow(), udp()] {
        let mut scene = Scene::new();
        let _ = scene.establish(&flow);
        let body: Body = if flow.protocol == protocol::UDP {
            Body::datagram(3)
        } else {
            Segment::data(3).into()
        };
        assert!(matches!(scene.client(&flow, body.clone()), Outcome::ToContainer(..)));
        let before = scene.tables.forward.clone();
        // All but its own bit.
        let (word, bit) = port_bit(flow.protocol, flow.host_port);
        for (index, ports) in scene.tables.ports.iter_mut().enumerate() {
            *ports = if index as u32 == word { !bit } else { !0 };
        }
        assert_eq!(scene.client(&flow, body), PASSED);
        assert_eq!(scene.tables.forward, before);
    }
}

#[test]
fn h12_link_local_clients_are_told_apart_by_their_link() {
    let mut scene = Scene::new();
    let scope = samples::UPLINK;
    scene
        .tables
        .locals
        .push((LocalKey::BITS, LocalKey { scope: scope.to_ne_bytes(), address: LINK_LOCAL_HOST }));
    let flow =
        ForwardKey { client: LINK_LOCAL_CLIENT, host: LINK_LOCAL_HOST, scope, ..samples::flow() };
    let reply = scene.establish(&flow);
    assert_eq!(scene.tables.aliases[&reply.alias].scope, scope);

    // The same addresses on a link where the host's is another.
    let bytes = from_client(&flow, &Segment::syn().into());
    let elsewhere = samples::arrival(scope + 1, bytes.len());
    let outcome = crate::native::from_uplink(&bytes, &elsewhere, &mut scene.tables);
    assert_eq!(outcome, PASSED);
    // And on one where the host has it too.
    let address = LocalKey { scope: (scope + 1).to_ne_bytes(), address: LINK_LOCAL_HOST };
    scene.tables.locals.push((LocalKey::BITS, address));
    let outcome = crate::native::from_uplink(&bytes, &elsewhere, &mut scene.tables);
    assert_ne!(Seen::to_container(&outcome).reply_key(), reply);
    assert!(scene.is_established(&flow));
    scene.assert_paired();
}

#[test]
fn h12_a_link_local_publication_counts_on_its_link_only() {
    let mut scene = Scene::new();
    for scope in [samples::UPLINK, samples::UPLINK + 1] {
        scene.tables.locals.push((
            LocalKey::BITS,
            LocalKey { scope: scope.to_ne_bytes(), address: LINK_LOCAL_HOST },
        ));
    }
    scene.publish_exactly(LINK_LOCAL_HOST, samples::UPLINK);
    scene.tables.publications.retain(|key, _| key.host != [0; 16]);
    let flow = ForwardKey { host: LINK_LOCAL_HOST, ..samples::flow() };
    let bytes = from_client(&flow, &Segment::syn().into());
    for (ifindex, serves) in [(samples::UPLINK, true), (samples::UPLINK + 1, false)] {
        let arrival = samples::arrival(ifindex, bytes.len());
        let outcome = crate::native::from_uplink(&bytes, &arrival, &mut scene.tables);
        assert_eq!(matches!(outcome, Outcome::ToContainer(..)), serves, "{outcome:?}");
    }
}

#[test]
fn h12_s16_sources_that_no_client_can_have_are_dropped() {
    let mut mapped = [0; 16];
    mapped[10..].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
    let mut compatible = [0; 16];
    compatible[12..].copy_from_slice(&[192, 0, 2, 1]);
    let mut loopback = [0; 16];
    loopback[15] = 1;
    let mut multicast = [0; 16];
    (multicast[0], multicast[1], multicast[15]) = (0xff, 2, 1);
    for client in [[0; 16], loopback, mapped, compatible, multicast, [0xff; 16], samples::HOST] {
        let mut scene = Scene::new();
        let flow = ForwardKey { client, ..samples::flow() };
        assert_eq!(scene.client(&flow, Segment::syn()), dropped(Reason::Source), "{client:x?}");
        let flow = ForwardKey { client, ..udp() };
        assert_eq!(scene.client(&flow, Body::datagram(1)), dropped(Reason::Source));
        assert!(scene.tables.half_open.is_empty());
    }
}

#[test]
fn a_socket_of_the_host_wins_where_there_is_no_session() {
    let mut scene = Scene::new();
    let flow = samples::flow();
    scene.tables.sockets.insert(flow, false);
    scene.tables.sockets.insert(udp(), false);
    for segment in [Segment::data(4), Segment::syn_ack(), Segment::fin(), Segment::rst()] {
        assert_eq!(scene.client(&flow, segment), PASSED);
    }
    assert_eq!(scene.client(&udp(), Body::datagram(4)), PASSED);
    // A SYN asks for the published port all the same, and a session comes before sockets.
    let _ = scene.establish(&flow);
    assert!(matches!(scene.client(&flow, Segment::data(1)), Outcome::ToContainer(..)));
}

#[test]
fn where_the_daemon_has_the_port_only_a_connected_socket_wins() {
    for connected in [false, true] {
        let mut scene = Scene::new();
        for publication in scene.tables.publications.values_mut() {
            publication.flags |= publication_flags::PAST_BOUND;
        }
        scene.tables.sockets.insert(samples::flow(), connected);
        scene.tables.sockets.insert(udp(), connected);
        let stray = scene.client(&samples::flow(), Segment::data(4));
        assert_eq!(stray, if connected { PASSED } else { dropped(Reason::NoSession) });
        let datagram = scene.client(&udp(), Body::datagram(4));
        assert_eq!(datagram == PASSED, connected, "{datagram:?}");
        assert_eq!(matches!(datagram, Outcome::ToContainer(..)), !connected);
    }
}

#[test]
fn nothing_happens_before_there_is_a_configuration() {
    let mut scene = Scene::new();
    scene.tables.config = None;
    assert_eq!(scene.client(&samples::flow(), Segment::syn()), PASSED);
    assert_eq!(scene.container(&samples::reply(), Segment::syn()), PASSED);
}

#[test]
fn a_target_that_is_down_opens_nothing() {
    let mut scene = Scene::new();
    scene.tables.links[0].flags = 0;
    assert_eq!(scene.client(&samples::flow(), Segment::syn()), dropped(Reason::TargetDown));
    scene.tables.links.clear();
    assert_eq!(scene.client(&samples::flow(), Segment::syn()), dropped(Reason::TargetDown));
    assert!(scene.tables.half_open.is_empty());
}
