//! Errors that the translator sends itself.

use super::error_contents::sum;
use super::packets::{from_client, from_target, reseal};
use super::*;
use crate::decide::Answer;
use crate::layout::{ForwardKey, ReplyKey};
use crate::native::{from_container, from_uplink};
use crate::packet::Arrival;
use crate::wire::protocol;
use std::vec::Vec;

const DONT_FRAGMENT: u8 = 0x40;

fn udp() -> (Scene, ForwardKey, ReplyKey) {
    let (mut scene, flow) =
        (Scene::new(), ForwardKey { protocol: protocol::UDP, ..samples::flow() });
    let reply = scene.establish(&flow);
    (scene, flow, reply)
}

/// The client's error about `about`: type, code and second word. Everything else has been judged.
pub(super) fn to_client(outcome: &Outcome, about: &[u8], reason: Reason) -> (u8, u8, u32) {
    let Outcome::Answered(bytes, found) = outcome else { panic!("{outcome:?}") };
    assert_eq!(*found, reason);
    let header = etherparse::Ipv6HeaderSlice::from_slice(bytes).expect("an IPv6 header");
    assert_eq!((header.source(), header.destination()), (samples::HOST, samples::CLIENT));
    assert_eq!((header.next_header().0, header.hop_limit()), (58, 64));
    assert_eq!(usize::from(header.payload_length()) + 40, bytes.len());
    // As much of the packet as fits (RFC 4443 §2.4 c).
    assert_eq!(bytes.len(), (48 + about.len()).min(1_280));
    assert_eq!(bytes[48..], about[..bytes.len() - 48]);
    let length = u32::from(header.payload_length()).to_be_bytes();
    let pseudo = [&bytes[8..40], &length, &[0, 0, 0, 58]].concat();
    assert_eq!(sum(&[pseudo, bytes[40..].to_vec()].concat()), 0xffff, "ICMPv6 checksum");
    let second = u32::from_be_bytes([bytes[44], bytes[45], bytes[46], bytes[47]]);
    (bytes[40], bytes[41], second)
}

/// The container's error about a frame.
pub(super) fn to_target(outcome: &Outcome, frame: &[u8], reason: Reason) -> (u8, u8, u32) {
    let Outcome::Answered(bytes, found) = outcome else { panic!("{outcome:?}") };
    assert_eq!(*found, reason);
    let about = &frame[14..];
    let header = etherparse::Ipv4HeaderSlice::from_slice(bytes).expect("an IPv4 header");
    assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
    assert_eq!((header.source(), header.destination()), (samples::GATEWAY, samples::TARGET));
    assert_eq!((header.protocol().0, header.ttl()), (1, 64));
    assert_eq!(usize::from(header.total_len()), bytes.len());
    assert_eq!(bytes.len(), (28 + about.len()).min(576));
    assert_eq!(bytes[28..], about[..bytes.len() - 28]);
    assert_eq!(sum(&bytes[20..]), 0xffff, "ICMP checksum");
    let second = u32::from_be_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]);
    (bytes[20], bytes[21], second)
}

/// A program hands them on as numbers.
#[test]
fn every_answer_has_a_number_that_leads_back() {
    let stops =
        [Stop::TimeExceeded, Stop::TooBig, Stop::RoutingHeader, Stop::SourceRoute, Stop::Exhausted];
    for stop in stops {
        let answer = stop.answer().expect("an answer");
        assert_eq!(Answer::from_number(answer as u32), Some(answer));
    }
    assert_eq!(Answer::from_number(5), None);
    assert_eq!(Stop::Pass.answer().or(Stop::Hold.answer()), None);
}

#[test]
fn h3_the_sender_of_a_packet_whose_hops_are_used_up_is_told() {
    for number in [protocol::TCP, protocol::UDP] {
        let (mut scene, flow) = (Scene::new(), ForwardKey { protocol: number, ..samples::flow() });
        let first: Body =
            if number == protocol::UDP { Body::datagram(9) } else { Segment::syn().into() };
        // Whether there is a session or not; it opens none.
        let mut packet = from_client(&flow, &first);
        packet[7] = 1;
        let answer = scene.uplink(&packet);
        assert_eq!(to_client(&answer, &packet, Reason::HopLimit), (3, 0, 0));
        assert!(scene.tables.half_open.is_empty());
        let reply = scene.establish(&flow);
        let body = |length| match number {
            protocol::UDP => Body::datagram(length),
            _ => Segment::data(length).into(),
        };
        for length in [0, 1, 9, 600, 1_400] {
            for hops in [0, 1] {
                let mut packet = from_client(&flow, &body(length));
                packet[7] = hops;
                let answer = scene.uplink(&packet);
                assert_eq!(to_client(&answer, &packet, Reason::HopLimit), (3, 0, 0));
                let mut frame = from_target(&reply, &body(length));
                frame[14 + 8] = hops;
                reseal(&mut frame[14..]);
                let answer = scene.veth(samples::VETH, &frame);
                assert_eq!(to_target(&answer, &frame, Reason::HopLimit), (11, 0, 0));
            }
        }
    }
}

#[test]
fn h3_nobody_is_told_of_a_packet_that_isnt_ours() {
    let mut scene = Scene::new();
    let flow = ForwardKey { host_port: [9, 9], ..samples::flow() };
    let mut packet = from_client(&flow, &Segment::syn().into());
    packet[7] = 1;
    assert_eq!(scene.uplink(&packet), PASSED);
    let mut frame = from_target(&samples::reply(), &Segment::data(1).into());
    frame[14 + 8] = 1;
    reseal(&mut frame[14..]);
    assert_eq!(scene.veth(samples::VETH, &frame), dropped(Reason::ReplyNoSession));
}

#[test]
fn h9_a_client_is_told_what_the_containers_link_carries() {
    for link in [1_260, 1_300, 1_500, 9_000] {
        let (mut scene, flow, _) = udp();
        scene.tables.links[0].mtu = link;
        let fits = link as usize - 28;
        let fitting = scene.client(&flow, Body::datagram(fits));
        assert!(matches!(fitting, Outcome::ToContainer(..)), "{link}");
        let packet = from_client(&flow, &Body::datagram(fits + 1));
        let answer = scene.uplink(&packet);
        assert_eq!(to_client(&answer, &packet, Reason::TooBig), (2, 0, link + 20));
    }
    let (mut scene, flow, _) = udp();
    scene.tables.links[0].mtu = 0;
    let unlimited = scene.client(&flow, Body::datagram(9_000));
    assert!(matches!(unlimited, Outcome::ToContainer(..)), "an unknown MTU sets no limit");
}

#[test]
fn h9_g3_super_packets_go_by_their_segments() {
    let (mut scene, flow, reply) = udp();
    for (gso_size, fits) in [(1_452, true), (1_472, true), (1_473, false)] {
        let bytes = from_client(&flow, &Body::datagram(10_000));
        let arrival =
            Arrival { gso_size, gso_segments: 7, ..samples::arrival(samples::UPLINK, bytes.len()) };
        let outcome = from_uplink(&bytes, &arrival, &mut scene.tables);
        assert_eq!(matches!(outcome, Outcome::ToContainer(..)), fits, "{gso_size}");
    }
    for (gso_size, fits) in [(1_400, true), (1_452, true), (1_453, false)] {
        let mut frame = from_target(&reply, &Body::datagram(10_000));
        frame[14 + 6] = DONT_FRAGMENT;
        reseal(&mut frame[14..]);
        let length = frame.len() - 14;
        let arrival =
            Arrival { gso_size, gso_segments: 7, ..samples::arrival(samples::VETH, length) };
        let outcome = from_container::<false>(&frame, &arrival, &mut scene.tables);
        assert_eq!(matches!(outcome, Outcome::ToClient(..)), fits, "{gso_size}");
    }
}

#[test]
fn g3_a_container_is_told_what_the_uplink_carries() {
    let frame = |reply: &ReplyKey, length: usize, flags: u8| {
        let mut frame: Vec<u8> = from_target(reply, &Body::datagram(length));
        frame[14 + 6] = flags;
        reseal(&mut frame[14..]);
        frame
    };
    for uplink in [1_280, 1_281, 1_400, 1_500, 9_000] {
        let (mut scene, _, reply) = udp();
        if let Some(settings) = scene.tables.uplinks.get_mut(&samples::UPLINK) {
            settings.mtu = uplink;
        }
        let fits = uplink as usize - 48;
        let fitting = scene.veth(samples::VETH, &frame(&reply, fits, DONT_FRAGMENT));
        assert!(matches!(fitting, Outcome::ToClient(..)), "{uplink}");
        let large = frame(&reply, fits + 1, DONT_FRAGMENT);
        let answer = scene.veth(samples::VETH, &large);
        assert_eq!(to_target(&answer, &large, Reason::TooBig), (3, 4, uplink - 20));
        // An uplink that isn't known sets no limit.
        scene.tables.uplinks.clear();
        assert!(matches!(scene.veth(samples::VETH, &large), Outcome::ToClient(..)), "{uplink}");
    }
}

/// Segments that were agreed on before the uplink became narrower.
#[test]
fn g3_so_is_a_container_that_sends_tcp() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    for (length, gso_size, fits) in
        [(1_440, 0, true), (1_441, 0, false), (9_000, 1_440, true), (9_000, 1_441, false)]
    {
        let mut frame = from_target(&reply, &Segment::data(length).into());
        frame[14 + 6] = DONT_FRAGMENT;
        reseal(&mut frame[14..]);
        let arrival = samples::arrival(samples::VETH, frame.len() - 14);
        let arrival = Arrival { gso_size, gso_segments: gso_size.min(7), ..arrival };
        let outcome = from_container::<false>(&frame, &arrival, &mut scene.tables);
        if fits {
            assert!(matches!(outcome, Outcome::ToClient(..)), "{length} {gso_size}");
        } else {
            assert_eq!(to_target(&outcome, &frame, Reason::TooBig), (3, 4, 1_480));
        }
    }
}

#[test]
fn i14_nobody_is_told_of_an_errors_end() {
    let (mut scene, flow, reply) = udp();
    let about = super::errors::got(&flow);
    let kind = etherparse::Icmpv6Type::PacketTooBig { mtu: 1_300 };
    let mut error = super::errors::about(flow.host, kind, &about);
    error[7] = 1;
    assert_eq!(scene.uplink(&error), dropped(Reason::HopLimit));
    let about = super::errors::got_by_container(&reply);
    let mut error = super::errors::icmp(&reply, 3, 3, 0, &about);
    error[14 + 8] = 1;
    reseal(&mut error[14..]);
    assert_eq!(scene.veth(samples::VETH, &error), dropped(Reason::HopLimit));
}
