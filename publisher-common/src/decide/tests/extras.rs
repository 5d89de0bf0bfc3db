//! The edges of what stands between an IP header and the ports: where a walk ends, and what is left
//! of the walk before.

use super::packets::{from_client, from_target, reseal};
use super::*;
use crate::checksum::Difference;
use crate::decide::extension::{Extras, Fragment, Obstacle};
use crate::layout::ForwardKey;
use crate::wire::{ETHERNET_LENGTH, Ipv4Header, protocol};
use std::vec::Vec;
use zerocopy::FromZeros;

fn udp() -> ForwardKey {
    ForwardKey { protocol: protocol::UDP, ..samples::flow() }
}

/// The room for decisions is used again: what it holds of one packet must not be the next one's.
#[test]
fn h5_g2_nothing_is_left_of_the_packet_before() {
    let clean = || Extras { next: 9, ..Extras::new_zeroed() };
    let fragment = Fragment { is_some: true, more: true, offset: 8, identification: [1; 4] };
    let sum = Difference::new().add([1, 2, 3, 4]);
    for mut dirty in [
        Extras { length: 8, sum, ..clean() },
        Extras { length: 40, obstacle: Obstacle::Options, sum, ..clean() },
        Extras { fragment, ..clean() },
        Extras { length: 8, fragment, ..clean() },
        Extras { obstacle: Obstacle::Authentication, ..clean() },
        Extras { obstacle: Obstacle::Routing, fragment, ..clean() },
        clean(),
    ] {
        dirty.clear(17);
        assert_eq!(dirty, Extras { next: 17, ..clean() });
    }
    // What the header of a whole packet says is nothing either.
    let whole = Ipv4Header { flags_offset: [0x40, 0], ..*Ipv4Header::of(&[0; 20]) };
    assert_eq!(Fragment::of_ipv4(&whole), Fragment::NONE);
}

/// A client's datagram behind `chain`, whose first header has this number.
fn behind(first: u8, chain: &[u8]) -> Vec<u8> {
    let plain = from_client(&udp(), &Body::datagram(20));
    let mut bytes = [&plain[..40], chain, &plain[40..]].concat();
    bytes[6] = first;
    let length = (bytes.len() - 40) as u16;
    bytes[4..6].copy_from_slice(&length.to_be_bytes());
    bytes
}

#[test]
fn h10_no_other_protocols_header_is_taken_for_an_extension_header() {
    let mut scene = Scene::new();
    let _ = scene.establish(&udp());
    // Eight bytes that would be one, were the number known.
    let lookalike = [protocol::UDP, 0, 0, 0, 0, 0, 0, 0];
    for number in 0..=255u8 {
        let outcome = scene.uplink(&behind(number, &lookalike));
        let first = [protocol::DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0];
        let mut second = [first, lookalike].concat();
        second[0] = number;
        let behind_options = scene.uplink(&behind(protocol::DESTINATION_OPTIONS, &second));
        match number {
            protocol::ROUTING | protocol::DESTINATION_OPTIONS | protocol::FRAGMENT => {
                assert!(matches!(outcome, Outcome::ToContainer(..)), "{number}: {outcome:?}");
                assert!(matches!(behind_options, Outcome::ToContainer(..)), "{number}");
            }
            protocol::HOP_BY_HOP => {
                assert!(matches!(outcome, Outcome::ToContainer(..)), "{number}: {outcome:?}");
                assert_eq!(behind_options, dropped(Reason::ExtensionHeader), "{number}");
            }
            protocol::AUTHENTICATION => {
                assert_eq!(outcome, dropped(Reason::ExtensionHeader), "{number}");
                assert_eq!(behind_options, dropped(Reason::ExtensionHeader), "{number}");
            }
            // Whatever else it is, its first bytes aren't the ports of the session.
            _ => {
                assert_eq!(outcome, PASSED, "{number}");
                assert_eq!(behind_options, PASSED, "{number}");
            }
        }
    }
}

#[test]
fn h5_how_long_a_chain_may_be() {
    /// A header of destination options of 8 bytes and as many more.
    fn options(units: u8) -> Vec<u8> {
        let mut bytes = std::vec![0; 8 + usize::from(units) * 8];
        (bytes[0], bytes[1]) = (protocol::DESTINATION_OPTIONS, units);
        bytes
    }
    // The last one starts at most 1,024 bytes behind the IPv6 header; it may be of any length.
    for (lengths, walked) in [
        (&[127u8][..], true),
        (&[255], true),
        (&[127, 127], true),
        (&[126, 127], true),
        (&[31, 31, 31, 31], true),
        (&[31, 31, 31, 30, 0], true),
        (&[31, 31, 31, 31, 0], true),
        (&[31, 31, 31, 32, 0], false),
        (&[0; 8], true),
        (&[0; 9], false),
    ] {
        let mut scene = Scene::new();
        let _ = scene.establish(&udp());
        let mut chain: Vec<Vec<u8>> = lengths.iter().map(|units| options(*units)).collect();
        if let Some(last) = chain.last_mut() {
            last[0] = protocol::UDP;
        }
        scene.tables.links[0].mtu = 0;
        let outcome = scene.uplink(&behind(protocol::DESTINATION_OPTIONS, &chain.concat()));
        if walked {
            assert!(matches!(outcome, Outcome::ToContainer(..)), "{lengths:?}: {outcome:?}");
        } else {
            assert_eq!(outcome, PASSED, "{lengths:?}");
        }
    }
}

#[test]
fn g2_the_shortest_option_has_two_bytes() {
    let mut scene = Scene::new();
    let reply = scene.establish(&udp());
    let plain = from_target(&reply, &Body::datagram(20));
    for (options, expected) in [
        (&[148u8, 2, 1, 0][..], None),
        (&[1, 1, 7, 2], None),
        (&[7, 2, 148, 2], None),
        (&[148, 1, 1, 0], Some(dropped(Reason::Ipv4Options))),
        (&[148, 0, 1, 0], Some(dropped(Reason::Ipv4Options))),
        (&[1, 1, 7, 3], Some(dropped(Reason::Ipv4Options))),
        // The last byte of the options is none of two.
        (&[1, 1, 1, 7], Some(dropped(Reason::Ipv4Options))),
    ] {
        let mut frame = [&plain[..34], options, &plain[34..]].concat();
        frame[ETHERNET_LENGTH] += 1;
        let total = (frame.len() - ETHERNET_LENGTH) as u16;
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        reseal(&mut frame[ETHERNET_LENGTH..]);
        let outcome = scene.veth(samples::VETH, &frame);
        match expected {
            Some(expected) => assert_eq!(outcome, expected, "{options:?}"),
            None => assert_eq!(Seen::to_client(&outcome).payload, Body::datagram(20).bytes()),
        }
    }
}
