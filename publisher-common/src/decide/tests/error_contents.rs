//! What ICMP errors about a session become: types, sizes, the embedded packet and the extension.

use super::errors::{ROUTER, about, got, got_by_container, icmp};
use super::packets::{from_client, from_target};
use super::*;
use crate::decide::Exit;
use crate::layout::{ForwardKey, ReplyKey};
use crate::translate::icmp::{to_ipv4, to_ipv6};
use crate::wire::{ETHERNET_LENGTH, protocol};
use etherparse::{Icmpv6Type, PacketBuilder, SlicedPacket, TransportSlice};
use std::vec::Vec;

/// Both protocols, established.
fn sessions() -> [(Scene, ForwardKey, ReplyKey); 2] {
    [protocol::TCP, protocol::UDP].map(|number| {
        let (mut scene, flow) = (Scene::new(), ForwardKey { protocol: number, ..samples::flow() });
        let reply = scene.establish(&flow);
        (scene, flow, reply)
    })
}

fn raw(kind: u8, code: u8, second: u32) -> Icmpv6Type {
    Icmpv6Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: second.to_be_bytes() }
}

/// An ICMP error of the container with any second word.
fn raw4(reply: &ReplyKey, kind: u8, code: u8, second: [u8; 4], embedded: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(samples::TARGET_MAC, samples::link().device_mac)
        .ipv4(reply.target, reply.alias, 64)
        .icmpv4_raw(kind, code, second)
        .write(&mut bytes, embedded)
        .expect("an ICMP error");
    bytes
}

/// The container's error: its ICMP header and what follows. Headers and checksums have been judged.
fn at_container(outcome: &Outcome, reply: &ReplyKey) -> ([u8; 8], Vec<u8>) {
    let Outcome::ToContainer(bytes, exit) = outcome else { panic!("{outcome:?}") };
    assert_eq!(*exit, Exit::Peer(samples::VETH));
    let header = etherparse::Ipv4HeaderSlice::from_slice(bytes).expect("an IPv4 header");
    assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
    assert_eq!((header.source(), header.destination()), (samples::GATEWAY, reply.target));
    assert_eq!(usize::from(header.total_len()), bytes.len());
    assert!(bytes.len() <= 576, "{}", bytes.len());
    assert_eq!(sum(&bytes[20..]), 0xffff, "ICMP checksum");
    (bytes[20..28].try_into().expect("8 bytes"), bytes[28..].to_vec())
}

/// The ones' complement sum of a message, which with its right checksum is 0xffff (RFC 1071).
pub fn sum(message: &[u8]) -> u32 {
    let sum = message.chunks(2).fold(0u32, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
    });
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}

/// The client's error, as [`at_container`].
fn at_client(outcome: &Outcome, flow: &ForwardKey) -> ([u8; 8], Vec<u8>) {
    let Outcome::ToClient(bytes, uplink) = outcome else { panic!("{outcome:?}") };
    assert_eq!((uplink.ifindex, uplink.raw), (samples::UPLINK, false));
    let header = etherparse::Ipv6HeaderSlice::from_slice(bytes).expect("an IPv6 header");
    assert_eq!((header.source(), header.destination()), (flow.host, flow.client));
    assert_eq!(usize::from(header.payload_length()) + 40, bytes.len());
    assert!(bytes.len() <= 1_280, "{}", bytes.len());
    let Some(TransportSlice::Icmpv6(icmp)) =
        SlicedPacket::from_ip(bytes).expect("a packet").transport
    else {
        panic!("no ICMPv6")
    };
    assert!(icmp.is_checksum_valid(flow.host, flow.client));
    (bytes[40..48].try_into().expect("8 bytes"), bytes[48..].to_vec())
}

#[test]
fn i2_i4_i7_every_error_of_the_clients_side() {
    let [(mut scene, flow, reply), _] = sessions();
    let embedded = got(&flow);
    for kind in 1..=4 {
        for code in 0..=255 {
            for pointer in if (kind, code) == (4, 0) { 0..44 } else { 6..7 } {
                let outcome = scene.uplink(&about(flow.host, raw(kind, code, pointer), &embedded));
                match to_ipv4(kind, code, pointer) {
                    Some(mapped) => {
                        let (icmp, _) = at_container(&outcome, &reply);
                        assert_eq!(
                            (icmp[0], icmp[1], icmp[4]),
                            (mapped.kind, mapped.code, mapped.pointer)
                        );
                        assert_eq!(icmp[5], 0);
                        let mtu = if kind == 2 { 1_260u16 } else { 0 };
                        assert_eq!(icmp[6..8], mtu.to_be_bytes(), "{kind}/{code}");
                    }
                    None => assert_eq!(outcome, dropped(Reason::IcmpError), "{kind}/{code}"),
                }
            }
        }
    }
}

#[test]
fn i5_i7_every_error_of_the_containers_side() {
    let [(mut scene, flow, reply), _] = sessions();
    let embedded = &got_by_container(&reply)[..100];
    for kind in [3, 4, 11, 12] {
        for code in 0..=255 {
            for pointer in if kind == 12 && code < 3 { 0..=24 } else { 9..=9 } {
                let error = raw4(&reply, kind, code, [pointer, 0, 0, 0], embedded);
                let outcome = scene.veth(samples::VETH, &error);
                match to_ipv6(kind, code, pointer) {
                    Some(mapped) => {
                        let (icmp, _) = at_client(&outcome, &flow);
                        assert_eq!((icmp[0], icmp[1]), (mapped.kind, mapped.code));
                        let second = match mapped.kind {
                            2 => 1_280,
                            4 => u32::from(mapped.pointer),
                            _ => 0,
                        };
                        assert_eq!(icmp[4..], second.to_be_bytes(), "{kind}/{code}");
                    }
                    None => assert_eq!(outcome, dropped(Reason::IcmpError), "{kind}/{code}"),
                }
            }
        }
    }
}

#[test]
fn i3_i6_mtus_of_path_and_links() {
    for (uplink, link, there, back) in
        [(1_500, 1_500, 1_480, 1_500), (1_400, 1_500, 1_380, 1_400), (9_000, 1_300, 1_300, 1_320)]
    {
        let [(mut scene, flow, reply), _] = sessions();
        scene.tables.links[0].mtu = link;
        let settings = samples::uplink(uplink);
        scene.tables.uplinks.insert(samples::UPLINK, settings);
        let outcome = scene.uplink(&about(flow.host, raw(2, 0, 8_000), &got(&flow)));
        let (icmp6, _) = at_container(&outcome, &reply);
        assert_eq!(icmp6[6..8], u16::to_be_bytes(there), "{uplink} {link}");
        let error = icmp(&reply, 3, 4, 8_000, &got_by_container(&reply));
        let (icmp4, _) = at_client(&scene.veth(samples::VETH, &error), &flow);
        assert_eq!(icmp4[4..], u32::to_be_bytes(back), "{uplink} {link}");
    }
    // Links that aren't known set no limit.
    let [(mut scene, flow, reply), _] = sessions();
    scene.tables.links[0].mtu = 0;
    scene.tables.uplinks.clear();
    let outcome = scene.uplink(&about(flow.host, raw(2, 0, 8_000), &got(&flow)));
    assert_eq!(at_container(&outcome, &reply).0[6..8], 7_980u16.to_be_bytes());
    let error = icmp(&reply, 3, 4, 8_000, &got_by_container(&reply));
    let (icmp, _) = at_client(&scene.veth(samples::VETH, &error), &flow);
    assert_eq!(icmp[4..], 8_020u32.to_be_bytes());
}

#[test]
fn i6_without_an_mtu_it_is_estimated_from_the_embedded_length() {
    let [(mut scene, flow, reply), _] = sessions();
    scene.tables.uplinks.clear();
    scene.tables.links[0].mtu = 9_000;
    for (total, mtu) in [(1_240, 1_280), (1_500, 1_512), (4_352, 2_022), (9_000, 8_186)] {
        let mut embedded = got_by_container(&reply);
        embedded[2..4].copy_from_slice(&u16::to_be_bytes(total));
        let error = icmp(&reply, 3, 4, 0, &embedded);
        let (icmp, _) = at_client(&scene.veth(samples::VETH, &error), &flow);
        assert_eq!(icmp[4..], u32::to_be_bytes(mtu), "{total}");
    }
}

/// Whole packets are embedded: what comes out is whole too, with the receiver's own addresses and
/// ports, and the oracle finds its checksum right.
#[test]
fn i8_i9_the_embedded_packet_is_the_receivers_own() {
    for (mut scene, flow, reply) in sessions() {
        let body = |length| match flow.protocol {
            protocol::UDP => Body::datagram(length),
            _ => Segment::data(length).into(),
        };
        for length in [0, 1, 2, 3, 100, 499, 500] {
            let sent = &from_target(&reply, &body(length))[ETHERNET_LENGTH..];
            let turned = ForwardKey {
                client: flow.host,
                host: flow.client,
                client_port: flow.host_port,
                host_port: flow.client_port,
                ..flow
            };
            let mut embedded = from_client(&turned, &body(length));
            (embedded[0], embedded[1]) = (0x6a, 0xb0);
            let (_, own) =
                at_container(&scene.uplink(&about(flow.host, raw(1, 4, 0), &embedded)), &reply);
            let (own, sent) = (Seen::of(&own), Seen::of(sent));
            assert_eq!((own.addresses, own.ports), (sent.addresses, sent.ports));
            assert_eq!((own.payload, own.hops), (sent.payload, 64), "hops aren't counted");

            let sent = from_client(&flow, &body(length));
            let turned = ReplyKey {
                target: reply.alias,
                alias: reply.target,
                target_port: reply.alias_port,
                alias_port: reply.target_port,
                ..reply
            };
            let embedded = &from_target(&turned, &body(length))[ETHERNET_LENGTH..];
            let error = icmp(&reply, 3, 3, 0, embedded);
            let (_, own) = at_client(&scene.veth(samples::VETH, &error), &flow);
            let (own, sent) = (Seen::of(&own), Seen::of(&sent));
            assert_eq!((own.addresses, own.ports), (sent.addresses, sent.ports));
            assert_eq!((own.payload, own.hops), (sent.payload, 64), "hops aren't counted");
        }
    }
}

#[test]
fn h2_g1_traffic_classes_of_both_headers_are_kept() {
    let [(mut scene, flow, reply), _] = sessions();
    for class in 0..=255u8 {
        let mut embedded = got(&flow);
        (embedded[0], embedded[1]) = (0x60 | !class >> 4, !class << 4);
        let mut error = about(flow.host, raw(1, 0, 0), &embedded);
        (error[0], error[1]) = (0x60 | class >> 4, class << 4);
        let Outcome::ToContainer(bytes, _) = scene.uplink(&error) else { panic!("{class}") };
        assert_eq!((bytes[1], bytes[29]), (class, !class));
        let mut embedded = got_by_container(&reply);
        embedded[1] = !class;
        let mut error = icmp(&reply, 3, 1, 0, &embedded);
        error[15] = class;
        let Outcome::ToClient(bytes, _) = scene.veth(samples::VETH, &error) else {
            panic!("{class}")
        };
        let class_of = |at: usize| bytes[at] << 4 | bytes[at + 1] >> 4;
        assert_eq!((class_of(0), class_of(48)), (class, !class));
    }
}

#[test]
fn i9_i10_from_8_bytes_to_all_that_fits() {
    for (mut scene, flow, reply) in sessions() {
        let (six, four) = (got(&flow), got_by_container(&reply));
        for length in 48..=1_240 {
            let outcome = scene.uplink(&about(flow.host, raw(1, 4, 0), &six[..length]));
            let (_, own) = at_container(&outcome, &reply);
            assert_eq!(own.len(), (length - 20).min(548), "{length}");
            assert_eq!(own.get(38..), (own.len() >= 38).then(|| &six[58..own.len() + 20]));
        }
        for length in 28..=1_220 {
            let error = icmp(&reply, 3, 3, 0, &four[..length]);
            let (_, own) = at_client(&scene.veth(samples::VETH, &error), &flow);
            assert_eq!(own.len(), (length + 20).min(1_232), "{length}");
        }
    }
}

/// An extension of one object (RFC 4884 §7), and the embedded packet in front of it.
fn extended(embedded: &[u8], length: usize) -> Vec<u8> {
    let mut body = embedded[..length.min(embedded.len())].to_vec();
    body.resize(length, 0);
    body.extend_from_slice(EXTENSION);
    body
}

const EXTENSION: &[u8] = &[0x20, 0, 0xab, 0xcd, 0, 8, 1, 1, 0xde, 0xad, 0xbe, 0xef];

#[test]
fn i11_an_extension_goes_along_behind_128_bytes() {
    for (mut scene, flow, reply) in sessions() {
        let (six, four) = (got(&flow), got_by_container(&reply));
        for (kind, code) in [(1, 0), (1, 4), (3, 0)] {
            for units in 16..=140u32 {
                let body = extended(&six, units as usize * 8);
                let error = about(flow.host, raw(kind, code, units << 24), &body);
                let (icmp, own) = at_container(&scene.uplink(&error), &reply);
                assert_eq!(icmp[4..], [0, 32, 0, 0], "{units}");
                assert_eq!(&own[128..], EXTENSION, "{units}");
                let kept = (units as usize * 8 - 48).min(100) + 28;
                assert!(own[kept..128].iter().all(|byte| *byte == 0), "padding, {units}");
                assert_eq!(own[38..kept], six[58..kept + 20], "{units}");
            }
        }
        for (kind, code) in [(3, 1), (3, 3), (11, 0)] {
            for units in 32..=255u8 {
                let body = extended(&four, usize::from(units) * 4);
                let error = raw4(&reply, kind, code, [0, units, 0, 0], &body);
                let (icmp, own) = at_client(&scene.veth(samples::VETH, &error), &flow);
                assert_eq!(icmp[4..], [16, 0, 0, 0], "{units}");
                assert_eq!(&own[128..], EXTENSION, "{units}");
                assert_eq!(own[58..128], four[38..108], "{units}");
            }
        }
    }
}

#[test]
fn i11_types_without_a_length_leave_the_extension_out() {
    let [(mut scene, flow, reply), _] = sessions();
    let four = got_by_container(&reply);
    for (kind, code, second) in [(3, 2, 6u32), (3, 4, 1_420), (12, 0, 1)] {
        let [_, _, high, low] = 1_400u32.to_be_bytes();
        let body = extended(&four, 128);
        let error = raw4(&reply, kind, code, [1, 32, high, low], &body);
        let (icmp, own) = at_client(&scene.veth(samples::VETH, &error), &flow);
        assert_eq!(icmp[4..], second.to_be_bytes(), "{kind}/{code}");
        assert_eq!(own.len(), 148, "{kind}/{code}");
        assert!(!own.windows(4).any(|bytes| bytes == &EXTENSION[8..]));
    }
}

#[test]
fn i12_whoever_sent_it_the_error_comes_from_the_hosts_own_addresses() {
    // Judged by `at_container` and `at_client`; the router's own address is gone.
    let [(mut scene, flow, reply), _] = sessions();
    let error = about(flow.host, raw(3, 0, 0), &got(&flow));
    assert_eq!(error[8..24], ROUTER);
    at_container(&scene.uplink(&error), &reply);
    let mut error = icmp(&reply, 11, 0, 0, &got_by_container(&reply));
    error[14 + 12..14 + 16].copy_from_slice(&[10, 9, 8, 7]);
    super::packets::reseal(&mut error[14..]);
    at_client(&scene.veth(samples::VETH, &error), &flow);
}
