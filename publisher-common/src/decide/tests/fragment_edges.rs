//! Which datagram a fragment belongs to, and for how long.

use super::kinds::{Kind, Side, fragments_of_clients, fragments_of_containers};
use super::packets::{Body, from_client, from_target, reseal};
use super::*;
use crate::layout::{ForwardKey, ReplyKey};
use crate::wire::{ETHERNET_LENGTH, protocol};
use std::vec::Vec;

/// What becomes of a client's fragment whose datagram isn't known.
const HELD: Outcome = Outcome::Stop(Stop::Hold);

fn udp() -> ForwardKey {
    ForwardKey { protocol: protocol::UDP, ..samples::flow() }
}

/// The first fragment of a client's datagram, and its last.
fn sent_by_client(flow: &ForwardKey) -> [Vec<u8>; 2] {
    let whole = from_client(flow, &Body::datagram(152));
    [(0..80usize, 1u16), (80..160, 80)].map(|(part, place)| {
        let mut bytes = whole[..40].to_vec();
        bytes[4..6].copy_from_slice(&88u16.to_be_bytes());
        bytes[6] = protocol::FRAGMENT;
        let [high, low] = place.to_be_bytes();
        bytes.extend_from_slice(&[protocol::UDP, 0, high, low, 0, 0, 9, 9]);
        bytes.extend_from_slice(&whole[40 + part.start..40 + part.end]);
        bytes
    })
}

/// The first fragment of a container's datagram, and its last.
fn sent_by_container(reply: &ReplyKey) -> [Vec<u8>; 2] {
    let whole = from_target(reply, &Body::datagram(152));
    [(0..80usize, 0x2000u16), (80..160, 10)].map(|(part, place)| {
        let mut frame = whole[..34].to_vec();
        frame[16..18].copy_from_slice(&100u16.to_be_bytes());
        frame[18..20].copy_from_slice(&[9, 9]);
        frame[20..22].copy_from_slice(&place.to_be_bytes());
        reseal(&mut frame[ETHERNET_LENGTH..]);
        frame.extend_from_slice(&whole[34 + part.start..34 + part.end]);
        frame
    })
}

fn is_translated(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::ToContainer(..) | Outcome::ToClient(..))
}

#[test]
fn s14_another_datagram_of_a_container_is_another_key() {
    let mut scene = Scene::new();
    let reply = scene.establish(&udp());
    let [first, last] = sent_by_container(&reply);
    assert!(is_translated(&scene.veth(samples::VETH, &first)));
    // Identification, protocol, and every byte of both addresses that leaves the alias in its pool.
    for at in [18, 19, 23, 26, 27, 28, 29, 31, 32, 33] {
        let mut other = last.clone();
        other[at] ^= if at == 23 { protocol::UDP ^ protocol::TCP } else { 1 };
        reseal(&mut other[ETHERNET_LENGTH..]);
        let outcome = scene.veth(samples::VETH, &other);
        assert_eq!(outcome, dropped(Reason::ReplyNoSession), "byte {at}");
    }
    assert!(is_translated(&scene.veth(samples::VETH, &last)));
}

#[test]
fn s14_what_goes_to_no_alias_may_be_the_hosts() {
    let mut scene = Scene::new();
    scene.use_gateway();
    let reply = scene.establish(&udp());
    let [first, last] = sent_by_container(&reply);
    assert_eq!(scene.veth(samples::VETH, &last), PASSED, "before the first");
    assert!(is_translated(&scene.veth(samples::VETH, &first)));
    scene.now += 6;
    assert_eq!(scene.veth(samples::VETH, &last), PASSED, "too late");
    assert!(is_translated(&scene.veth(samples::VETH, &first)));
    assert!(is_translated(&scene.veth(samples::VETH, &last)));
}

/// Hosts that have seen the first fragment, and a later one.
fn later() -> Vec<Kind> {
    let mut all = fragments_of_clients();
    all.extend(fragments_of_containers());
    all.retain(|kind| {
        let tables = &kind.host.tables;
        tables.fragments_in.len() + tables.fragments_out.len() != 0
    });
    assert!(!all.is_empty());
    all
}

#[test]
fn s14_fragments_may_be_5_seconds_apart() {
    for kind in later() {
        for apart in 0..=12 {
            let mut host = kind.again();
            host.now += apart;
            let outcome = kind.send(&mut host, &kind.bytes);
            if apart <= 5 {
                assert!(is_translated(&outcome), "{}, {apart} s: {outcome:?}", kind.name);
                continue;
            }
            let stopped = match kind.side {
                Side::Uplink => HELD,
                Side::Veth => dropped(Reason::ReplyNoSession),
            };
            assert_eq!(outcome, stopped, "{}, {apart} s", kind.name);
        }
    }
}

#[test]
fn s14_every_fragment_gives_the_next_ones_their_time() {
    for kind in later().into_iter().filter(|kind| kind.fragment == Some(true)) {
        let mut host = kind.again();
        for step in 0..4u16 {
            host.now += 5;
            // Each is the one behind the last.
            let mut bytes = kind.bytes.clone();
            let at = if kind.side == Side::Uplink { 42 } else { 6 };
            let by = if kind.side == Side::Uplink { 80 } else { 10 } * step;
            let place = u16::from_be_bytes([bytes[at], bytes[at + 1]]) + by;
            bytes[at..at + 2].copy_from_slice(&place.to_be_bytes());
            if kind.side == Side::Veth {
                reseal(&mut bytes);
            }
            let outcome = kind.send(&mut host, &bytes);
            assert!(is_translated(&outcome), "{}, {step}: {outcome:?}", kind.name);
        }
    }
}

#[test]
fn s14_the_clock_may_wrap_around() {
    let mut scene = Scene::new();
    scene.now = u32::MAX - 2;
    let reply = scene.establish(&udp());
    let (there, back) = (sent_by_client(&udp()), sent_by_container(&reply));
    assert!(is_translated(&scene.uplink(&there[0])));
    assert!(is_translated(&scene.veth(samples::VETH, &back[0])));
    scene.now = scene.now.wrapping_add(6);
    assert_eq!(scene.uplink(&there[1]), HELD);
    assert_eq!(scene.veth(samples::VETH, &back[1]), dropped(Reason::ReplyNoSession));
    scene.now = scene.now.wrapping_sub(1);
    assert!(is_translated(&scene.uplink(&there[1])));
    assert!(is_translated(&scene.veth(samples::VETH, &back[1])));
}

#[test]
fn s14_the_same_identification_is_used_again_after_5_seconds() {
    for (apart, expected) in [(5, Some(dropped(Reason::FragmentAgain))), (6, None)] {
        let mut scene = Scene::new();
        let reply = scene.establish(&udp());
        let (there, back) = (sent_by_client(&udp()), sent_by_container(&reply));
        let _ = (scene.uplink(&there[0]), scene.veth(samples::VETH, &back[0]));
        scene.now += apart;
        for outcome in [scene.uplink(&there[0]), scene.veth(samples::VETH, &back[0])] {
            match &expected {
                Some(expected) => assert_eq!(outcome, *expected, "{apart} s"),
                None => assert!(is_translated(&outcome), "{apart} s: {outcome:?}"),
            }
        }
    }
}

/// Two sessions of the same hosts share a key: the later first fragment has it.
#[test]
fn s14_another_sessions_first_fragment_takes_the_datagram_over() {
    let other = ForwardKey { client_port: 50_000u16.to_be_bytes(), ..udp() };
    let mut scene = Scene::new();
    let (mine, its) = (scene.establish(&udp()), scene.establish(&other));
    let count =
        |scene: &Scene| [udp(), other].map(|flow| scene.tables.forward[&flow].usage.packets);
    let (there, its_there) = (sent_by_client(&udp()), sent_by_client(&other));
    assert!(is_translated(&scene.uplink(&there[0])));
    assert!(is_translated(&scene.uplink(&its_there[0])));
    let before = count(&scene);
    assert!(is_translated(&scene.uplink(&there[1])), "it is also the other's last");
    assert_eq!(count(&scene), [before[0], before[1] + 1]);

    let count = |scene: &Scene| [mine, its].map(|reply| scene.reverse(&reply).usage.packets);
    let (back, its_back) = (sent_by_container(&mine), sent_by_container(&its));
    assert_eq!(mine.alias, its.alias);
    assert!(is_translated(&scene.veth(samples::VETH, &back[0])));
    assert!(is_translated(&scene.veth(samples::VETH, &its_back[0])));
    let before = count(&scene);
    assert!(is_translated(&scene.veth(samples::VETH, &back[1])));
    assert_eq!(count(&scene), [before[0], before[1] + 1]);
}

/// A later fragment that isn't translated isn't taken for one that was.
#[test]
fn h3_h6_h8_a_later_fragment_that_is_dropped_leaves_its_place() {
    const ROUTING: (u8, [u8; 8]) = (protocol::ROUTING, [protocol::FRAGMENT, 0, 4, 1, 0, 0, 0, 0]);
    const AUTHENTICATION: (u8, [u8; 8]) =
        (protocol::AUTHENTICATION, [protocol::FRAGMENT, 0, 0, 0, 0, 0, 0, 0]);
    for kind in later() {
        let mut host = kind.again();
        for hops in [0, 1] {
            let mut bytes = kind.bytes.clone();
            if kind.side == Side::Uplink {
                bytes[7] = hops;
            } else {
                bytes[8] = hops;
                reseal(&mut bytes);
            }
            let outcome = kind.send(&mut host, &bytes);
            assert_eq!(outcome, dropped(Reason::HopLimit), "{}", kind.name);
        }
        if kind.side == Side::Uplink {
            for ((number, header), reason) in
                [(ROUTING, Reason::RoutingHeader), (AUTHENTICATION, Reason::ExtensionHeader)]
            {
                let mut bytes = [&kind.bytes[..40], &header, &kind.bytes[40..]].concat();
                bytes[6] = number;
                let length = (bytes.len() - 40) as u16;
                bytes[4..6].copy_from_slice(&length.to_be_bytes());
                assert_eq!(kind.send(&mut host, &bytes), dropped(reason), "{}", kind.name);
            }
        }
        let outcome = kind.send(&mut host, &kind.bytes);
        assert!(is_translated(&outcome), "{}: {outcome:?}", kind.name);
    }
}
