//! UDP sessions, and checksums of 0.

use super::error_contents::sum;
use super::packets::{from_client, from_target, reseal};
use super::*;
use crate::layout::{ForwardKey, State};
use crate::packet::LONGEST_SUM;
use crate::wire::protocol;

fn flow() -> ForwardKey {
    ForwardKey { protocol: protocol::UDP, ..samples::flow() }
}

#[test]
fn s2_promotion_takes_a_packet_of_the_clients_after_a_reply() {
    let (mut scene, flow) = (Scene::new(), flow());
    let reply = scene.open(&flow);
    for _ in 0..3 {
        let _ = scene.client(&flow, Body::datagram(3));
        assert!(!scene.is_established(&flow), "nobody has answered");
    }
    for _ in 0..3 {
        assert!(Seen::to_client(&scene.container(&reply, Body::datagram(9))).answers(&flow));
        assert!(!scene.is_established(&flow), "an answer to a spoofed source proves nothing");
    }
    let _ = scene.client(&flow, Body::datagram(3));
    assert_eq!(scene.state(&reply), Some(State::ESTABLISHED));
    let reverse = scene.reverse(&reply);
    assert_eq!((reverse.usage.packets, reverse.usage.bytes), (3, 3 * (28 + 9)));
    let forward = scene.tables.forward[&flow];
    assert_eq!((forward.usage.packets, forward.usage.bytes), (5, 4 * (48 + 3) + 48 + 12));
    scene.assert_paired();
}

/// Links that carry everything.
fn unlimit(scene: &mut Scene) {
    scene.tables.links[0].mtu = 65_535;
    scene.tables.uplinks.clear();
}

#[test]
fn h1_g1_datagrams_of_every_small_length_arrive_whole() {
    let (mut scene, flow) = (Scene::new(), flow());
    let reply = scene.establish(&flow);
    unlimit(&mut scene);
    for length in (0..64).chain([1_199, 1_452, 60_000, 65_507]) {
        let Body::Udp(payload) = Body::datagram(length) else { unreachable!() };
        let there = Seen::to_container(&scene.client(&flow, Body::Udp(payload.clone())));
        assert_eq!((there.reply_key(), &there.payload), (reply, &payload));
        let back = Seen::to_client(&scene.container(&reply, Body::Udp(payload.clone())));
        assert!(back.answers(&flow));
        assert_eq!(back.payload, payload);
    }
}

#[test]
fn h13_a_datagram_whose_ipv4_length_would_wrap_is_dropped() {
    let (mut scene, flow) = (Scene::new(), flow());
    let _ = scene.establish(&flow);
    unlimit(&mut scene);
    // 65,515 bytes of IPv6 payload are 65,535 bytes of IPv4.
    assert!(matches!(scene.client(&flow, Body::datagram(65_507)), Outcome::ToContainer(..)));
    assert_eq!(scene.client(&flow, Body::datagram(65_508)), dropped(Reason::Truncated));
}

#[test]
fn h13_a_jumbogram_is_dropped() {
    for flow in [flow(), samples::flow()] {
        let mut scene = Scene::new();
        let body: Body =
            if flow.protocol == protocol::UDP { Body::datagram(9) } else { Segment::syn().into() };
        // Its length is in an option; the header says 0 (RFC 2675 §3).
        let mut jumbogram = from_client(&flow, &body);
        jumbogram[4..6].fill(0);
        assert_eq!(scene.uplink(&jumbogram), dropped(Reason::Truncated), "published");
        assert!(scene.tables.half_open.is_empty());
        let _ = scene.establish(&flow);
        assert_eq!(scene.uplink(&jumbogram), dropped(Reason::Truncated), "of a session");
    }
}

#[test]
fn g10_a_clients_datagram_without_a_checksum_is_dropped() {
    let (mut scene, flow) = (Scene::new(), flow());
    let _ = scene.establish(&flow);
    let mut there = from_client(&flow, &Body::datagram(8));
    there[46..48].fill(0);
    assert_eq!(scene.uplink(&there), dropped(Reason::UdpZeroChecksum));
}

/// What the client gets is what it would have got, had the container summed its datagram.
#[test]
fn g10_a_containers_datagram_without_a_checksum_is_given_one() {
    let (mut scene, flow) = (Scene::new(), flow());
    let reply = scene.establish(&flow);
    for length in (0..=64).chain(505..=515).chain(1_440..=1_452) {
        let mut frame = from_target(&reply, &Body::datagram(length));
        let expected = scene.veth(samples::VETH, &frame);
        assert!(matches!(expected, Outcome::ToClient(..)), "{expected:?}");
        frame[14 + 26..14 + 28].fill(0);
        assert_eq!(scene.veth(samples::VETH, &frame), expected, "{length} bytes");
    }
}

/// A sum that comes to 0 is written as 0xffff (RFC 768): for one of all words of data, it does.
#[test]
fn g10_g12_the_checksum_that_is_given_is_never_0() {
    let (mut scene, flow) = (Scene::new(), flow());
    let reply = scene.establish(&flow);
    let mut frame = from_target(&reply, &Body::datagram(2));
    let data = frame.len() - 2;
    for word in 0..=u16::MAX {
        frame[data..].copy_from_slice(&word.to_be_bytes());
        frame[14 + 26..14 + 28].fill(0);
        let given = scene.veth(samples::VETH, &frame);
        let Outcome::ToClient(bytes, _) = &given else { panic!("{given:?}") };
        assert_ne!(bytes[46..48], [0, 0], "{word:#06x}");
        let pseudo_header = [&bytes[8..40], &[0, 0, 0, 10, 0, 0, 0, 17]].concat();
        assert_eq!(sum(&[&pseudo_header, &bytes[40..]].concat()), 0xffff, "{word:#06x}");
    }
}

#[test]
fn g10_what_can_not_be_summed_is_dropped() {
    let (mut scene, flow) = (Scene::new(), flow());
    let reply = scene.establish(&flow);
    let mut frame = from_target(&reply, &Body::datagram(24));
    frame[14 + 26..14 + 28].fill(0);
    for (length, outcome) in [
        (0u16, Err(Reason::Truncated)),
        (7, Err(Reason::Truncated)),
        (8, Ok(())),
        (31, Ok(())),
        (32, Ok(())),
        (33, Err(Reason::Truncated)),
        (u16::MAX, Err(Reason::Truncated)),
    ] {
        frame[14 + 24..14 + 26].copy_from_slice(&length.to_be_bytes());
        let found = scene.veth(samples::VETH, &frame);
        match outcome {
            Ok(()) => assert!(matches!(found, Outcome::ToClient(..)), "{length}: {found:?}"),
            Err(reason) => assert_eq!(found, dropped(reason), "{length}"),
        }
    }
    let mut long = from_target(&reply, &Body::datagram(LONGEST_SUM as usize));
    long[14 + 26..14 + 28].fill(0);
    // Else it is too big for the uplink.
    long[14 + 6] = 0;
    reseal(&mut long[14..]);
    assert_eq!(scene.veth(samples::VETH, &long), dropped(Reason::UdpZeroChecksum));
}

#[test]
fn g9_a_datagram_with_a_wrong_checksum_is_passed_on_with_a_wrong_one() {
    let (mut scene, flow) = (Scene::new(), flow());
    let reply = scene.establish(&flow);
    let number = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let right = |outcome: &Outcome, at: usize| match outcome {
        Outcome::ToContainer(bytes, _) | Outcome::ToClient(bytes, _) => number(bytes, at),
        other => panic!("{other:?}"),
    };
    // In ones' complement: by how much a sum is off, which is what has to stay.
    let off =
        |sum: u16, right: u16| (u32::from(sum) + u32::from(0xffff - right)) % u32::from(u16::MAX);
    let mut there = from_client(&flow, &Body::datagram(8));
    let mut back = from_target(&reply, &Body::datagram(8));
    let (there_right, back_right) = (number(&there, 46), number(&back, 14 + 26));
    let there_translated = right(&scene.uplink(&there), 26);
    let back_translated = right(&scene.veth(samples::VETH, &back), 46);
    for wrong in 1..=u16::MAX {
        there[46..48].copy_from_slice(&wrong.to_be_bytes());
        let outcome = scene.uplink(&there);
        assert_eq!(off(wrong, there_right), off(right(&outcome, 26), there_translated), "{wrong}");
        back[14 + 26..14 + 28].copy_from_slice(&wrong.to_be_bytes());
        let outcome = scene.veth(samples::VETH, &back);
        assert_eq!(off(wrong, back_right), off(right(&outcome, 46), back_translated), "{wrong}");
    }
}

#[test]
fn g12_a_sum_that_comes_to_0_is_sent_as_ffff() {
    let (mut scene, flow) = (Scene::new(), flow());
    let reply = scene.establish(&flow);
    let sum = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (mut there, mut back) = (0, 0);
    // Every value of the two bytes of payload gives another checksum: one of them is 0.
    for value in 0..=u16::MAX {
        let payload = value.to_be_bytes().to_vec();
        let Outcome::ToContainer(bytes, _) = scene.client(&flow, Body::Udp(payload.clone())) else {
            panic!("not translated")
        };
        there += usize::from(sum(&bytes, 26) == 0xffff);
        assert_ne!(sum(&bytes, 26), 0);
        let Outcome::ToClient(bytes, _) = scene.container(&reply, Body::Udp(payload)) else {
            panic!("not translated")
        };
        back += usize::from(sum(&bytes, 46) == 0xffff);
        assert_ne!(sum(&bytes, 46), 0);
        if sum(&bytes, 46) == 0xffff {
            let _ = Seen::of(&bytes);
        }
    }
    // 0x0000 and 0xffff as payload are the same sum.
    assert!((1..=2).contains(&there) && (1..=2).contains(&back), "{there} {back}");
}

#[test]
fn s2_an_idle_session_makes_way() {
    let (mut scene, flow) = (Scene::new(), flow());
    let reply = scene.open(&flow);
    let answer = |scene: &mut Scene| scene.container(&reply, Body::datagram(1));
    scene.now += 300;
    assert!(matches!(answer(&mut scene), Outcome::ToClient(..)), "the container keeps it alive");
    scene.now += 301;
    assert_eq!(answer(&mut scene), dropped(Reason::ReplyNoSession));
    // The client's next datagram opens it again.
    assert_eq!(scene.open(&flow), reply);
    assert_eq!(scene.tables.half_open[&reply].session.created, scene.now);
}
