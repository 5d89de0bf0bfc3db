//! Segment sizes, super-packets and what is counted of them.

use super::packets::{from_client, from_target, reseal};
use super::*;
use crate::layout::ForwardKey;
use crate::native::{from_container, from_uplink};
use crate::packet::Arrival;
use crate::wire::protocol;

/// Maximum segment size 1460, then window scale.
const OPTIONS: &[u8] = &[1, 3, 3, 7, 2, 4, 0x05, 0xb4];
/// The same, at an odd offset.
const ODD_OPTIONS: &[u8] = &[1, 2, 4, 0x05, 0xb4, 1, 1, 1];

#[test]
fn s19_syn_and_syn_ack_are_clamped_to_what_both_links_carry() {
    for (uplink, link, expected) in [
        (1_500, 1_500, 1_440),
        (1_280, 1_500, 1_220),
        (1_500, 1_400, 1_360),
        (9_000, 1_500, 1_460),
        (9_000, 9_000, 1_460),
    ] {
        for options in [OPTIONS, ODD_OPTIONS] {
            let (mut scene, flow) = (Scene::new(), samples::flow());
            scene.tables.links[0].mtu = link;
            scene.tables.uplinks.insert(samples::UPLINK, samples::uplink(uplink));
            // The oracle has checked the TCP checksum.
            let syn = Seen::to_container(&scene.client(&flow, Segment::syn().options(options)));
            assert_eq!(syn.mss, Some(expected), "uplink {uplink}, link {link}");
            let answer = scene.container(&syn.reply_key(), Segment::syn_ack().options(options));
            assert_eq!(Seen::to_client(&answer).mss, Some(expected));
        }
    }
}

#[test]
fn s19_only_syns_are_clamped() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    let data = || Segment::data(3).options(OPTIONS);
    assert_eq!(Seen::to_container(&scene.client(&flow, data())).mss, Some(1_460));
    assert_eq!(Seen::to_client(&scene.container(&reply, data())).mss, Some(1_460));
}

#[test]
fn s19_an_unknown_uplink_clamps_nothing() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    scene.tables.uplinks.clear();
    let syn = Seen::to_container(&scene.client(&flow, Segment::syn().options(OPTIONS)));
    assert_eq!(syn.mss, Some(1_460));
}

#[test]
fn h4_dont_fragment_goes_by_the_segment_not_by_the_super_packet() {
    for (length, gso_size, segments, dont_fragment) in [
        (1_220, 0, 0, false),
        (1_221, 0, 0, true),
        (12_200, 1_220, 10, false),
        (12_210, 1_221, 10, true),
        (60_000, 536, 112, false),
        (60_000, 1_440, 42, true),
    ] {
        let (mut scene, flow) = (Scene::new(), samples::flow());
        let _ = scene.establish(&flow);
        let bytes = from_client(&flow, &Segment::data(length).into());
        let arrival = Arrival {
            gso_size,
            gso_segments: segments,
            ..samples::arrival(samples::UPLINK, bytes.len())
        };
        let outcome = from_uplink(&bytes, &arrival, &mut scene.tables);
        let seen = Seen::to_container(&outcome);
        assert_eq!(seen.dont_fragment, dont_fragment, "{length} by {gso_size}");
        assert_eq!(seen.payload.len(), length);
    }
}

#[test]
fn h4_options_count_into_the_segment() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let _ = scene.establish(&flow);
    // A time stamp in each segment: 20 + 32 + 1208 bytes are 1260, one more is too many.
    let options = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    for (gso_size, dont_fragment) in [(1_208, false), (1_209, true)] {
        let bytes = from_client(&flow, &Segment::data(5_000).options(&options).into());
        let arrival =
            Arrival { gso_size, gso_segments: 5, ..samples::arrival(samples::UPLINK, bytes.len()) };
        let seen = Seen::to_container(&from_uplink(&bytes, &arrival, &mut scene.tables));
        assert_eq!(seen.dont_fragment, dont_fragment, "{gso_size}");
    }
    let flow = ForwardKey { protocol: protocol::UDP, ..flow };
    let _ = scene.establish(&flow);
    for (gso_size, dont_fragment) in [(1_232, false), (1_233, true)] {
        let bytes = from_client(&flow, &Body::datagram(5_000));
        let arrival =
            Arrival { gso_size, gso_segments: 5, ..samples::arrival(samples::UPLINK, bytes.len()) };
        let seen = Seen::to_container(&from_uplink(&bytes, &arrival, &mut scene.tables));
        assert_eq!(seen.dont_fragment, dont_fragment, "{gso_size}");
    }
}

#[test]
fn h4_identifications_of_consecutive_packets_differ() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let _ = scene.establish(&flow);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..1_000 {
        let Outcome::ToContainer(bytes, _) = scene.client(&flow, Segment::data(10)) else {
            panic!("not translated")
        };
        assert!(seen.insert([bytes[4], bytes[5]]), "repeated after {}", seen.len());
    }
}

#[test]
fn g5_a_whole_reply_gets_no_fragment_header() {
    for protocol in [protocol::TCP, protocol::UDP] {
        let flow = ForwardKey { protocol, ..samples::flow() };
        let mut scene = Scene::new();
        let reply = scene.establish(&flow);
        for length in [0, 1, 8, 1_000, 1_212] {
            let body: Body = if protocol == protocol::UDP {
                Body::datagram(length)
            } else {
                Segment::data(length).into()
            };
            // Whatever the sender says about fragments that might be made of it.
            for (flags, identification) in [(0x40, [0, 0]), (0, [0, 0]), (0, [0x12, 0x34])] {
                let mut frame = from_target(&reply, &body);
                frame[14 + 4..14 + 6].copy_from_slice(&identification);
                frame[14 + 6] = flags;
                reseal(&mut frame[14..]);
                let Outcome::ToClient(bytes, _) = scene.veth(samples::VETH, &frame) else {
                    panic!("not translated")
                };
                assert_eq!(bytes[6], protocol, "the next header");
                assert_eq!(bytes.len(), frame.len() - 14 + 20);
                assert_eq!(Seen::of(&bytes).payload.len(), length);
            }
        }
    }
}

#[test]
fn a_super_packet_counts_as_its_segments() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    let (sent, received) = (scene.tables.forward[&flow].usage, scene.reverse(&reply).usage);
    let bytes = from_client(&flow, &Segment::data(14_400).into());
    let arrival = Arrival {
        gso_size: 1_440,
        gso_segments: 10,
        ..samples::arrival(samples::UPLINK, bytes.len())
    };
    let _ = from_uplink(&bytes, &arrival, &mut scene.tables);
    let usage = scene.tables.forward[&flow].usage;
    assert_eq!(usage.packets, sent.packets + 10);
    assert_eq!(usage.bytes, sent.bytes + bytes.len() as u64);

    let frame = from_target(&reply, &Segment::data(2_880).into());
    let arrival = Arrival {
        gso_size: 1_440,
        gso_segments: 2,
        ..samples::arrival(samples::VETH, frame.len() - 14)
    };
    let _ = from_container::<false>(&frame, &arrival, &mut scene.tables);
    let usage = scene.reverse(&reply).usage;
    assert_eq!(usage.packets, received.packets + 2);
    assert_eq!(usage.bytes, received.bytes + frame.len() as u64 - 14);
}
