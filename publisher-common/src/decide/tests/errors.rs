//! ICMP errors about sessions, both ways.

use super::packets::{from_client, from_target, reseal};
use super::*;
use crate::decide::Exit;
use crate::layout::{ForwardKey, Link, ReplyKey, link_flags};
use crate::wire::ETHERNET_LENGTH;
use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, SlicedPacket, TransportSlice, icmpv4};
use std::vec::Vec;

/// A router on the client's path.
const ROUTER: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe];

/// What the client's side embeds: a packet that it got.
fn got(flow: &ForwardKey) -> Vec<u8> {
    let turned = ForwardKey {
        client: flow.host,
        host: flow.client,
        client_port: flow.host_port,
        host_port: flow.client_port,
        ..*flow
    };
    from_client(&turned, &Segment::data(1_200).into())
}

/// An ICMPv6 error to `to`, about `embedded`.
fn about(to: [u8; 16], kind: Icmpv6Type, embedded: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv6(ROUTER, to, 61)
        .icmpv6(kind)
        .write(&mut bytes, embedded)
        .expect("an ICMPv6 error");
    bytes
}

/// What the container's side embeds: a packet that it got.
fn got_by_container(reply: &ReplyKey) -> Vec<u8> {
    let turned = ReplyKey {
        target: reply.alias,
        alias: reply.target,
        target_port: reply.alias_port,
        alias_port: reply.target_port,
        ..*reply
    };
    from_target(&turned, &Segment::data(1_200).into())[ETHERNET_LENGTH..].to_vec()
}

/// An ICMP error of the container or of a router behind it, about `embedded`.
fn icmp(reply: &ReplyKey, kind: u8, code: u8, mtu: u16, embedded: &[u8]) -> Vec<u8> {
    let [high, low] = mtu.to_be_bytes();
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(samples::TARGET_MAC, samples::link().device_mac)
        .ipv4(reply.target, reply.alias, 64)
        .icmpv4_raw(kind, code, [0, 0, high, low])
        .write(&mut bytes, embedded)
        .expect("an ICMP error");
    bytes
}

#[test]
fn i3_i8_too_big_reaches_the_container_as_fragmentation_needed() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    for (mtu, expected) in [(0, 1_260), (1_279, 1_260), (1_280, 1_260), (1_400, 1_380)] {
        let error = about(flow.host, Icmpv6Type::PacketTooBig { mtu }, &got(&flow)[..1_100]);
        let Outcome::ToContainer(bytes, exit) = scene.uplink(&error) else { panic!("{mtu}") };
        assert_eq!(exit, Exit::Peer(samples::VETH));
        let parsed = SlicedPacket::from_ip(&bytes).expect("a packet");
        let Some(TransportSlice::Icmpv4(icmp)) = parsed.transport else { panic!("no ICMP") };
        let kind = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: expected };
        assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(kind));
        assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
        // The container finds its own packet in it: header, ports and sequence number.
        let own = from_target(&reply, &Segment::data(1_200).into());
        let own = &own[ETHERNET_LENGTH..];
        let inner = icmp.payload();
        assert_eq!(inner.len(), 28);
        assert_eq!((&inner[12..20], &inner[20..28]), (&own[12..20], &own[20..28]));
        assert_eq!(inner[2..4], own[2..4], "total length");
    }
}

#[test]
fn i6_i8_fragmentation_needed_reaches_the_client_as_too_big() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    for (mtu, expected) in [(0, 1_280), (1_260, 1_280), (1_400, 1_420)] {
        let error = icmp(&reply, 3, 4, mtu, &got_by_container(&reply)[..28]);
        let Outcome::ToClient(bytes, uplink) = scene.veth(samples::VETH, &error) else {
            panic!("{mtu}")
        };
        assert_eq!(uplink.ifindex, samples::UPLINK);
        let parsed = SlicedPacket::from_ip(&bytes).expect("a packet");
        let Some(TransportSlice::Icmpv6(icmp)) = parsed.transport else { panic!("no ICMPv6") };
        assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: expected });
        assert!(icmp.is_checksum_valid(flow.host, flow.client));
        let own = from_client(&flow, &Segment::data(1_200).into());
        let inner = icmp.payload();
        assert_eq!(inner.len(), 48);
        assert_eq!((&inner[8..40], &inner[40..48]), (&own[8..40], &own[40..48]));
        assert_eq!(inner[4..6], own[4..6], "payload length");
    }
}

#[test]
fn i13_an_error_neither_counts_nor_ends_a_session() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    let before = (scene.tables.forward.clone(), scene.tables.reverse.clone());
    scene.now += 7;
    let _ = scene.uplink(&about(flow.host, Icmpv6Type::PacketTooBig { mtu: 1_300 }, &got(&flow)));
    let embedded = got_by_container(&reply);
    for kind in 0..=255 {
        for code in 0..16 {
            let _ = scene.veth(samples::VETH, &icmp(&reply, kind, code, 1_400, &embedded));
        }
    }
    assert_eq!((scene.tables.forward.clone(), scene.tables.reverse.clone()), before);
}

#[test]
fn other_errors_about_a_session_are_dropped() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    let right = about(flow.host, Icmpv6Type::PacketTooBig { mtu: 1_300 }, &got(&flow)[..200]);
    for kind in 0..=255u8 {
        let mut error = right.clone();
        error[40] = kind;
        let expected = match kind {
            2 => continue,
            1 | 3 | 4 => dropped(Reason::IcmpError),
            _ => PASSED,
        };
        assert_eq!(scene.uplink(&error), expected, "ICMPv6 type {kind}");
    }
    let embedded = got_by_container(&reply);
    for kind in 0..=255u8 {
        for code in 0..=16 {
            if (kind, code) == (3, 4) {
                continue;
            }
            let reason = match kind {
                3 | 4 | 11 | 12 => Reason::IcmpError,
                _ => Reason::ReplyProtocol,
            };
            let error = icmp(&reply, kind, code, 1_400, &embedded);
            assert_eq!(scene.veth(samples::VETH, &error), dropped(reason), "{kind}/{code}");
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
    // An embedded packet of another protocol, or behind an extension header.
    for next in [0, 1, 44, 50, 58, 132] {
        let mut embedded = got(&flow);
        embedded[6] = next;
        assert_eq!(scene.uplink(&about(flow.host, kind(), &embedded)), PASSED, "{next}");
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
