//! Fields with few values, at every one of them: traffic classes, ICMP types and codes, pointers; and
//! the MTUs around each limit. Whole packets, against tables that are written down here once more.

use super::errors::{about, established, got, got_by_container};
use super::kinds::{self, Side};
use super::packets::reseal;
use super::truncation::judge;
use super::*;
use crate::layout::{ForwardKey, ReplyKey};
use etherparse::{Icmpv6Type, PacketBuilder};
use std::vec::Vec;

/// ICMPv6 errors of a router's, with any type, code and second word.
fn to_host(flow: &ForwardKey) -> impl Fn([u8; 2], [u8; 4]) -> Vec<u8> {
    let (host, embedded) = (flow.host, got(flow)[..100].to_vec());
    move |[kind, code], second| {
        let kind = Icmpv6Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: second };
        about(host, kind, &embedded)
    }
}

/// ICMP errors of a container's.
fn to_alias(reply: &ReplyKey) -> impl Fn([u8; 2], [u8; 4]) -> Vec<u8> {
    let (reply, embedded) = (*reply, got_by_container(reply)[..100].to_vec());
    move |[kind, code], second| {
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2(samples::TARGET_MAC, samples::link().device_mac)
            .ipv4(reply.target, reply.alias, 64)
            .icmpv4_raw(kind, code, second)
            .write(&mut bytes, &embedded)
            .expect("an ICMP error");
        bytes
    }
}

/// The header of the ICMP error that came out, which has been judged; `None` if there is none.
fn header(outcome: &Outcome) -> Option<[u8; 8]> {
    let (bytes, at) = match outcome {
        Outcome::ToContainer(bytes, _) => (bytes, 20),
        Outcome::ToClient(bytes, _) => (bytes, 40),
        _ => return None,
    };
    judge(bytes, "an error");
    Some(core::array::from_fn(|index| bytes[at + index]))
}

/// Links that carry everything.
fn unlimit(scene: &mut Scene) {
    scene.tables.links[0].mtu = 0;
    scene.tables.uplinks.clear();
}

#[test]
fn h2_g1_every_traffic_class_of_every_kind_of_packet() {
    let mut all = kinds::of_clients();
    all.extend(kinds::of_clients_extended());
    all.extend(kinds::fragments_of_clients());
    all.extend(kinds::of_containers());
    all.extend(kinds::fragments_of_containers());
    for kind in all {
        for class in 0..=255u8 {
            let mut bytes = kind.bytes.clone();
            if kind.side == Side::Uplink {
                // With a flow label, which IPv4 has no place for.
                bytes[..4].copy_from_slice(&[0x60 | class >> 4, class << 4 | 0x0a, 0xbc, 0xde]);
            } else {
                bytes[1] = class;
                reseal(&mut bytes);
            }
            let outcome = kind.send(&mut kind.again(), &bytes);
            match &outcome {
                Outcome::ToContainer(bytes, _) => assert_eq!(bytes[1], class, "{}", kind.name),
                Outcome::ToClient(bytes, _) => {
                    let start = [0x60 | class >> 4, class << 4, 0, 0];
                    assert_eq!(bytes[..4], start, "{}, {class}", kind.name);
                }
                other => panic!("{}, {class}: {other:?}", kind.name),
            }
        }
    }
}

/// RFC 7915 §5.2: type and code of an ICMPv6 error, and of the ICMPv4 error that it becomes.
const TO_IPV4: [([u8; 2], [u8; 2]); 7] = [
    ([1, 0], [3, 1]),
    ([1, 1], [3, 10]),
    ([1, 2], [3, 1]),
    ([1, 3], [3, 1]),
    ([1, 4], [3, 3]),
    ([4, 0], [12, 0]),
    ([4, 1], [3, 2]),
];

#[test]
fn i2_i3_i4_i7_every_type_and_code_of_icmpv6() {
    let (mut scene, flow, _) = established();
    let to_host = to_host(&flow);
    let before = scene.tables.clone();
    let mut count = 0;
    for kind in 0..=255u8 {
        for code in 0..=255u8 {
            let outcome = scene.uplink(&to_host([kind, code], [0; 4]));
            let expected = match kind {
                2 => Some([3, 4]),
                3 => Some([11, code]),
                _ => TO_IPV4.iter().find(|(from, _)| *from == [kind, code]).map(|(_, to)| *to),
            };
            let found = header(&outcome).map(|[kind, code, ..]| [kind, code]);
            assert_eq!(found, expected, "{kind}/{code}");
            if found.is_none() {
                // What isn't an error is the host's: echo, neighbour and listener discovery.
                let stopped =
                    if (1..=4).contains(&kind) { dropped(Reason::IcmpError) } else { PASSED };
                assert_eq!(outcome, stopped, "{kind}/{code}");
            }
            count += usize::from(found.is_some());
        }
    }
    assert_eq!(count, 2 * 256 + TO_IPV4.len());
    assert_eq!(scene.tables.forward, before.forward);
}

/// RFC 7915 §4.2: codes of "unreachable", and type and code of the ICMPv6 error that it becomes.
const TO_IPV6: [(u8, [u8; 2]); 15] = [
    (0, [1, 0]),
    (1, [1, 0]),
    (2, [4, 1]),
    (3, [1, 4]),
    (4, [2, 0]),
    (5, [1, 0]),
    (6, [1, 0]),
    (7, [1, 0]),
    (8, [1, 0]),
    (9, [1, 1]),
    (10, [1, 1]),
    (11, [1, 0]),
    (12, [1, 0]),
    (13, [1, 1]),
    (15, [1, 1]),
];

#[test]
fn i5_i6_i7_every_type_and_code_of_icmpv4() {
    let (mut scene, _, reply) = established();
    let to_alias = to_alias(&reply);
    let before = scene.tables.clone();
    let mut count = 0;
    for kind in 0..=255u8 {
        for code in 0..=255u8 {
            let outcome = scene.veth(samples::VETH, &to_alias([kind, code], [0; 4]));
            let expected = match (kind, code) {
                (3, _) => TO_IPV6.iter().find(|(from, _)| *from == code).map(|(_, to)| *to),
                (11, _) => Some([3, code]),
                (12, 0 | 2) => Some([4, 0]),
                _ => None,
            };
            let found = header(&outcome).map(|[kind, code, ..]| [kind, code]);
            assert_eq!(found, expected, "{kind}/{code}");
            if found.is_none() {
                // To an alias nothing is the host's; source quench is an error that IPv6 hasn't.
                let error = matches!(kind, 3 | 4 | 11 | 12);
                let reason = if error { Reason::IcmpError } else { Reason::ReplyProtocol };
                assert_eq!(outcome, dropped(reason), "{kind}/{code}");
            }
            count += usize::from(found.is_some());
        }
    }
    assert_eq!(count, 256 + 2 + TO_IPV6.len());
    assert_eq!(scene.tables.reverse, before.reverse);
}

#[test]
fn i4_every_pointer_into_an_ipv6_header_and_behind_it() {
    let (mut scene, flow, _) = established();
    let to_host = to_host(&flow);
    let beyond = [0x100u32, 0x106, 0x1_0000, 0x100_0000, 0x0600_0000, u32::MAX - 1, u32::MAX];
    for pointer in (0..=0xff).chain(beyond) {
        // RFC 7915 figure 6.
        let expected = match pointer {
            0 => Some(0),
            1 => Some(1),
            4 | 5 => Some(2),
            6 => Some(9),
            7 => Some(8),
            8..=23 => Some(12),
            24..=39 => Some(16),
            _ => None,
        };
        let outcome = scene.uplink(&to_host([4, 0], pointer.to_be_bytes()));
        let whole = expected.map(|pointer| [pointer, 0, 0, 0]);
        let found = header(&outcome).map(|[_, _, _, _, a, b, c, d]| [a, b, c, d]);
        assert_eq!(found, whole, "{pointer}");
        if found.is_none() {
            assert_eq!(outcome, dropped(Reason::IcmpError), "{pointer}");
        }
        // An unknown next header is a protocol that isn't there, wherever it is named.
        let outcome = scene.uplink(&to_host([4, 1], pointer.to_be_bytes()));
        let found = header(&outcome).map(|[a, b, _, _, c, d, e, f]| [a, b, c, d, e, f]);
        assert_eq!(found, Some([3, 2, 0, 0, 0, 0]), "{pointer}");
        let outcome = scene.uplink(&to_host([4, 2], pointer.to_be_bytes()));
        assert_eq!(outcome, dropped(Reason::IcmpError), "{pointer}");
    }
}

#[test]
fn i5_every_pointer_into_an_ipv4_header_and_behind_it() {
    let (mut scene, _, reply) = established();
    let to_alias = to_alias(&reply);
    for pointer in 0..=255u8 {
        // RFC 7915 figure 3.
        let expected = match pointer {
            0 => Some(0u32),
            1 => Some(1),
            2 | 3 => Some(4),
            8 => Some(7),
            9 => Some(6),
            12..=15 => Some(8),
            16..=19 => Some(24),
            _ => None,
        };
        for code in 0..=255u8 {
            // The bytes behind the pointer mean nothing here.
            let frame = to_alias([12, code], [pointer, 0, 0xff, 0xff]);
            let outcome = scene.veth(samples::VETH, &frame);
            let found = header(&outcome).map(|[kind, code, _, _, a, b, c, d]| {
                assert_eq!([kind, code], [4, 0], "{pointer}");
                u32::from_be_bytes([a, b, c, d])
            });
            let mapped = if matches!(code, 0 | 2) { expected } else { None };
            assert_eq!(found, mapped, "{pointer}, code {code}");
            if found.is_none() {
                assert_eq!(outcome, dropped(Reason::IcmpError), "{pointer}, code {code}");
            }
        }
    }
}

/// MTUs around each limit: as they are told by one side, without a limit of our own links, and with
/// links that carry 1500 bytes.
#[test]
fn i3_every_limit_of_packet_too_big() {
    for (mtu, unlimited, limited) in [
        (0u32, 1_260u16, 1_260u16),
        (1, 1_260, 1_260),
        (19, 1_260, 1_260),
        (20, 1_260, 1_260),
        (1_259, 1_260, 1_260),
        (1_260, 1_260, 1_260),
        (1_261, 1_260, 1_260),
        (1_279, 1_260, 1_260),
        (1_280, 1_260, 1_260),
        (1_281, 1_261, 1_261),
        (1_499, 1_479, 1_479),
        (1_500, 1_480, 1_480),
        (1_501, 1_481, 1_480),
        (65_535, 65_515, 1_480),
        (65_554, 65_534, 1_480),
        (65_555, 65_535, 1_480),
        (65_556, 65_535, 1_480),
        (u32::MAX, 65_535, 1_480),
    ] {
        let (mut scene, flow, _) = established();
        let to_host = to_host(&flow);
        for expected in [limited, unlimited] {
            let error = to_host([2, 0], mtu.to_be_bytes());
            let [high, low] = expected.to_be_bytes();
            let [kind, code, _, _, rest @ ..] = header(&scene.uplink(&error)).expect("an error");
            assert_eq!(([kind, code], rest), ([3, 4], [0, 0, high, low]), "{mtu}");
            unlimit(&mut scene);
        }
    }
}

#[test]
fn i6_every_limit_of_fragmentation_needed() {
    for (mtu, unlimited, limited) in [
        // Estimated: the embedded packet's length is 1240, which is below every plateau.
        (0u16, 1_280u32, 1_280u32),
        (1, 1_280, 1_280),
        (19, 1_280, 1_280),
        (20, 1_280, 1_280),
        (1_259, 1_280, 1_280),
        (1_260, 1_280, 1_280),
        (1_261, 1_281, 1_281),
        (1_279, 1_299, 1_299),
        (1_280, 1_300, 1_300),
        (1_281, 1_301, 1_301),
        (1_479, 1_499, 1_499),
        (1_480, 1_500, 1_500),
        (1_481, 1_501, 1_500),
        (1_500, 1_520, 1_500),
        (65_515, 65_535, 1_500),
        (65_534, 65_554, 1_500),
        (65_535, 65_555, 1_500),
    ] {
        let (mut scene, _, reply) = established();
        let to_alias = to_alias(&reply);
        for expected in [limited, unlimited] {
            let [high, low] = mtu.to_be_bytes();
            let error = to_alias([3, 4], [0, 0, high, low]);
            let outcome = scene.veth(samples::VETH, &error);
            let [kind, code, _, _, rest @ ..] = header(&outcome).expect("an error");
            assert_eq!(([kind, code], rest), ([2, 0], expected.to_be_bytes()), "{mtu}");
            unlimit(&mut scene);
        }
    }
}

/// What a link carries may be anything too: no MTU of ours makes a size wrap around.
#[test]
fn i3_i6_every_limit_of_our_own_links() {
    let values = [0u32, 1, 19, 20, 1_259, 1_260, 1_261, 1_279, 1_280, 1_281, 1_500, 65_535];
    let (mut scene, flow, reply) = established();
    let to_host = to_host(&flow);
    let to_alias = to_alias(&reply);
    for uplink in values.into_iter().chain([u32::MAX - 20, u32::MAX]) {
        for link in values.into_iter().chain([u32::MAX - 20, u32::MAX]) {
            if let Some(found) = scene.tables.uplinks.get_mut(&samples::UPLINK) {
                found.mtu = uplink;
            }
            scene.tables.links[0].mtu = link;
            let link = if link == 0 { u64::from(u32::MAX) } else { u64::from(link) };
            let uplink = u64::from(uplink);
            let outcome = scene.uplink(&to_host([2, 0], u32::MAX.to_be_bytes()));
            let [.., high, low] = header(&outcome).expect("an error");
            let expected = (uplink.max(1_280) - 20).min(link).min(65_535);
            assert_eq!(u64::from(u16::from_be_bytes([high, low])), expected, "{uplink} {link}");
            let error = to_alias([3, 4], [0, 0, 0xff, 0xff]);
            let outcome = scene.veth(samples::VETH, &error);
            let [.., a, b, c, d] = header(&outcome).expect("an error");
            let expected = (link + 20).min(65_555).min(uplink).max(1_280);
            assert_eq!(u64::from(u32::from_be_bytes([a, b, c, d])), expected, "{uplink} {link}");
        }
    }
}
