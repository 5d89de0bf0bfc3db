//! Gateway mode: the container sees its link's own address, with ports of a reserved range.

use super::packets::from_target;
use super::*;
use crate::layout::{ForwardKey, ReplyKey};
use crate::wire::protocol;
use etherparse::PacketBuilder;
use std::vec::Vec;

fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.use_gateway();
    scene
}

#[test]
fn ports_lie_in_the_reserved_range() {
    let mut scene = scene();
    for port in 1..300u16 {
        for protocol in [protocol::TCP, protocol::UDP] {
            let flow =
                ForwardKey { client_port: (port * 200).to_be_bytes(), protocol, ..samples::flow() };
            let reply = scene.establish(&flow);
            assert_eq!(reply.alias, samples::GATEWAY);
            let given = u16::from_be_bytes(reply.alias_port);
            assert!((61_000..=64_999).contains(&given), "{given}");
        }
    }
    assert!(scene.tables.aliases.is_empty(), "the host's own address is nobody's alias");
}

#[test]
fn what_belongs_to_no_session_passes() {
    let mut scene = scene();
    let reply = scene.establish(&samples::flow());
    let others = [
        ReplyKey { alias_port: 60_999u16.to_be_bytes(), ..reply },
        ReplyKey { alias_port: 65_000u16.to_be_bytes(), ..reply },
        ReplyKey { target_port: 81u16.to_be_bytes(), ..reply },
        ReplyKey { alias: [172, 17, 0, 9], ..reply },
        ReplyKey { protocol: protocol::UDP, ..reply },
    ];
    for other in others {
        let body = if other.protocol == protocol::UDP {
            Body::datagram(3)
        } else {
            Segment::data(3).into()
        };
        assert_eq!(scene.container(&other, body), PASSED, "{other:?}");
    }
    let outcome = scene.container(&reply, Segment::data(3));
    assert!(Seen::to_client(&outcome).answers(&samples::flow()));
}

#[test]
fn options_and_fragments_for_the_gateway_itself_pass() {
    let mut scene = scene();
    let reply = scene.establish(&samples::flow());
    let own = ReplyKey { alias_port: 22u16.to_be_bytes(), ..reply };
    let mut frame = from_target(&own, &Segment::data(64).into());
    // Behind four bytes of options the sample's data are taken for ports: of nothing that is ours.
    for (at, value) in [(14, 0x46), (20, 0x20), (21, 1), (14, 0x41)] {
        let before = core::mem::replace(&mut frame[at], value);
        assert_eq!(scene.veth(samples::VETH, &frame), PASSED, "byte {at}");
        frame[at] = before;
    }
}

#[test]
fn errors_to_the_gateway_with_options_or_in_fragments_pass() {
    let mut scene = scene();
    let reply = scene.establish(&samples::flow());
    // What the container got, embedded: from the gateway's port to its own.
    let got = ReplyKey {
        target: reply.alias,
        alias: reply.target,
        target_port: reply.alias_port,
        alias_port: reply.target_port,
        ..reply
    };
    let got = from_target(&got, &Segment::data(64).into());
    let mut error = Vec::new();
    PacketBuilder::ethernet2(samples::TARGET_MAC, samples::link().device_mac)
        .ipv4(reply.target, reply.alias, 64)
        .icmpv4_raw(3, 4, [0, 0, 0x05, 0x78])
        .write(&mut error, &got[14..])
        .expect("an ICMP error");
    assert!(matches!(scene.veth(samples::VETH, &error), Outcome::ToClient(..)));
    for (at, value) in [(14, 0x46), (20, 0x20), (21, 1)] {
        let mut other = error.clone();
        other[at] = value;
        assert_eq!(scene.veth(samples::VETH, &other), PASSED, "byte {at}");
    }
}

#[test]
fn a_session_answers_by_its_own_link_only() {
    let mut scene = scene();
    let reply = scene.establish(&samples::flow());
    let frame = from_target(&reply, &Segment::data(1).into());
    assert_eq!(scene.veth(samples::VETH + 1, &frame), dropped(Reason::ForgedReply));
}
