//! Extension headers of clients' packets, and options of containers'.

use super::answers::{to_client, to_target};
use super::packets::{Body, Segment, from_client, from_target, reseal};
use super::scene::Scene;
use super::{Outcome, PASSED, Reason, Seen, dropped, samples};
use crate::checksum::{Difference, checksum};
use crate::layout::ForwardKey;
use crate::wire::protocol;
use std::vec::Vec;

/// An extension header: its protocol number, and its bytes without the first, which names what
/// follows.
type Extension = (u8, &'static [u8]);

const OPTIONS: Extension = (protocol::HOP_BY_HOP, &[0, 1, 4, 0, 0, 0, 0]);
const LONG: Extension =
    (protocol::DESTINATION_OPTIONS, &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
const USED_UP: Extension = (protocol::ROUTING, &[0, 4, 0, 0, 0, 0, 0]);
const ROUTING: Extension = (protocol::ROUTING, &[0, 4, 1, 0, 0, 0, 0]);
const WHOLE: Extension = (protocol::FRAGMENT, &[0, 0, 0, 1, 2, 3, 4]);
const FIRST: Extension = (protocol::FRAGMENT, &[0, 0, 1, 1, 2, 3, 4]);
const AUTHENTICATION: Extension = (protocol::AUTHENTICATION, &[1, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1]);

/// A packet with `headers` between the IPv6 header and the transport's.
fn extended(bytes: &[u8], headers: &[Extension]) -> Vec<u8> {
    let mut result = bytes[..40].to_vec();
    let transport = bytes[6];
    result[6] = headers.first().map_or(transport, |(number, _)| *number);
    for (index, (_, tail)) in headers.iter().enumerate() {
        result.push(headers.get(index + 1).map_or(transport, |(number, _)| *number));
        result.extend_from_slice(tail);
    }
    result.extend_from_slice(&bytes[40..]);
    let payload = (result.len() - 40) as u16;
    result[4..6].copy_from_slice(&payload.to_be_bytes());
    result
}

fn flows() -> [(ForwardKey, Body); 2] {
    let udp = ForwardKey { protocol: protocol::UDP, ..samples::flow() };
    [(samples::flow(), Segment::data(24).into()), (udp, Body::datagram(24))]
}

#[test]
fn h5_the_container_gets_the_packet_without_its_extension_headers() {
    for (flow, body) in flows() {
        for headers in [&[OPTIONS][..], &[LONG], &[USED_UP], &[OPTIONS, LONG, USED_UP]] {
            let mut scene = Scene::new();
            let _ = scene.establish(&flow);
            let plain = from_client(&flow, &body);
            let expected = Seen::to_container(&scene.uplink(&plain));
            let there = scene.uplink(&extended(&plain, headers));
            assert_eq!(Seen::to_container(&there), expected, "{headers:?}");
        }
    }
}

#[test]
fn h5_a_session_is_opened_behind_extension_headers() {
    let mut scene = Scene::new();
    let mss = Segment::syn().options(&[2, 4, 0x23, 0x00]);
    let syn = from_client(&samples::flow(), &mss.into());
    let there = Seen::to_container(&scene.uplink(&extended(&syn, &[OPTIONS, LONG])));
    assert_eq!(there.mss, Some(1_440), "the MSS is found behind them too");
    assert_eq!(scene.tables.half_open.len(), 1);
}

#[test]
fn h8_what_can_not_be_taken_out_is_dropped() {
    for (headers, reason) in [
        (&[AUTHENTICATION][..], Reason::ExtensionHeader),
        (&[FIRST, OPTIONS], Reason::ExtensionHeader),
        (&[WHOLE, LONG], Reason::ExtensionHeader),
    ] {
        for (flow, body) in flows() {
            let mut scene = Scene::new();
            let opening =
                if flow.protocol == protocol::UDP { body.clone() } else { Segment::syn().into() };
            let bytes = extended(&from_client(&flow, &opening), headers);
            assert_eq!(scene.uplink(&bytes), dropped(reason), "published: {headers:?}");
            assert!(scene.tables.half_open.is_empty());
            let _ = scene.establish(&flow);
            let bytes = extended(&from_client(&flow, &body), headers);
            let before = scene.tables.clone();
            assert_eq!(scene.uplink(&bytes), dropped(reason), "of a session: {headers:?}");
            assert_eq!(scene.tables.forward, before.forward, "the session has changed");
        }
    }
}

#[test]
fn h6_the_client_is_told_where_its_segments_are_left() {
    for (headers, pointer) in [
        (&[ROUTING][..], 43),
        (&[OPTIONS, ROUTING], 51),
        (&[OPTIONS, LONG, ROUTING], 67),
        (&[ROUTING, LONG], 43),
        (&[ROUTING, FIRST], 43),
    ] {
        for (flow, body) in flows() {
            let mut scene = Scene::new();
            let opening =
                if flow.protocol == protocol::UDP { body.clone() } else { Segment::syn().into() };
            let bytes = extended(&from_client(&flow, &opening), headers);
            let answer = scene.uplink(&bytes);
            assert_eq!(to_client(&answer, &bytes, Reason::RoutingHeader), (4, 0, pointer));
            assert_eq!(bytes[pointer as usize], 1, "that is the field");
            assert!(scene.tables.half_open.is_empty());
            let _ = scene.establish(&flow);
            let bytes = extended(&from_client(&flow, &body), headers);
            let before = scene.tables.clone();
            let answer = scene.uplink(&bytes);
            assert_eq!(to_client(&answer, &bytes, Reason::RoutingHeader), (4, 0, pointer));
            assert_eq!(scene.tables.forward, before.forward, "the session has changed");
        }
    }
}

#[test]
fn h5_h7_the_hosts_own_packets_pass() {
    for headers in [&[OPTIONS][..], &[LONG, USED_UP], &[ROUTING], &[FIRST], &[AUTHENTICATION]] {
        for (flow, body) in flows() {
            let other = ForwardKey { host_port: 9_999u16.to_be_bytes(), ..flow };
            let routed = ForwardKey { host: [0xfd; 16], ..flow };
            for flow in [other, routed] {
                let bytes = extended(&from_client(&flow, &body), headers);
                assert_eq!(Scene::new().uplink(&bytes), PASSED, "{headers:?}");
            }
            let mut scene = Scene::new();
            scene.tables.sockets.insert(flow, true);
            let bytes = extended(&from_client(&flow, &body), headers);
            assert_eq!(scene.uplink(&bytes), PASSED, "a socket of the host");
        }
    }
}

#[test]
fn h5_lengths_that_lie_are_told_at_every_truncation() {
    for (flow, body) in flows() {
        let mut scene = Scene::new();
        let _ = scene.establish(&flow);
        let bytes = extended(&from_client(&flow, &body), &[OPTIONS, LONG, USED_UP]);
        for length in 0..bytes.len() {
            assert!(matches!(scene.uplink(&bytes[..length]), Outcome::Stop(_)), "{length}");
        }
        // The payload ends inside the chain.
        for payload in 0..32u16 + 8 {
            let mut bytes = bytes.clone();
            bytes[4..6].copy_from_slice(&payload.to_be_bytes());
            assert_eq!(scene.uplink(&bytes), dropped(Reason::Truncated), "{payload}");
        }
    }
}

#[test]
fn h10_other_protocols_behind_extension_headers_pass() {
    let (flow, body) = flows()[1].clone();
    let mut scene = Scene::new();
    let _ = scene.establish(&flow);
    for number in (0..=255).filter(|number| !matches!(number, 6 | 17)) {
        let mut bytes = extended(&from_client(&flow, &body), &[OPTIONS]);
        bytes[40] = number;
        assert_eq!(scene.uplink(&bytes), PASSED, "{number}");
    }
}

#[test]
fn h7_a_whole_packet_with_a_fragment_header_stays_one() {
    for (flow, body) in flows() {
        let mut scene = Scene::new();
        let _ = scene.establish(&flow);
        let plain = from_client(&flow, &body);
        let Outcome::ToContainer(expected, _) = scene.uplink(&plain) else { panic!("dropped") };
        let outcome = scene.uplink(&extended(&plain, &[WHOLE]));
        let Outcome::ToContainer(there, _) = outcome else { panic!("{outcome:?}") };
        assert_eq!(there[4..8], [3, 4, 0, 0], "identification, flags and offset");
        assert_eq!(there[20..], expected[20..]);
        let _ = Seen::of(&there);
        assert!(scene.tables.fragments_in.is_empty());
    }
}

/// A container's frame with `options`, whose header checksum is right.
fn with_options(frame: &[u8], options: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[14] += (options.len() / 4) as u8;
    let total = (frame.len() - 14 + options.len()) as u16;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame.splice(34..34, options.iter().copied());
    seal(&mut frame);
    frame
}

fn seal(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let length = usize::from(frame[14] & 15) * 4;
    let mut sum = Difference::new();
    for word in frame[14..14 + length].chunks_exact(4) {
        sum = sum.add([word[0], word[1], word[2], word[3]]);
    }
    let sum = checksum(&[0; 4], sum);
    frame[24..26].copy_from_slice(&sum);
}

#[test]
fn the_client_gets_the_packet_without_its_options() {
    for (flow, body) in flows() {
        let mut scene = Scene::new();
        let reply = scene.establish(&flow);
        let plain = from_target(&reply, &body);
        let expected = Seen::to_client(&scene.veth(samples::VETH, &plain));
        for words in 1..=10 {
            let mut options = std::vec![7; words * 4];
            (options[1], options[2]) = ((words * 4) as u8, 4);
            let back = scene.veth(samples::VETH, &with_options(&plain, &options));
            assert_eq!(Seen::to_client(&back), expected, "{words} words");
        }
        let used_up = [131, 7, 8, 10, 0, 0, 1, 0];
        let back = scene.veth(samples::VETH, &with_options(&plain, &used_up));
        assert_eq!(Seen::to_client(&back), expected, "a used up source route");
    }
}

#[test]
fn g2_the_container_is_told_of_an_open_source_route() {
    for (flow, body) in flows() {
        let mut scene = Scene::new();
        let reply = scene.establish(&flow);
        for kind in [131, 137] {
            let frame = with_options(&from_target(&reply, &body), &[kind, 7, 4, 10, 0, 0, 1, 0]);
            let before = scene.tables.clone();
            let answer = scene.veth(samples::VETH, &frame);
            assert_eq!(to_target(&answer, &frame, Reason::Ipv4Options), (3, 5, 0));
            assert_eq!(scene.tables.reverse, before.reverse, "the session has changed");
        }
        let lying = with_options(&from_target(&reply, &body), &[131, 1, 4, 10]);
        assert_eq!(scene.veth(samples::VETH, &lying), dropped(Reason::Ipv4Options));
    }
}

/// Options stand before the ports, which the error must find all the same.
#[test]
fn g2_h3_errors_about_packets_with_options() {
    for (flow, body) in flows() {
        let mut scene = Scene::new();
        let reply = scene.establish(&flow);
        for words in 1..=10 {
            let mut options = std::vec![7; words * 4];
            (options[1], options[2]) = ((words * 4) as u8, 4);
            let mut frame = with_options(&from_target(&reply, &body), &options);
            frame[14 + 8] = 1;
            reseal(&mut frame[14..]);
            let answer = scene.veth(samples::VETH, &frame);
            assert_eq!(to_target(&answer, &frame, Reason::HopLimit), (11, 0, 0), "{words} words");
        }
    }
}

#[test]
fn g7_a_wrong_header_checksum_is_dropped_and_changes_nothing() {
    for (flow, body) in flows() {
        let mut scene = Scene::new();
        let reply = scene.establish(&flow);
        let plain = from_target(&reply, &body);
        for frame in [plain.clone(), with_options(&plain, &[1, 1, 1, 0])] {
            let before = scene.tables.clone();
            for at in [24, 25] {
                for bit in 0..8 {
                    let mut frame = frame.clone();
                    frame[at] ^= 1 << bit;
                    assert_eq!(scene.veth(samples::VETH, &frame), dropped(Reason::Ipv4Checksum));
                }
            }
            assert_eq!(scene.tables.reverse, before.reverse, "the session has changed");
        }
    }
}
