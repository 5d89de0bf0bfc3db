//! Datagrams in fragments, both ways: what arrives, put together again, is what would have arrived
//! in one piece.

use super::packets::{Body, Segment, from_client, from_target};
use super::scene::Scene;
use super::{Outcome, PASSED, Reason, Seen, dropped, samples};
use crate::checksum::{Difference, checksum};
use crate::decide::Stop;
use crate::layout::{ForwardKey, ReplyKey};
use crate::wire::protocol;
use std::vec::Vec;

/// It may be ours, once the first one has come.
const HELD: Outcome = Outcome::Stop(Stop::Hold);

fn udp() -> ForwardKey {
    ForwardKey { protocol: protocol::UDP, ..samples::flow() }
}

/// An IPv6 packet in fragments of `size` bytes.
fn fragments_of(packet: &[u8], size: usize, identification: u32) -> Vec<Vec<u8>> {
    let parts: Vec<_> = packet[40..].chunks(size).collect();
    let fragment = |(index, part): (usize, &&[u8])| {
        let mut bytes = packet[..40].to_vec();
        bytes[4..6].copy_from_slice(&(part.len() as u16 + 8).to_be_bytes());
        bytes[6] = protocol::FRAGMENT;
        bytes.extend_from_slice(&[packet[6], 0]);
        let more = u16::from(index + 1 < parts.len());
        bytes.extend_from_slice(&((index * size) as u16 | more).to_be_bytes());
        bytes.extend_from_slice(&identification.to_be_bytes());
        bytes.extend_from_slice(part);
        bytes
    };
    parts.iter().enumerate().map(fragment).collect()
}

/// A container's frame in fragments of `size` bytes.
fn frames_of(frame: &[u8], size: usize, identification: u16) -> Vec<Vec<u8>> {
    let parts: Vec<_> = frame[34..].chunks(size).collect();
    let fragment = |(index, part): (usize, &&[u8])| {
        let mut bytes = frame[..34].to_vec();
        bytes[16..18].copy_from_slice(&(part.len() as u16 + 20).to_be_bytes());
        bytes[18..20].copy_from_slice(&identification.to_be_bytes());
        let more = if index + 1 < parts.len() { 0x2000 } else { 0 };
        bytes[20..22].copy_from_slice(&((index * size / 8) as u16 | more).to_be_bytes());
        bytes[24..26].fill(0);
        let header: [u8; 20] = core::array::from_fn(|at| bytes[14 + at]);
        bytes[24..26].copy_from_slice(&checksum(&header, Difference::new()));
        bytes.extend_from_slice(part);
        bytes
    };
    parts.iter().enumerate().map(fragment).collect()
}

/// The packet that IPv4 fragments make; panics where one is missing or its header is wrong.
fn together(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut parts: Vec<(usize, bool, &[u8])> = Vec::new();
    for bytes in fragments {
        let header: [u8; 20] = core::array::from_fn(|at| bytes[at]);
        assert_eq!(checksum(&header, Difference::new()), [0; 2], "header checksum");
        assert_eq!(usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), bytes.len());
        assert_eq!(bytes[6] & 0x40, 0, "don't fragment");
        assert_eq!(bytes[4..6], fragments[0][4..6], "identification");
        let field = u16::from_be_bytes([bytes[6], bytes[7]]);
        parts.push((usize::from(field & 0x1fff) * 8, field & 0x2000 != 0, &bytes[20..]));
    }
    let payload = join(parts);
    let mut whole = fragments[0][..20].to_vec();
    whole[2..4].copy_from_slice(&(payload.len() as u16 + 20).to_be_bytes());
    whole[4..8].fill(0);
    whole[10..12].fill(0);
    let header: [u8; 20] = core::array::from_fn(|at| whole[at]);
    whole[10..12].copy_from_slice(&checksum(&header, Difference::new()));
    whole.extend_from_slice(&payload);
    whole
}

/// The packet that IPv6 fragments make.
fn together_ipv6(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut parts: Vec<(usize, bool, &[u8])> = Vec::new();
    for bytes in fragments {
        assert!(bytes.len() <= 1_280, "{} bytes", bytes.len());
        assert_eq!(usize::from(u16::from_be_bytes([bytes[4], bytes[5]])) + 40, bytes.len());
        assert_eq!((bytes[6], bytes[40], bytes[41]), (protocol::FRAGMENT, protocol::UDP, 0));
        assert_eq!(bytes[44..46], [0, 0], "the upper half of the identification");
        assert_eq!(bytes[46..48], fragments[0][46..48], "identification");
        let field = u16::from_be_bytes([bytes[42], bytes[43]]);
        parts.push((usize::from(field & 0xfff8), field & 1 != 0, &bytes[48..]));
    }
    let payload = join(parts);
    let mut whole = fragments[0][..40].to_vec();
    whole[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    whole[6] = protocol::UDP;
    whole.extend_from_slice(&payload);
    whole
}

fn join(mut parts: Vec<(usize, bool, &[u8])>) -> Vec<u8> {
    parts.sort();
    let mut payload = Vec::new();
    let last = parts.len() - 1;
    for (index, (offset, more, part)) in parts.into_iter().enumerate() {
        assert_eq!(offset, payload.len(), "a gap or an overlap");
        assert_eq!(more, index != last, "the last one, and only that one, says so");
        payload.extend_from_slice(part);
    }
    payload
}

fn to_container(outcome: Outcome) -> Vec<u8> {
    match outcome {
        Outcome::ToContainer(bytes, _) => bytes,
        other => panic!("not to the container: {other:?}"),
    }
}

fn to_client(outcome: Outcome) -> Vec<Vec<u8>> {
    match outcome {
        Outcome::ToClient(bytes, _) => std::vec![bytes],
        Outcome::Pieces(pieces, _) => pieces,
        other => panic!("not to the client: {other:?}"),
    }
}

/// Lengths of datagrams, up to the longest that UDP has.
const LENGTHS: [usize; 6] = [1_453, 2_000, 2_896, 9_000, 32_768, 65_507];

#[test]
fn h7_s14_a_clients_datagram_arrives_in_fragments() {
    for length in LENGTHS {
        for size in [8, 512, 1_448] {
            let mut scene = Scene::new();
            // The first fragment opens the session, too.
            let packet = from_client(&udp(), &Body::datagram(length));
            let mut there = Vec::new();
            for bytes in fragments_of(&packet, size, 0x1234_5678) {
                there.push(to_container(scene.uplink(&bytes)));
            }
            assert_eq!(there[0][4..6], [0x56, 0x78], "the lower half of the identification");
            let seen = Seen::of(&together(&there));
            assert_eq!(Body::datagram(length).bytes(), seen.payload, "{length} in {size}");
            assert!(scene.tables.fragments_in.is_empty(), "a whole datagram is forgotten");
        }
    }
}

#[test]
fn g6_s14_a_containers_datagram_arrives_in_fragments() {
    for length in LENGTHS {
        for size in [8, 512, 1_232, 1_240, 1_480, 8_976] {
            if length < size {
                continue;
            }
            let mut scene = Scene::new();
            let reply = scene.establish(&udp());
            let frame = from_target(&reply, &Body::datagram(length));
            let mut back = Vec::new();
            for bytes in frames_of(&frame, size, 0xabcd) {
                back.extend(to_client(scene.veth(samples::VETH, &bytes)));
            }
            assert_eq!(back[0][46..48], [0xab, 0xcd]);
            let seen = Seen::of(&together_ipv6(&back));
            assert!(seen.answers(&udp()));
            assert_eq!(Body::datagram(length).bytes(), seen.payload, "{length} in {size}");
            assert!(scene.tables.fragments_out.is_empty(), "a whole datagram is forgotten");
        }
    }
}

#[test]
fn s14_any_order_will_do_once_the_first_has_come() {
    let packet = from_client(&udp(), &Body::datagram(4_000));
    let fragments = fragments_of(&packet, 1_448, 1);
    assert_eq!(fragments.len(), 3);
    let mut scene = Scene::new();
    let there: Vec<_> =
        [0, 2, 1].map(|index: usize| to_container(scene.uplink(&fragments[index]))).into();
    assert_eq!(Seen::of(&together(&there)).payload, Body::datagram(4_000).bytes());
}

#[test]
fn s14_before_the_first_one_a_fragment_may_be_the_hosts() {
    let mut scene = Scene::new();
    let reply = scene.establish(&udp());
    let fragments = fragments_of(&from_client(&udp(), &Body::datagram(4_000)), 1_448, 1);
    assert_eq!(scene.uplink(&fragments[1]), HELD);
    scene.now += 6;
    let _ = to_container(scene.uplink(&fragments[0]));
    scene.now += 6;
    assert_eq!(scene.uplink(&fragments[1]), HELD, "too long after the first one");
    // Of no address of the host, or of another protocol, it can't be ours.
    let mut routed = fragments[1].clone();
    routed[24] ^= 1;
    assert_eq!(scene.uplink(&routed), PASSED);
    for number in (0..=255).filter(|number| ![protocol::TCP, protocol::UDP].contains(number)) {
        let mut other = fragments[1].clone();
        other[40] = number;
        assert_eq!(scene.uplink(&other), PASSED, "protocol {number}");
    }
    // A container's to an alias is nobody else's.
    let frames = frames_of(&from_target(&reply, &Body::datagram(4_000)), 1_480, 1);
    assert_eq!(scene.veth(samples::VETH, &frames[1]), dropped(Reason::ReplyNoSession));
}

#[test]
fn s14_another_datagram_client_or_protocol_is_another_key() {
    let mut scene = Scene::new();
    let packet = from_client(&udp(), &Body::datagram(4_000));
    let fragments = fragments_of(&packet, 1_448, 1);
    let _ = to_container(scene.uplink(&fragments[0]));
    let mut other = fragments[1].clone();
    other[47] ^= 1;
    assert_eq!(scene.uplink(&other), HELD, "another identification");
    let mut other = fragments[1].clone();
    other[40] = protocol::TCP;
    assert_eq!(scene.uplink(&other), HELD, "another protocol");
    for (at, expected) in [(8, HELD), (23, HELD), (24, PASSED), (39, PASSED)] {
        let mut other = fragments[1].clone();
        other[at] ^= 1;
        assert_eq!(scene.uplink(&other), expected, "another address");
    }
    let _ = to_container(scene.uplink(&fragments[1]));
}

#[test]
fn s14_overlaps_spoil_a_datagram_and_repetitions_do_not() {
    let mut scene = Scene::new();
    let packet = from_client(&udp(), &Body::datagram(4_000));
    let fragments = fragments_of(&packet, 1_448, 7);
    let _ = to_container(scene.uplink(&fragments[0]));
    assert_eq!(scene.uplink(&fragments[0]), dropped(Reason::FragmentAgain));
    let _ = to_container(scene.uplink(&fragments[1]));
    assert_eq!(scene.uplink(&fragments[1]), dropped(Reason::FragmentAgain));
    let mut shifted = fragments[2].clone();
    let [high, low] = ((2 * 1_448u16 - 8) | 1).to_be_bytes();
    (shifted[42], shifted[43]) = (high, low);
    // Its length must be a multiple of 8 to be no other kind of wrong.
    let even = shifted.len() - (shifted.len() - 48) % 8;
    shifted.truncate(even);
    let payload = (even - 40) as u16;
    shifted[4..6].copy_from_slice(&payload.to_be_bytes());
    assert_eq!(scene.uplink(&shifted), dropped(Reason::FragmentOverlap));
    assert_eq!(scene.uplink(&fragments[2]), dropped(Reason::FragmentOverlap), "spoiled");
    // Later, its identification may be used again.
    scene.now += 6;
    let there: Vec<_> = fragments.iter().map(|bytes| to_container(scene.uplink(bytes))).collect();
    assert_eq!(Seen::of(&together(&there)).payload, Body::datagram(4_000).bytes());
}

#[test]
fn s14_malformed_fragments_are_dropped() {
    let packet = from_client(&udp(), &Body::datagram(4_000));
    let fragments = fragments_of(&packet, 1_448, 7);
    // A first fragment, and a later one that isn't the last, of 9 bytes too few.
    for index in [0, 1] {
        let mut scene = Scene::new();
        if index == 1 {
            let _ = to_container(scene.uplink(&fragments[0]));
        }
        let mut bytes = fragments[index].clone();
        bytes.truncate(bytes.len() - 9);
        let payload = (bytes.len() - 40) as u16;
        bytes[4..6].copy_from_slice(&payload.to_be_bytes());
        assert_eq!(scene.uplink(&bytes), dropped(Reason::Fragment), "fragment {index}");
        bytes.truncate(bytes.len() - 1);
        assert_eq!(scene.uplink(&bytes), dropped(Reason::Truncated), "fragment {index}");
    }
    // One that reaches beyond the longest IPv4 packet.
    let mut scene = Scene::new();
    let _ = to_container(scene.uplink(&fragments[0]));
    let mut bytes = fragments[1].clone();
    (bytes[42], bytes[43]) = (0xff, 0xf9);
    assert_eq!(scene.uplink(&bytes), dropped(Reason::Fragment));
    // A first fragment without its whole transport header is nobody's: it never opens a session.
    let tiny = fragments_of(&from_client(&samples::flow(), &Segment::syn().into()), 8, 9);
    assert_eq!(Scene::new().uplink(&tiny[0]), PASSED);
}

#[test]
fn s14_fragments_go_when_their_session_or_link_goes() {
    let fragments = fragments_of(&from_client(&udp(), &Body::datagram(4_000)), 1_448, 7);
    let mut scene = Scene::new();
    let _ = to_container(scene.uplink(&fragments[0]));
    scene.tables.half_open.clear();
    assert_eq!(scene.uplink(&fragments[1]), dropped(Reason::NoSession));
    let mut scene = Scene::new();
    let _ = to_container(scene.uplink(&fragments[0]));
    scene.tables.links[0].generation += 1;
    assert_eq!(scene.uplink(&fragments[1]), dropped(Reason::TargetGone));
}

#[test]
fn s14_a_neighbour_can_not_add_to_a_containers_datagram() {
    let mut scene = Scene::new();
    let reply = scene.establish(&udp());
    let frames = frames_of(&from_target(&reply, &Body::datagram(4_000)), 1_480, 5);
    let _ = to_client(scene.veth(samples::VETH, &frames[0]));
    assert_eq!(scene.veth(samples::VETH + 1, &frames[1]), dropped(Reason::ForgedReply));
    let _ = to_client(scene.veth(samples::VETH, &frames[1]));
}

#[test]
fn g11_a_fragmented_datagram_without_checksum_is_dropped() {
    let mut scene = Scene::new();
    let reply = scene.establish(&udp());
    let mut frame = from_target(&reply, &Body::datagram(4_000));
    frame[40..42].fill(0);
    let frames = frames_of(&frame, 1_480, 5);
    assert_eq!(scene.veth(samples::VETH, &frames[0]), dropped(Reason::UdpZeroChecksum));
    assert_eq!(scene.veth(samples::VETH, &frames[1]), dropped(Reason::ReplyNoSession));
}

#[test]
fn s14_later_fragments_are_counted_for_their_session() {
    let mut scene = Scene::new();
    let reply = scene.establish(&udp());
    let before = scene.tables.forward[&udp()].usage;
    let fragments = fragments_of(&from_client(&udp(), &Body::datagram(4_000)), 1_448, 7);
    for bytes in &fragments {
        let _ = to_container(scene.uplink(bytes));
    }
    let after = scene.tables.forward[&udp()].usage;
    let bytes: usize = fragments.iter().map(Vec::len).sum();
    assert_eq!((after.packets, after.bytes), (before.packets + 3, before.bytes + bytes as u64));
    let before = scene.reverse(&reply).usage.packets;
    for frame in frames_of(&from_target(&reply, &Body::datagram(4_000)), 1_480, 5) {
        let _ = to_client(scene.veth(samples::VETH, &frame));
    }
    assert_eq!(scene.reverse(&reply).usage.packets, before + 3);
}

#[test]
fn g6_fragments_with_options() {
    let mut scene = Scene::new();
    let reply: ReplyKey = scene.establish(&udp());
    let mut back = Vec::new();
    for mut frame in frames_of(&from_target(&reply, &Body::datagram(4_000)), 1_480, 5) {
        frame[14] += 1;
        let total = u16::from_be_bytes([frame[16], frame[17]]) + 4;
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame.splice(34..34, [1, 1, 1, 0]);
        frame[24..26].fill(0);
        let header: [u8; 24] = core::array::from_fn(|at| frame[14 + at]);
        frame[24..26].copy_from_slice(&checksum(&header, Difference::new()));
        back.extend(to_client(scene.veth(samples::VETH, &frame)));
    }
    assert_eq!(Seen::of(&together_ipv6(&back)).payload, Body::datagram(4_000).bytes());
}
