//! Sources that nobody can have.

use super::errors::{about, got};
use super::packets::{Body, from_client, from_target, reseal};
use super::*;
use crate::decide::to_container;
use crate::layout::ForwardKey;
use crate::native::SlicePacket;
use crate::wire::protocol;

/// The sample pool is 198.18.0.0/15.
const ALIASES: [[u8; 4]; 3] = [[198, 18, 0, 0], [198, 19, 1, 2], [198, 19, 255, 255]];
const OTHERS: [[u8; 4]; 3] = [[198, 17, 255, 255], [198, 20, 0, 0], [192, 0, 2, 1]];

#[test]
fn s16_an_alias_as_a_source_is_dropped_on_both_sides() {
    let mut scene = Scene::new();
    let flow = ForwardKey { protocol: protocol::UDP, ..samples::flow() };
    let reply = scene.establish(&flow);
    for (source, expected) in ALIASES
        .map(|source| (source, Stop::Drop(Reason::Source)))
        .into_iter()
        .chain(OTHERS.map(|source| (source, Stop::Pass)))
    {
        for number in 0..=255 {
            let mut frame = from_target(&reply, &Body::datagram(8));
            frame[14 + 9] = number;
            frame[14 + 12..14 + 16].copy_from_slice(&source);
            // To a neighbour: no alias, and no port of gateway mode.
            frame[14 + 16..14 + 20].copy_from_slice(&[172, 17, 0, 3]);
            frame[14 + 22..14 + 24].copy_from_slice(&[0, 80]);
            reseal(&mut frame[14..]);
            let there = to_container::ipv4(&SlicePacket::new(&frame[14..]), &scene.tables);
            assert_eq!(there, expected, "{source:?} on the uplink, protocol {number}");
            let back = scene.veth(samples::VETH, &frame);
            assert_eq!(back, Outcome::Stop(expected), "{source:?}, protocol {number}");
        }
    }
    // Nothing is known before the daemon has written its configuration, and nothing is ours.
    scene.tables.config = None;
    let mut frame = from_target(&reply, &Body::datagram(8));
    frame[14 + 12..14 + 16].copy_from_slice(&ALIASES[1]);
    assert_eq!(to_container::ipv4(&SlicePacket::new(&frame[14..]), &scene.tables), Stop::Pass);
    for length in 0..20 {
        let packet = SlicePacket::new(&frame[14..14 + length]);
        assert_eq!(to_container::ipv4(&packet, &scene.tables), Stop::Pass);
    }
}

#[test]
fn h12_an_error_from_nobody_is_told_to_nobody() {
    let mut scene = Scene::new();
    let flow = ForwardKey { protocol: protocol::UDP, ..samples::flow() };
    let _ = scene.establish(&flow);
    let told = about(flow.host, etherparse::Icmpv6Type::PacketTooBig { mtu: 1_300 }, &got(&flow));
    assert!(matches!(scene.uplink(&told), Outcome::ToContainer(..)), "from a router");
    let mapped = {
        let mut address = [0; 16];
        (address[10], address[11], address[15]) = (0xff, 0xff, 9);
        address
    };
    let mut multicast = samples::CLIENT;
    (multicast[0], multicast[1]) = (0xff, 2);
    let mut loopback = [0; 16];
    loopback[15] = 1;
    for source in [multicast, [0; 16], loopback, mapped, samples::HOST] {
        let mut error = told.clone();
        error[8..24].copy_from_slice(&source);
        assert_eq!(scene.uplink(&error), dropped(Reason::Source), "{source:?}");
    }
    let ours = from_client(&flow, &Body::datagram(1));
    assert!(matches!(scene.uplink(&ours), Outcome::ToContainer(..)), "the session is as it was");
}
