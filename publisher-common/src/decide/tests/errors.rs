//! Which ICMP errors are about a session, and which are malformed; what they become is in
//! [`super::error_contents`].

use super::packets::{from_client, from_target, reseal};
use super::*;
use crate::layout::{ForwardKey, Link, ReplyKey, link_flags};
use crate::wire::{ETHERNET_LENGTH, protocol};
use etherparse::{Icmpv6Type, PacketBuilder};
use std::vec::Vec;

/// A router on the client's path.
pub const ROUTER: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe];

fn body(number: u8) -> Body {
    if number == protocol::UDP { Body::datagram(1_200) } else { Segment::data(1_200).into() }
}

/// What the client's side embeds: a packet that it got.
pub fn got(flow: &ForwardKey) -> Vec<u8> {
    let turned = ForwardKey {
        client: flow.host,
        host: flow.client,
        client_port: flow.host_port,
        host_port: flow.client_port,
        ..*flow
    };
    from_client(&turned, &body(flow.protocol))
}

/// An ICMPv6 error to `to`, about `embedded`.
pub fn about(to: [u8; 16], kind: Icmpv6Type, embedded: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv6(ROUTER, to, 61)
        .icmpv6(kind)
        .write(&mut bytes, embedded)
        .expect("an ICMPv6 error");
    bytes
}

/// What the container's side embeds: a packet that it got.
pub fn got_by_container(reply: &ReplyKey) -> Vec<u8> {
    let turned = ReplyKey {
        target: reply.alias,
        alias: reply.target,
        target_port: reply.alias_port,
        alias_port: reply.target_port,
        ..*reply
    };
    from_target(&turned, &body(reply.protocol))[ETHERNET_LENGTH..].to_vec()
}

/// An ICMP error of the container or of a router behind it, about `embedded`.
pub fn icmp(reply: &ReplyKey, kind: u8, code: u8, mtu: u16, embedded: &[u8]) -> Vec<u8> {
    let [high, low] = mtu.to_be_bytes();
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(samples::TARGET_MAC, samples::link().device_mac)
        .ipv4(reply.target, reply.alias, 64)
        .icmpv4_raw(kind, code, [0, 0, high, low])
        .write(&mut bytes, embedded)
        .expect("an ICMP error");
    bytes
}

/// An established session, and all that may change of it.
fn established() -> (Scene, ForwardKey, ReplyKey) {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    (scene, flow, reply)
}

#[test]
fn i13_an_error_neither_counts_nor_ends_a_session() {
    let udp = ForwardKey { protocol: protocol::UDP, ..samples::flow() };
    for (flow, open_only) in [(samples::flow(), false), (samples::flow(), true), (udp, true)] {
        let mut scene = Scene::new();
        let reply = if open_only { scene.open(&flow) } else { scene.establish(&flow) };
        let before = scene.tables.clone();
        scene.now += 7;
        for kind in 0..=255 {
            for code in 0..16 {
                let kind6 = Icmpv6Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: [0; 4] };
                let _ = scene.uplink(&about(flow.host, kind6, &got(&flow)));
                let embedded = got_by_container(&reply);
                let _ = scene.veth(samples::VETH, &icmp(&reply, kind, code, 1_400, &embedded));
            }
        }
        let after = &scene.tables;
        assert_eq!(after.forward, before.forward);
        assert_eq!(after.reverse, before.reverse);
        assert_eq!(after.half_open, before.half_open);
        assert_eq!(after.closing, before.closing);
        assert_eq!(after.aliases, before.aliases);
    }
}

#[test]
fn i13_an_error_opens_no_session() {
    let mut scene = Scene::new();
    let flow = samples::flow();
    let kind = Icmpv6Type::PacketTooBig { mtu: 1_300 };
    assert_eq!(scene.uplink(&about(flow.host, kind, &got(&flow))), PASSED);
    let reply = samples::reply();
    let error = icmp(&reply, 3, 3, 0, &got_by_container(&reply));
    assert_eq!(scene.veth(samples::VETH, &error), dropped(Reason::ReplyNoSession));
    assert!(scene.tables.half_open.is_empty() && scene.tables.forward.is_empty());
}

#[test]
fn i12_sessions_that_are_half_open_or_closing_are_found_too() {
    let udp = ForwardKey { protocol: protocol::UDP, ..samples::flow() };
    for flow in [samples::flow(), udp] {
        let mut scene = Scene::new();
        let reply = scene.open(&flow);
        both_ways(&mut scene, &flow, &reply);
        // A session that has timed out is none, though it is still there.
        scene.now += 1_000;
        assert_eq!(scene.uplink(&too_big(&flow)), PASSED);
        let error = icmp(&reply, 3, 3, 0, &got_by_container(&reply));
        assert_eq!(scene.veth(samples::VETH, &error), dropped(Reason::ReplyNoSession));
        assert!(scene.tables.half_open.contains_key(&reply), "an error ends no session");
    }
    let (mut scene, flow, reply) = established();
    let _ = scene.client(&flow, Segment::fin());
    let _ = scene.container(&reply, Segment::fin());
    assert!(scene.tables.closing.contains_key(&reply));
    both_ways(&mut scene, &flow, &reply);
}

#[test]
fn i12_a_half_open_session_that_wasnt_given_its_first_candidate_is_found() {
    // Aliases are other clients': the session is put further along.
    let mut scene = Scene::new();
    let flow = samples::flow();
    let first = scene.open(&flow);
    scene.tables.half_open.clear();
    scene.bind(first.alias, [9; 16]);
    let reply = scene.open(&flow);
    assert_ne!(reply.alias, first.alias);
    both_ways(&mut scene, &flow, &reply);
    scene.tables.half_open.clear();
    scene.use_gateway();
    let reply = scene.open(&flow);
    both_ways(&mut scene, &flow, &reply);
}

fn too_big(flow: &ForwardKey) -> Vec<u8> {
    about(flow.host, Icmpv6Type::PacketTooBig { mtu: 1_400 }, &got(flow))
}

/// An error of each side about this session reaches the other.
fn both_ways(scene: &mut Scene, flow: &ForwardKey, reply: &ReplyKey) {
    let there = scene.uplink(&too_big(flow));
    let Outcome::ToContainer(bytes, _) = there else { panic!("{there:?}") };
    assert_eq!((&bytes[16..20], &bytes[40..44]), (&reply.target[..], &reply.target[..]));
    assert_eq!(bytes[44..48], reply.alias);
    let back = scene.veth(samples::VETH, &icmp(reply, 3, 3, 0, &got_by_container(reply)));
    let Outcome::ToClient(bytes, _) = back else { panic!("{back:?}") };
    assert_eq!((&bytes[8..24], &bytes[24..40]), (&flow.host[..], &flow.client[..]));
}

#[test]
fn i7_everything_but_errors_is_the_hosts() {
    let (mut scene, flow, reply) = established();
    let embedded = got(&flow);
    for kind in 0..=255u8 {
        let kind6 = Icmpv6Type::Unknown { type_u8: kind, code_u8: 0, bytes5to8: [0; 4] };
        let outcome = scene.uplink(&about(flow.host, kind6, &embedded));
        match kind {
            1..=4 => assert!(matches!(outcome, Outcome::ToContainer(..)), "{kind}: {outcome:?}"),
            _ => assert_eq!(outcome, PASSED, "ICMPv6 type {kind}"),
        }
    }
    let embedded = got_by_container(&reply);
    for kind in 0..=255u8 {
        let outcome = scene.veth(samples::VETH, &icmp(&reply, kind, 0, 0, &embedded));
        match kind {
            3 | 11 | 12 => assert!(matches!(outcome, Outcome::ToClient(..)), "{kind}: {outcome:?}"),
            4 => assert_eq!(outcome, dropped(Reason::IcmpError)),
            _ => assert_eq!(outcome, dropped(Reason::ReplyProtocol), "ICMP type {kind}"),
        }
    }
}

#[test]
fn i12_errors_about_the_hosts_own_flows_pass() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let _ = scene.establish(&flow);
    let kind = || Icmpv6Type::PacketTooBig { mtu: 1_300 };
    let others = [
        ForwardKey { client_port: 1u16.to_be_bytes(), ..flow },
        ForwardKey { host_port: 9_999u16.to_be_bytes(), ..flow },
        ForwardKey { client: ROUTER, ..flow },
        ForwardKey { host: [0xfd; 16], ..flow },
    ];
    for other in others {
        assert_eq!(scene.uplink(&about(other.host, kind(), &got(&other))), PASSED, "{other:?}");
    }
    // An error that wasn't sent to the one who is said to have sent the packet.
    assert_eq!(scene.uplink(&about([0xfd; 16], kind(), &got(&flow))), PASSED);
    // An embedded packet of another protocol (an ICMP error among them), or behind an extension header.
    for next in [0, 1, 50, 58, 60, 132] {
        let mut embedded = got(&flow);
        embedded[6] = next;
        assert_eq!(scene.uplink(&about(flow.host, kind(), &embedded)), PASSED, "{next}");
    }
    // Of another version.
    for version in (0..16).filter(|version| *version != 6) {
        let mut embedded = got(&flow);
        embedded[0] = version << 4;
        assert_eq!(scene.uplink(&about(flow.host, kind(), &embedded)), PASSED, "{version}");
    }
}

#[test]
fn i12_errors_to_an_alias_about_no_session_are_dropped() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    let other = ReplyKey { alias_port: 1u16.to_be_bytes(), ..reply };
    let error = icmp(&other, 3, 4, 1_400, &got_by_container(&other));
    assert_eq!(scene.veth(samples::VETH, &error), dropped(Reason::ReplyNoSession));
    // To an address that is nobody's alias: the host's own business.
    let routed = ReplyKey { alias: [192, 0, 2, 1], ..reply };
    let error = icmp(&routed, 3, 4, 1_400, &got_by_container(&routed));
    assert_eq!(scene.veth(samples::VETH, &error), PASSED);
}

#[test]
fn i9_i12_malformed_errors_of_a_container_are_dropped() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    let embedded = got_by_container(&reply);
    let frame = icmp(&reply, 3, 4, 1_400, &embedded[..28]);
    for length in 14 + 20..frame.len() {
        let reason = if length < 14 + 28 { Reason::ReplyNoSession } else { Reason::IcmpMalformed };
        assert_eq!(scene.veth(samples::VETH, &frame[..length]), dropped(reason), "{length}");
    }
    for (at, value) in [(0, 0x46), (0, 0x65), (0, 0), (15, embedded[15] ^ 1), (12, 9)] {
        let mut embedded = embedded.clone();
        embedded[at] = value;
        let error = icmp(&reply, 3, 4, 1_400, &embedded);
        assert_eq!(scene.veth(samples::VETH, &error), dropped(Reason::IcmpMalformed), "{at}");
    }
    for total in 0..20u16 {
        let mut embedded = embedded.clone();
        embedded[2..4].copy_from_slice(&total.to_be_bytes());
        let error = icmp(&reply, 3, 4, 1_400, &embedded);
        assert_eq!(scene.veth(samples::VETH, &error), dropped(Reason::IcmpMalformed), "{total}");
    }
}

#[test]
fn i8_errors_about_fragments_are_dropped() {
    let (mut scene, flow, reply) = established();
    let fragment = |place: u16| {
        let mut embedded = got(&flow);
        let [high, low] = place.to_be_bytes();
        embedded.splice(40..40, [embedded[6], 0, high, low, 1, 2, 3, 4]);
        embedded[6] = 44;
        about(flow.host, Icmpv6Type::PacketTooBig { mtu: 1_300 }, &embedded)
    };
    for place in [0, 1, 6] {
        assert_eq!(scene.uplink(&fragment(place)), dropped(Reason::IcmpFragment), "{place}");
    }
    // Without ports it could be anybody's.
    for place in [8, 9, 0xfff8] {
        assert_eq!(scene.uplink(&fragment(place)), PASSED, "{place}");
    }
    let unknown = ForwardKey { client_port: [0, 1], ..flow };
    let mut embedded = got(&unknown);
    embedded.splice(40..40, [embedded[6], 0, 0, 1, 1, 2, 3, 4]);
    embedded[6] = 44;
    let kind = Icmpv6Type::PacketTooBig { mtu: 1_300 };
    assert_eq!(scene.uplink(&about(flow.host, kind, &embedded)), PASSED);
    for flags in [0x2000u16, 0x2001, 1, 0x1fff, 0x4001] {
        let mut embedded = got_by_container(&reply);
        embedded[6..8].copy_from_slice(&flags.to_be_bytes());
        let error = icmp(&reply, 3, 4, 1_400, &embedded);
        assert_eq!(scene.veth(samples::VETH, &error), dropped(Reason::IcmpFragment), "{flags:#x}");
    }
}

#[test]
fn i8_an_error_about_an_error_is_dropped() {
    let (mut scene, _, reply) = established();
    for number in [1, 58] {
        let mut embedded = got_by_container(&reply);
        embedded[9] = number;
        let error = icmp(&reply, 3, 3, 0, &embedded);
        assert_eq!(scene.veth(samples::VETH, &error), dropped(Reason::ReplyNoSession));
    }
}

#[test]
fn i12_an_error_with_a_wrong_checksum_is_dropped() {
    let (mut scene, flow, reply) = established();
    for length in [48, 49, 600, 1_232] {
        let kind = || Icmpv6Type::PacketTooBig { mtu: 1_300 };
        let right = about(flow.host, kind(), &got(&flow)[..length]);
        assert!(matches!(scene.uplink(&right), Outcome::ToContainer(..)));
        let embedded = &got_by_container(&reply)[..length];
        let right4 = icmp(&reply, 3, 3, 0, embedded);
        assert!(matches!(scene.veth(samples::VETH, &right4), Outcome::ToClient(..)));
        for bit in [1, 0x80] {
            // The checksum itself, what nobody looks at, and the last byte.
            for at in [42, 43, 44, 40 + 8 + 6 + 1, right.len() - 1] {
                let mut wrong = right.clone();
                wrong[at] ^= bit;
                assert_eq!(scene.uplink(&wrong), dropped(Reason::IcmpChecksum), "{length} {at}");
            }
            for at in [36, 37, 38, 14 + 28 + 5, right4.len() - 1] {
                let mut wrong = right4.clone();
                wrong[at] ^= bit;
                let outcome = scene.veth(samples::VETH, &wrong);
                assert_eq!(outcome, dropped(Reason::IcmpChecksum), "{length} {at}");
            }
        }
        // The pseudo-header is summed too.
        let mut wrong = right.clone();
        wrong[8 + 15] ^= 1;
        assert_eq!(scene.uplink(&wrong), dropped(Reason::IcmpChecksum), "the sender");
    }
}

#[test]
fn i12_an_error_whose_lengths_are_wrong_is_dropped() {
    let (mut scene, flow, reply) = established();
    let right = about(flow.host, Icmpv6Type::PacketTooBig { mtu: 1_300 }, &got(&flow)[..200]);
    for payload in (0..56).chain([209, 1_000, 65_535]) {
        let mut wrong = right.clone();
        wrong[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
        assert_eq!(scene.uplink(&wrong), dropped(Reason::IcmpMalformed), "{payload}");
    }
    let right = icmp(&reply, 3, 3, 0, &got_by_container(&reply)[..200]);
    for total in (0..56).chain([229, 1_000, 65_535]) {
        let mut wrong = right.clone();
        wrong[16..18].copy_from_slice(&(total as u16).to_be_bytes());
        reseal(&mut wrong[14..]);
        assert_eq!(scene.veth(samples::VETH, &wrong), dropped(Reason::IcmpMalformed), "{total}");
    }
    // Longer than any that a node may send, and than what is summed.
    let long = about(
        flow.host,
        Icmpv6Type::PacketTooBig { mtu: 1_300 },
        &[got(&flow), [0; 400].to_vec()].concat(),
    );
    assert_eq!(scene.uplink(&long), dropped(Reason::IcmpMalformed));
}

#[test]
fn an_error_whose_hops_are_used_up_is_dropped() {
    let (mut scene, flow, reply) = established();
    let mut there = too_big(&flow);
    let mut back = icmp(&reply, 3, 3, 0, &got_by_container(&reply));
    for (hops, reaches) in [(0, false), (1, false), (2, true)] {
        there[7] = hops;
        back[14 + 8] = hops;
        reseal(&mut back[14..]);
        let (there, back) = (scene.uplink(&there), scene.veth(samples::VETH, &back));
        if reaches {
            assert!(matches!(&there, Outcome::ToContainer(bytes, _) if bytes[8] == hops - 1));
            assert!(matches!(&back, Outcome::ToClient(bytes, _) if bytes[7] == hops - 1));
        } else {
            assert_eq!((there, back), (dropped(Reason::HopLimit), dropped(Reason::HopLimit)));
        }
    }
}

#[test]
fn i9_truncated_errors_of_a_router_pass() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let _ = scene.establish(&flow);
    let error = about(flow.host, Icmpv6Type::PacketTooBig { mtu: 1_300 }, &got(&flow)[..48]);
    for length in 0..error.len() {
        assert_eq!(scene.uplink(&error[..length]), PASSED, "{length}");
    }
    assert!(matches!(scene.uplink(&error), Outcome::ToContainer(..)), "8 bytes are enough");
}

#[test]
fn errors_of_a_container_come_by_its_own_link() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    let error = icmp(&reply, 3, 4, 1_400, &got_by_container(&reply));
    assert_eq!(scene.veth(samples::VETH + 1, &error), dropped(Reason::ForgedReply));
    assert_eq!(scene.bridge(samples::BRIDGE, &error), dropped(Reason::ForgedReply));
    scene.tables.links[0] = Link { veth: 0, flags: link_flags::UP, ..samples::link() };
    assert!(matches!(scene.bridge(samples::BRIDGE, &error), Outcome::ToClient(..)));
    let mut forged = error.clone();
    forged[11] ^= 1;
    assert_eq!(scene.bridge(samples::BRIDGE, &forged), dropped(Reason::ForgedReply));
}

#[test]
fn errors_about_a_session_whose_link_is_gone_are_dropped() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    scene.tables.links[0].generation = 9;
    let there = about(flow.host, Icmpv6Type::PacketTooBig { mtu: 1_300 }, &got(&flow));
    assert_eq!(scene.uplink(&there), dropped(Reason::TargetGone));
    let back = icmp(&reply, 3, 4, 1_400, &got_by_container(&reply));
    assert_eq!(scene.veth(samples::VETH, &back), dropped(Reason::TargetGone));
}

#[test]
fn in_gateway_mode_an_error_is_found_by_the_embedded_port() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    scene.use_gateway();
    let reply = scene.establish(&flow);
    let embedded = got_by_container(&reply);
    let error = icmp(&reply, 3, 4, 1_400, &embedded);
    assert!(matches!(scene.veth(samples::VETH, &error), Outcome::ToClient(..)));
    let other = ReplyKey { alias_port: 1u16.to_be_bytes(), ..reply };
    let error = icmp(&other, 3, 4, 1_400, &got_by_container(&other));
    assert_eq!(scene.veth(samples::VETH, &error), PASSED);
    // Unknown, in the range: it may be a connection of the host's own.
    let unknown = ReplyKey { target_port: 99u16.to_be_bytes(), ..reply };
    let error = icmp(&unknown, 3, 4, 1_400, &got_by_container(&unknown));
    assert_eq!(scene.veth(samples::VETH, &error), PASSED);
    let mut echo = icmp(&reply, 8, 0, 0, &embedded);
    reseal(&mut echo[14..]);
    assert_eq!(scene.veth(samples::VETH, &echo), PASSED);
}

#[test]
fn i10_an_error_is_as_short_as_its_family_asks_for() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    let (got, by_container) = (got(&flow), got_by_container(&reply));
    for length in [28, 48, 100, 548, 1_000, 1_180, 1_192] {
        let error =
            about(flow.host, Icmpv6Type::PacketTooBig { mtu: 1_300 }, &got[..length.max(48)]);
        let Outcome::ToContainer(bytes, _) = scene.uplink(&error) else { panic!("{length}") };
        assert!(bytes.len() <= 576, "{} bytes of IPv4", bytes.len());
        // Its own length is right too, to the byte.
        let Ok(parsed) = etherparse::Ipv4Slice::from_slice(&bytes) else { panic!("{length}") };
        assert_eq!(usize::from(parsed.header().total_len()), bytes.len());

        let error = icmp(&reply, 3, 4, 1_400, &by_container[..length]);
        let Outcome::ToClient(bytes, _) = scene.veth(samples::VETH, &error) else {
            panic!("{length}")
        };
        assert!(bytes.len() <= 1_280, "{} bytes of IPv6", bytes.len());
        let Ok(parsed) = etherparse::Ipv6Slice::from_slice(&bytes) else { panic!("{length}") };
        assert_eq!(usize::from(parsed.header().payload_length()) + 40, bytes.len());
    }
}
