//! ICMP errors about a session that are dropped: malformed, about fragments, or at their last hop.

use super::errors::{about, established, got, got_by_container, icmp, too_big};
use super::packets::reseal;
use super::*;
use crate::layout::ForwardKey;
use etherparse::Icmpv6Type;

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
fn h3_an_error_whose_hops_are_used_up_is_dropped() {
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
