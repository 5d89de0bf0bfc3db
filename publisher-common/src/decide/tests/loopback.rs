//! Clients on the host itself, whose packets come by the loopback interface.

use super::errors::got;
use super::packets::from_client;
use super::*;
use crate::layout::{ForwardKey, LOOPBACK, LocalKey, link_flags, origin, publication_flags};
use crate::wire::protocol;
use etherparse::icmpv6::DestUnreachableCode;
use etherparse::{Icmpv6Type, PacketBuilder};
use std::vec::Vec;

const LOCALHOST: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// The host's link-local address on the uplink.
const LINK_LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// A flow of a process of the host's, from one of its addresses to another.
fn flow(client: [u8; 16], host: [u8; 16], number: u8) -> ForwardKey {
    let scope = if client[0] == 0xfe { samples::UPLINK } else { 0 };
    ForwardKey { client, host, scope, protocol: number, origin: origin::HOST, ..samples::flow() }
}

/// A host whose uplink alone has a link-local address.
fn scene() -> Scene {
    let mut scene = Scene::new();
    let key = LocalKey { scope: samples::UPLINK.to_ne_bytes(), address: LINK_LOCAL };
    scene.tables.locals.push((LocalKey::BITS, key));
    scene.tables.interfaces.push((LINK_LOCAL, samples::UPLINK));
    scene
}

fn served() -> impl Iterator<Item = (ForwardKey, u32)> {
    [protocol::TCP, protocol::UDP].into_iter().flat_map(|number| {
        [
            (flow(LOCALHOST, LOCALHOST, number), LOOPBACK),
            (flow(samples::HOST, samples::HOST, number), LOOPBACK),
            (flow(LOCALHOST, samples::HOST, number), LOOPBACK),
            (flow(LINK_LOCAL, LINK_LOCAL, number), samples::UPLINK),
            (flow(samples::HOST, LINK_LOCAL, number), samples::UPLINK),
        ]
    })
}

fn body(flow: &ForwardKey) -> Body {
    if flow.protocol == protocol::UDP { Body::datagram(100) } else { Segment::data(100).into() }
}

#[test]
fn h12_a_process_of_the_host_is_served_by_the_address_that_it_asks() {
    for (flow, by) in served() {
        let mut scene = scene();
        let reply = scene.establish(&flow);
        let Outcome::ToClient(bytes, uplink) = scene.container(&reply, body(&flow)) else {
            panic!("{flow:?}: no answer");
        };
        assert!(Seen::of(&bytes).answers(&flow), "{flow:?}");
        assert_eq!((uplink.ifindex, uplink.to_host, uplink.raw), (by, true, false), "{flow:?}");
    }
}

#[test]
fn h12_a_packet_from_the_network_never_meets_a_session_of_the_hosts_own() {
    for (flow, _) in served() {
        let mut scene = scene();
        let reply = scene.establish(&flow);
        let before = (scene.tables.forward.clone(), scene.tables.reverse.clone());
        let spoofed = from_client(&flow, &body(&flow));
        let refused = scene.uplink(&spoofed);
        let own = if flow.host == LOCALHOST { PASSED } else { dropped(Reason::Source) };
        let own = if flow.protocol == protocol::TCP && flow.host != LOCALHOST {
            dropped(Reason::NoSession)
        } else {
            own
        };
        assert_eq!(refused, own, "{flow:?}");
        for opening in [Body::from(Segment::syn()), Body::datagram(1)] {
            let bytes = from_client(&flow, &opening);
            assert!(!matches!(scene.uplink(&bytes), Outcome::ToContainer(..)), "{flow:?}");
        }
        assert_eq!((scene.tables.forward.clone(), scene.tables.reverse.clone()), before);
        assert_eq!(Seen::to_container(&scene.client(&flow, body(&flow))).reply_key(), reply);
    }
}

#[test]
fn h12_a_loopback_publication_is_for_the_host_alone() {
    let mut scene = scene();
    scene.tables.publications.clear();
    for number in [protocol::TCP, protocol::UDP] {
        let mut value = samples::tables().publications.into_values().next().expect("one");
        value.target_port = [0, 80];
        let key = crate::layout::PublicationKey {
            host: LOCALHOST,
            scope: 0,
            port: samples::PORT,
            protocol: number,
            reserved: 0,
        };
        scene.tables.publish(key, value);
    }
    for number in [protocol::TCP, protocol::UDP] {
        let ours = flow(LOCALHOST, LOCALHOST, number);
        let opening: Body =
            if number == protocol::UDP { Body::datagram(1) } else { Segment::syn().into() };
        for client in [samples::CLIENT, LOCALHOST, samples::HOST] {
            let from_outside = ForwardKey { client, ..ours };
            let bytes = from_client(&from_outside, &opening);
            assert_eq!(scene.uplink(&bytes), PASSED, "{client:?}");
        }
        let elsewhere = flow(samples::HOST, samples::HOST, number);
        assert_eq!(scene.client(&elsewhere, opening.clone()), PASSED, "another address");
        let _ = scene.establish(&ours);
    }
}

#[test]
fn what_the_host_does_not_own_stays_its_stacks() {
    let mut elsewhere = LINK_LOCAL;
    elsewhere[15] = 9;
    for number in [protocol::TCP, protocol::UDP] {
        let opening: Body =
            if number == protocol::UDP { Body::datagram(1) } else { Segment::syn().into() };
        let mut scene = scene();
        // On the way through, which no packet at the loopback interface is; and one whose interface
        // nobody knows.
        for asked in [samples::CLIENT, elsewhere] {
            let flow = flow(samples::HOST, asked, number);
            assert_eq!(scene.client(&flow, opening.clone()), PASSED, "{asked:?}");
        }
        let flow = flow(LINK_LOCAL, samples::HOST, number);
        assert_eq!(scene.client(&flow, opening), PASSED, "which interface?");
    }
}

#[test]
fn a_container_that_cannot_be_reached_straight_is_the_proxys() {
    for flags in [0, link_flags::UP, link_flags::PEER] {
        for number in [protocol::TCP, protocol::UDP] {
            let mut scene = scene();
            scene.tables.links[0].flags = flags;
            let flow = flow(LOCALHOST, LOCALHOST, number);
            let opening: Body =
                if number == protocol::UDP { Body::datagram(1) } else { Segment::syn().into() };
            assert_eq!(scene.client(&flow, opening), PASSED, "{flags:b}");
            assert!(scene.tables.half_open.is_empty());
        }
    }
}

#[test]
fn s11_a_socket_of_the_hosts_own_keeps_its_packets() {
    let mut scene = scene();
    let tcp = flow(LOCALHOST, LOCALHOST, protocol::TCP);
    // Whoever's connection it is, the daemon's own or another's: it isn't one of ours.
    for segment in [Segment::data(10), Segment::fin(), Segment::rst(), Segment::syn_ack()] {
        assert_eq!(scene.client(&tcp, segment), PASSED);
    }
    let udp = flow(LOCALHOST, LOCALHOST, protocol::UDP);
    scene.tables.sockets.insert(udp, true);
    assert_eq!(scene.client(&udp, Body::datagram(1)), PASSED);
    // A listener that isn't the daemon's keeps the host's own clients too.
    scene.tables.bound.insert((protocol::TCP, samples::PORT));
    assert_eq!(scene.client(&tcp, Segment::syn()), PASSED);
    for publication in scene.tables.publications.values_mut() {
        publication.flags |= publication_flags::PAST_BOUND;
    }
    assert!(matches!(scene.client(&tcp, Segment::syn()), Outcome::ToContainer(..)));
}

#[test]
fn what_the_stack_would_take_and_we_could_not_answer_stays_its_own() {
    for number in [protocol::TCP, protocol::UDP] {
        let opening: Body =
            if number == protocol::UDP { Body::datagram(1) } else { Segment::syn().into() };
        // A socket that is bound to another interface than the one that answers come by.
        let mut scene = scene();
        let own = flow(LOCALHOST, LOCALHOST, number);
        let bytes = from_client(&own, &opening);
        assert_eq!(scene.host(&bytes), PASSED, "no socket takes the answer");
        // A transparent proxy speaks as its client, and nobody counts hops on the way to himself.
        let foreign = flow(samples::CLIENT, LOCALHOST, number);
        assert_eq!(scene.client(&foreign, opening.clone()), PASSED);
        scene.tables.sockets.insert(own.turned(), true);
        let mut last_hop = bytes.clone();
        last_hop[7] = 1;
        assert_eq!(scene.host(&last_hop), PASSED);
        assert!(matches!(scene.host(&bytes), Outcome::ToContainer(..)));
    }
}

#[test]
fn g1_a_datagram_of_the_hosts_own_may_be_larger_than_the_link() {
    let mut scene = scene();
    let flow = flow(LOCALHOST, LOCALHOST, protocol::UDP);
    let reply = scene.establish(&flow);
    for length in [1_472, 1_473, 9_000, 65_000] {
        let Outcome::ToContainer(bytes, _) = scene.client(&flow, Body::datagram(length)) else {
            panic!("{length} bytes don't go through");
        };
        assert_eq!(bytes.len(), 28 + length);
        if length <= 9_000 {
            let back = scene.container(&reply, Body::datagram(length));
            assert!(Seen::to_client(&back).answers(&flow), "{length} bytes back");
        }
    }
    // Where the way is another one meanwhile, the proxy takes what doesn't go through.
    scene.tables.links[0].flags = link_flags::UP;
    assert!(matches!(scene.client(&flow, Body::datagram(1_472)), Outcome::ToContainer(..)));
    assert_eq!(scene.client(&flow, Body::datagram(1_473)), PASSED);
}

#[test]
fn i3_an_error_of_the_hosts_own_reaches_the_container() {
    for (flow, _) in served().filter(|(flow, _)| flow.protocol == protocol::UDP) {
        let mut scene = scene();
        let _ = scene.establish(&flow);
        let error = error(&flow, Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Port));
        assert!(matches!(scene.host(&error), Outcome::ToContainer(..)), "{flow:?}");
        assert_eq!(scene.uplink(&error), PASSED, "the same from the network");
    }
}

/// An error that the client itself sends.
fn error(flow: &ForwardKey, kind: Icmpv6Type) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv6(flow.client, flow.host, 64)
        .icmpv6(kind)
        .write(&mut bytes, &got(flow))
        .expect("an ICMPv6 error");
    bytes
}
