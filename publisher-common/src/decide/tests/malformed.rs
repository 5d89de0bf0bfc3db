//! Packets that end early, lie about their length, or have more headers than one.

use super::packets::{from_client, from_target, reseal};
use super::*;
use crate::layout::ForwardKey;
use crate::wire::protocol;
use std::vec::Vec;

fn udp() -> ForwardKey {
    ForwardKey { protocol: protocol::UDP, ..samples::flow() }
}

/// Every kind of client packet, on a scene that has a session for it.
fn client_packets() -> Vec<(Scene, Vec<u8>)> {
    let mut all = Vec::new();
    for (flow, body) in [
        (samples::flow(), Body::from(Segment::data(10))),
        (samples::flow(), Segment::syn().options(&[2, 4, 5, 0xb4, 1, 1, 4, 2]).into()),
        (samples::flow(), Segment::fin().into()),
        (udp(), Body::datagram(10)),
    ] {
        let mut scene = Scene::new();
        let _ = scene.establish(&flow);
        all.push((scene, from_client(&flow, &body)));
        all.push((Scene::new(), from_client(&flow, &body)));
    }
    all
}

#[test]
fn h1_a_truncated_client_packet_is_never_translated() {
    for (scene, bytes) in client_packets() {
        for length in 0..bytes.len() {
            let mut scene = Scene { tables: scene.tables.clone(), ..scene };
            let outcome = scene.uplink(&bytes[..length]);
            assert!(matches!(outcome, Outcome::Stop(_)), "{length} of {}", bytes.len());
            if length < 48 {
                assert_eq!(outcome, PASSED, "{length}");
            }
        }
    }
}

#[test]
fn g1_a_truncated_reply_is_never_translated() {
    for (flow, body) in [
        (samples::flow(), Body::from(Segment::data(10))),
        (samples::flow(), Segment::syn_ack().options(&[2, 4, 5, 0xb4]).into()),
        (samples::flow(), Segment::rst().into()),
        (udp(), Body::datagram(10)),
    ] {
        let mut scene = Scene::new();
        let reply = scene.establish(&flow);
        let frame = from_target(&reply, &body);
        for length in 0..frame.len() {
            let mut scene = Scene { tables: scene.tables.clone(), ..scene };
            let outcome = scene.veth(samples::VETH, &frame[..length]);
            assert!(matches!(outcome, Outcome::Stop(_)), "{length} of {}", frame.len());
        }
    }
}

#[test]
fn h1_a_payload_length_that_lies_is_dropped() {
    for flow in [samples::flow(), udp()] {
        let mut scene = Scene::new();
        let _ = scene.establish(&flow);
        let body = if flow.protocol == protocol::UDP {
            Body::datagram(30)
        } else {
            Segment::data(30).into()
        };
        let bytes = from_client(&flow, &body);
        let right = u16::from_be_bytes([bytes[4], bytes[5]]);
        let least = if flow.protocol == protocol::UDP { 8 } else { 20 };
        for payload in (0..200u16).chain([65_515, 65_516, 65_535]) {
            let mut bytes = bytes.clone();
            bytes[4..6].copy_from_slice(&payload.to_be_bytes());
            let outcome = scene.uplink(&bytes);
            if (least..=right).contains(&payload) {
                assert!(matches!(outcome, Outcome::ToContainer(..)), "{payload}");
            } else {
                assert_eq!(outcome, dropped(Reason::Truncated), "{payload}");
            }
        }
    }
}

#[test]
fn g1_a_total_length_that_lies_is_dropped() {
    let mut scene = Scene::new();
    let reply = scene.establish(&samples::flow());
    let frame = from_target(&reply, &Segment::data(30).into());
    for total in (0..200u16).chain([65_535]) {
        let mut frame = frame.clone();
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        reseal(&mut frame[14..]);
        let outcome = scene.veth(samples::VETH, &frame);
        if (40..=70).contains(&total) {
            assert!(matches!(outcome, Outcome::ToClient(..)), "{total}");
        } else {
            assert_eq!(outcome, dropped(Reason::Truncated), "{total}");
        }
    }
}

#[test]
fn h1_every_tcp_header_length() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    for words in 0..16u8 {
        let mut there = from_client(&flow, &Segment::data(20).into());
        there[52] = words << 4;
        let mut back = from_target(&reply, &Segment::data(20).into());
        back[14 + 32] = words << 4;
        let (there, back) = (scene.uplink(&there), scene.veth(samples::VETH, &back));
        if (5..=10).contains(&words) {
            assert!(matches!(there, Outcome::ToContainer(..)), "{words}");
            assert!(matches!(back, Outcome::ToClient(..)), "{words}");
        } else {
            assert_eq!(there, dropped(Reason::Truncated), "{words}");
            assert_eq!(back, dropped(Reason::Truncated), "{words}");
        }
    }
}

#[test]
fn g1_the_last_hop_is_ours() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    for hops in 0..=255u8 {
        let mut there = from_client(&flow, &Segment::data(1).into());
        there[7] = hops;
        let mut back = from_target(&reply, &Segment::data(1).into());
        back[14 + 8] = hops;
        reseal(&mut back[14..]);
        let (there, back) = (scene.uplink(&there), scene.veth(samples::VETH, &back));
        if hops <= 1 {
            assert!(matches!(there, Outcome::Answered(_, Reason::HopLimit)));
            assert!(matches!(back, Outcome::Answered(_, Reason::HopLimit)));
        } else {
            assert_eq!(Seen::to_container(&there).hops, hops - 1);
            assert_eq!(Seen::to_client(&back).hops, hops - 1);
        }
    }
}

#[test]
fn h1_link_layer_padding_is_not_payload() {
    let (mut scene, flow) = (Scene::new(), udp());
    let reply = scene.establish(&flow);
    let mut frame = from_target(&reply, &Body::datagram(1));
    frame.resize(60, 0);
    // The kernel trims padding only later; the length in the header counts.
    let Outcome::ToClient(bytes, _) = scene.veth(samples::VETH, &frame) else {
        panic!("not translated")
    };
    let length = 40 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
    assert_eq!(Seen::of(&bytes[..length]).payload.len(), 1);
}

#[test]
fn g8_replies_of_other_protocols_and_versions() {
    let mut scene = Scene::new();
    let reply = scene.establish(&samples::flow());
    let frame = from_target(&reply, &Segment::data(64).into());
    let with = |at: usize, value: u8| {
        let mut frame = frame.clone();
        frame[at] = value;
        frame
    };
    for words in 0..5 {
        let outcome = scene.veth(samples::VETH, &with(14, 0x40 | words));
        assert_eq!(outcome, dropped(Reason::Truncated));
    }
    for number in (0..=255).filter(|number| !matches!(number, 1 | 6 | 17)) {
        let outcome = scene.veth(samples::VETH, &with(23, number));
        assert_eq!(outcome, dropped(Reason::ReplyProtocol), "{number}");
    }
    for version in (0..16).filter(|version| *version != 4) {
        assert_eq!(scene.veth(samples::VETH, &with(14, version << 4 | 5)), PASSED);
    }
}
