//! Packets that are too big for the uplink, and may be fragmented.

use super::packets::{from_target, reseal};
use super::*;
use crate::decide::{Detour, Uplink};
use crate::layout::{ForwardKey, ReplyKey};
use crate::native::{from_container, split};
use crate::packet::Arrival;
use crate::translate::make_fragment;
use crate::wire::protocol;
use std::vec::Vec;

const IDENTIFICATION: [u8; 2] = [0x12, 0x34];

fn bodies(length: usize) -> [(ForwardKey, Body); 2] {
    let udp = ForwardKey { protocol: protocol::UDP, ..samples::flow() };
    [(udp, Body::datagram(length)), (samples::flow(), Segment::data(length - 12).into())]
}

/// A packet with its header fields for fragmentation.
fn frame(reply: &ReplyKey, body: &Body, flags: u8) -> Vec<u8> {
    let mut frame = from_target(reply, body);
    frame[14 + 4..14 + 6].copy_from_slice(&IDENTIFICATION);
    frame[14 + 6] = flags;
    reseal(&mut frame[14..]);
    frame
}

/// UDP of 1,452 bytes and TCP of 1,440 fill the uplink.
#[test]
fn g4_what_fits_goes_straight_and_the_rest_by_the_slow_lane() {
    for length in [20, 1_232, 1_233, 1_452, 1_453, 1_480, 8_972] {
        for (flow, body) in bodies(length) {
            let mut scene = Scene::new();
            let reply = scene.establish(&flow);
            let outcome = scene.veth(samples::VETH, &frame(&reply, &body, 0));
            if length <= 1_452 {
                // Not even a Fragment header (rule G5): the oracle has found TCP or UDP.
                assert!(matches!(outcome, Outcome::ToClient(..)), "{length}: {outcome:?}");
                continue;
            }
            let Outcome::Detour(bytes, detour, uplink) = outcome else { panic!("{outcome:?}") };
            assert_eq!(uplink, Uplink { ifindex: samples::UPLINK, raw: false, to_host: false });
            let expected = Detour {
                ifindex: samples::SLOW_LANE,
                identification: IDENTIFICATION,
                segmented: false,
            };
            assert_eq!(detour, expected);
            assert_eq!(bytes.len(), length + 48, "whole, and in IPv6");
        }
    }
}

#[test]
fn g4_super_packets_go_by_their_segments() {
    for (flow, body) in bodies(9_000) {
        let mut scene = Scene::new();
        let reply = scene.establish(&flow);
        let headers = if flow.protocol == protocol::UDP { 48 } else { 60 };
        for (gso_size, fits) in [(1_500 - headers, true), (1_501 - headers, false)] {
            let frame = frame(&reply, &body, 0);
            let arrival = samples::arrival(samples::VETH, frame.len() - 14);
            let arrival = Arrival { gso_size, gso_segments: 7, ..arrival };
            match from_container::<false>(&frame, &arrival, &mut scene.tables) {
                Outcome::ToClient(..) => assert!(fits, "{gso_size}"),
                Outcome::Detour(_, detour, _) => assert!(!fits && detour.segmented, "{gso_size}"),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn g4_without_a_slow_lane_it_is_dropped() {
    for (flow, body) in bodies(1_453) {
        let mut scene = Scene::new();
        let reply = scene.establish(&flow);
        scene.tables.config.as_mut().expect("a configuration").slow_lane = 0;
        let outcome = scene.veth(samples::VETH, &frame(&reply, &body, 0));
        assert_eq!(outcome, dropped(Reason::TooBig));
    }
}

/// What the lane's end makes of a packet: put together again, it is the packet.
#[test]
fn g4_the_fragments_of_a_packet_are_the_packet() {
    let (mut scene, flow) = (Scene::new(), bodies(20)[0].0);
    let reply = scene.establish(&flow);
    for length in [1_453, 1_472, 2_456, 2_457, 8_972, 19_704] {
        let sent = frame(&reply, &Body::datagram(length), 0);
        let Outcome::Detour(whole, ..) = scene.veth(samples::VETH, &sent) else {
            panic!("{length}")
        };
        let mut headers: [u8; 48] = core::array::from_fn(|at| whole[at]);
        let count = make_fragment(&mut headers, [0, 0, 0x12, 0x34]);
        assert_eq!(usize::from(count), (length + 8).div_ceil(1_232));
        let whole_fragment = [&headers[..], &whole[40..]].concat();
        let mut payload = Vec::new();
        for index in 0..count {
            let piece = split(&whole_fragment, index);
            assert!(piece.len() <= 1_280);
            let slice = etherparse::Ipv6Slice::from_slice(&piece).expect("an IPv6 packet");
            let extensions = slice.extensions().clone().into_iter();
            let fragments: Vec<_> = extensions
                .filter_map(|extension| match extension {
                    etherparse::Ipv6ExtensionSlice::Fragment(fragment) => Some(fragment),
                    _ => None,
                })
                .collect();
            let [fragment] = &fragments[..] else { panic!("{} Fragment headers", fragments.len()) };
            assert_eq!(fragment.identification(), 0x1234);
            assert_eq!(usize::from(fragment.fragment_offset().value()) * 8, payload.len());
            assert_eq!(fragment.more_fragments(), index + 1 < count);
            payload.extend_from_slice(&piece[48..]);
        }
        assert_eq!(payload, whole[40..], "{length}");
    }
    let mut long = [0; 48];
    long[4..6].copy_from_slice(&19_713u16.to_be_bytes());
    assert_eq!(make_fragment(&mut long, [0; 4]), 0, "more pieces than are made");
    long[4..6].copy_from_slice(&u16::MAX.to_be_bytes());
    assert_eq!(make_fragment(&mut long, [0; 4]), 0, "a length that would wrap");
}
