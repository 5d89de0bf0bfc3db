//! ICMP errors at the edges of what is about a session: padding behind them, the least that they can
//! embed, fragments, and ports that are no longer published.

use super::errors::{about, established, got, got_by_container, icmp, too_big};
use super::packets::{from_client, from_target};
use super::*;
use crate::layout::{ForwardKey, ReplyKey};
use crate::wire::{ETHERNET_LENGTH, protocol};
use std::vec::Vec;

/// An error of the container's, about a packet whose IPv4 header says these fragment fields.
fn about_fragment(reply: &ReplyKey, place: u16) -> Vec<u8> {
    let mut embedded = got_by_container(reply)[..100].to_vec();
    embedded[6..8].copy_from_slice(&place.to_be_bytes());
    icmp(reply, 3, 4, 1_400, &embedded)
}

#[test]
fn i9_i10_link_layer_padding_is_no_part_of_an_error() {
    let (mut scene, flow, reply) = established();
    let kind = || etherparse::Icmpv6Type::PacketTooBig { mtu: 1_300 };
    // Errors of even and of odd lengths: the padding isn't summed either.
    for length in [48, 49, 50, 51, 200] {
        let there = about(flow.host, kind(), &got(&flow)[..length]);
        let back = icmp(&reply, 3, 3, 0, &got_by_container(&reply)[..length]);
        let expected = (scene.uplink(&there), scene.veth(samples::VETH, &back));
        assert!(matches!(expected, (Outcome::ToContainer(..), Outcome::ToClient(..))));
        for padding in [1, 2, 3, 60] {
            let (mut there, mut back) = (there.clone(), back.clone());
            there.resize(there.len() + padding, 0xee);
            back.resize(back.len() + padding, 0xee);
            let found = (scene.uplink(&there), scene.veth(samples::VETH, &back));
            assert_eq!(found, expected, "{length} bytes and {padding}");
        }
    }
}

#[test]
fn i9_the_embedded_length_is_at_least_its_headers() {
    let (mut scene, _, reply) = established();
    for total in [0u16, 1, 19, 20, 21, 40, u16::MAX] {
        let mut embedded = got_by_container(&reply)[..28].to_vec();
        embedded[2..4].copy_from_slice(&total.to_be_bytes());
        let outcome = scene.veth(samples::VETH, &icmp(&reply, 3, 3, 0, &embedded));
        if total < 20 {
            assert_eq!(outcome, dropped(Reason::IcmpMalformed), "{total}");
            continue;
        }
        let Outcome::ToClient(bytes, _) = outcome else { panic!("{total}: {outcome:?}") };
        // What the client has sent was as long behind its IP header.
        assert_eq!(bytes[52..54], (total - 20).to_be_bytes(), "{total}");
    }
}

/// A first fragment has ports, by which it is somebody's or nobody's.
#[test]
fn i8_an_error_about_a_first_fragment_is_looked_up() {
    let (mut scene, _, reply) = established();
    let other = ReplyKey { alias_port: [0, 1], ..reply };
    for first in [0x2000u16, 0x6000] {
        let error = about_fragment(&reply, first);
        assert_eq!(scene.veth(samples::VETH, &error), dropped(Reason::IcmpFragment));
        assert_eq!(scene.veth(samples::VETH + 1, &error), dropped(Reason::ForgedReply));
        let error = about_fragment(&other, first);
        assert_eq!(scene.veth(samples::VETH, &error), dropped(Reason::ReplyNoSession));
    }
    for later in [1u16, 0x2001, 0x1fff] {
        for reply in [reply, other] {
            let error = about_fragment(&reply, later);
            assert_eq!(scene.veth(samples::VETH, &error), dropped(Reason::IcmpFragment));
        }
    }
    // "Don't fragment" makes no fragment.
    let outcome = scene.veth(samples::VETH, &about_fragment(&reply, 0x4000));
    assert!(matches!(outcome, Outcome::ToClient(..)), "{outcome:?}");
}

#[test]
fn i8_to_the_gateway_an_error_about_a_later_fragment_may_be_the_hosts() {
    let mut scene = Scene::new();
    scene.use_gateway();
    let reply = scene.establish(&samples::flow());
    for (place, expected) in
        [(0x2000u16, dropped(Reason::IcmpFragment)), (1, PASSED), (0x2001, PASSED)]
    {
        let outcome = scene.veth(samples::VETH, &about_fragment(&reply, place));
        assert_eq!(outcome, expected, "{place:#x}");
    }
}

#[test]
fn i12_errors_about_a_port_that_is_no_longer_published_are_the_hosts() {
    let (mut scene, flow, _) = established();
    assert!(matches!(scene.uplink(&too_big(&flow)), Outcome::ToContainer(..)));
    // As its packets are, though the session is still there.
    scene.tables.ports.fill(0);
    assert_eq!(scene.client(&flow, Segment::data(1)), PASSED);
    assert_eq!(scene.uplink(&too_big(&flow)), PASSED);
}

/// A transport header without half a checksum, which nobody can correct.
fn whole(transport: &[u8], number: u8) -> &[u8] {
    let half = number == protocol::TCP && transport.len() == 17;
    if half { &transport[..16] } else { transport }
}

/// What was sent comes back in the error as it was sent, byte for byte: there and back again, ports,
/// addresses and checksum are the sender's own.
#[test]
fn i8_i9_what_was_sent_comes_back() {
    for number in [protocol::TCP, protocol::UDP] {
        let flow = ForwardKey { protocol: number, ..samples::flow() };
        let mut scene = Scene::new();
        let reply = scene.establish(&flow);
        let body: Body = match number {
            protocol::UDP => Body::datagram(300),
            _ => Segment::data(300).options(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]).into(),
        };
        let sent = &from_target(&reply, &body)[ETHERNET_LENGTH..];
        let Outcome::ToClient(received, _) = scene.container(&reply, body.clone()) else {
            panic!("not translated")
        };
        for length in 48..=received.len() {
            let kind = etherparse::Icmpv6Type::PacketTooBig { mtu: 1_300 };
            let outcome = scene.uplink(&about(flow.host, kind, &received[..length]));
            let Outcome::ToContainer(bytes, _) = outcome else { panic!("{length}: {outcome:?}") };
            let own = &bytes[28..];
            assert_eq!(own.len(), length - 20);
            let whole = whole(&own[20..], number);
            assert_eq!(*whole, sent[20..][..whole.len()], "{length}");
            // The identification isn't known; the TTL is as it was at the router.
            assert_eq!((&own[..4], &own[9..10]), (&sent[..4], &sent[9..10]), "{length}");
            assert_eq!((&own[4..6], own[8]), (&[0, 0][..], 63), "{length}");
            assert_eq!(own[12..20], sent[12..20], "{length}");
        }
        let sent = from_client(&flow, &body);
        let Outcome::ToContainer(received, _) = scene.client(&flow, body) else {
            panic!("not translated")
        };
        for length in 28..=received.len() {
            let outcome = scene.veth(samples::VETH, &icmp(&reply, 3, 3, 0, &received[..length]));
            let Outcome::ToClient(bytes, _) = outcome else { panic!("{length}: {outcome:?}") };
            let own = &bytes[48..];
            assert_eq!(own.len(), length + 20);
            let whole = whole(&own[40..], number);
            assert_eq!(*whole, sent[40..][..whole.len()], "{length}");
            assert_eq!((&own[..7], own[7]), (&sent[..7], 63), "{length}");
            assert_eq!(own[8..40], sent[8..40], "{length}");
        }
    }
}

/// Its flags are those that the packet itself would have in IPv4 (rule H4).
#[test]
fn i8_the_embedded_packet_may_be_fragmented_up_to_1260_bytes() {
    let (mut scene, flow, _) = established();
    for (payload, flags) in [
        (20u16, 0u8),
        (64, 0),
        (1_239, 0),
        (1_240, 0),
        (1_241, 0x40),
        (1_280, 0x40),
        (9_000, 0x40),
        (65_515, 0x40),
    ] {
        let mut embedded = got(&flow)[..100].to_vec();
        embedded[4..6].copy_from_slice(&payload.to_be_bytes());
        let kind = etherparse::Icmpv6Type::PacketTooBig { mtu: 1_300 };
        let outcome = scene.uplink(&about(flow.host, kind, &embedded));
        let Outcome::ToContainer(bytes, _) = outcome else { panic!("{payload}: {outcome:?}") };
        assert_eq!(bytes[30..32], (payload + 20).to_be_bytes(), "{payload}");
        assert_eq!(bytes[34..36], [flags, 0], "{payload}");
    }
    // A length that IPv4 hasn't: the header says as much as it can.
    for payload in [65_516u16, u16::MAX] {
        let mut embedded = got(&flow)[..100].to_vec();
        embedded[4..6].copy_from_slice(&payload.to_be_bytes());
        let kind = etherparse::Icmpv6Type::PacketTooBig { mtu: 1_300 };
        let outcome = scene.uplink(&about(flow.host, kind, &embedded));
        let Outcome::ToContainer(bytes, _) = outcome else { panic!("{payload}: {outcome:?}") };
        assert_eq!(bytes[30..32], [0xff, 0xff], "{payload}");
    }
}
