//! What comes from clients and from routers before them.

use super::super::errors::{about, got};
use super::super::packets::from_client;
use super::*;
use etherparse::Icmpv6Type;
use std::format;

/// Where the payload of a fragment starts: behind the IPv6 and the Fragment header.
const FRAGMENT_START: usize = 48;

/// A client's packet that is its own, with `headers` bytes before its transport header.
fn of_client(name: String, host: Scene, bytes: Vec<u8>, body: &Body, headers: usize) -> Kind {
    let told = headers + ports_length(body);
    Kind {
        name,
        host,
        side: Side::Uplink,
        bytes,
        transport: headers,
        cut: [(0, [PASSED].into()), (told, [dropped(Reason::Truncated)].into())].into(),
        least: headers + transport_length(body),
        fragment: None,
        whole: None,
    }
}

/// Packets with ports right behind the IPv6 header.
pub fn of_clients() -> Vec<Kind> {
    let mut all = Vec::new();
    for flow in flows() {
        let opening = if flow.protocol == protocol::UDP {
            Body::datagram(13)
        } else {
            Segment::syn().options(SYN_OPTIONS).into()
        };
        let bytes = from_client(&flow, &opening);
        all.push(of_client("opening".into(), Scene::new(), bytes.clone(), &opening, 40));
        for (state, host, _) in hosts(&flow, false) {
            for (name, body) in bodies(&flow) {
                let bytes = from_client(&flow, &body);
                let again = Scene { tables: host.tables.clone(), now: host.now };
                all.push(of_client(format!("{name}, {state}"), again, bytes, &body, 40));
            }
        }
        // A SYN that is sent again, or opens another session where the last one has ended.
        for (state, host, _) in hosts(&flow, false) {
            all.push(of_client(format!("opening, {state}"), host, bytes.clone(), &opening, 40));
        }
    }
    all
}

/// Extension headers, the first one's number first, without the number of what follows.
const CHAINS: [&[(u8, &[u8])]; 5] = [
    &[(protocol::HOP_BY_HOP, &[0, 1, 4, 0, 0, 0, 0])],
    &[(protocol::DESTINATION_OPTIONS, &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])],
    &[(protocol::ROUTING, &[0, 4, 0, 0, 0, 0, 0])],
    &[(protocol::FRAGMENT, &[0, 0, 0, 1, 2, 3, 4])],
    &[
        (protocol::HOP_BY_HOP, &[0, 1, 4, 0, 0, 0, 0]),
        (protocol::ROUTING, &[0, 4, 0, 0, 0, 0, 0]),
        (protocol::DESTINATION_OPTIONS, &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ],
];

/// Puts extension headers in front of an IPv6 packet's payload.
fn behind(packet: &[u8], chain: &[(u8, &[u8])], payload: &[u8]) -> Vec<u8> {
    let mut bytes = packet[..40].to_vec();
    bytes[6] = chain[0].0;
    for (index, (_, rest)) in chain.iter().enumerate() {
        bytes.push(chain.get(index + 1).map_or(packet[6], |(number, _)| *number));
        bytes.extend_from_slice(rest);
    }
    bytes.extend_from_slice(payload);
    let length = (bytes.len() - 40) as u16;
    bytes[4..6].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// Packets with ports behind extension headers, of a session and as the first of one.
pub fn of_clients_extended() -> Vec<Kind> {
    let mut all = Vec::new();
    for flow in flows() {
        let opening: Body = if flow.protocol == protocol::UDP {
            Body::datagram(13)
        } else {
            Segment::syn().options(SYN_OPTIONS).into()
        };
        for chain in CHAINS {
            let mut cases = std::vec![("opening", Scene::new(), opening.clone())];
            for (state, host, _) in hosts(&flow, false) {
                cases.push((state, host, bodies(&flow)[0].1.clone()));
            }
            for (state, host, body) in cases {
                let plain = from_client(&flow, &body);
                let bytes = behind(&plain, chain, &plain[40..]);
                let headers = 40 + bytes.len() - plain.len();
                all.push(of_client(format!("{state}, {chain:?}"), host, bytes, &body, headers));
            }
        }
    }
    all
}

/// First and later fragments of a client's datagram.
pub fn fragments_of_clients() -> Vec<Kind> {
    let mut all = Vec::new();
    for flow in flows() {
        let body: Body = match flow.protocol {
            protocol::UDP => Body::datagram(200),
            _ => Segment::data(200).options(OPTIONS).into(),
        };
        let whole = from_client(&flow, &body);
        let part = |from: usize, to: usize, more: bool| {
            let [high, low] = (from as u16 | u16::from(more)).to_be_bytes();
            let header: [u8; 7] = [0, high, low, 1, 2, 3, 4];
            behind(&whole, &[(protocol::FRAGMENT, &header)], &whole[40 + from..40 + to])
        };
        let (first, second) = (part(0, 80, true), part(80, 160, true));
        let last = part(160, whole.len() - 40, false);
        for (state, host, _) in hosts(&flow, false) {
            let again = || Scene { tables: host.tables.clone(), now: host.now };
            let name = format!("first fragment, {state}");
            let kind = of_client(name, again(), first.clone(), &body, FRAGMENT_START);
            all.push(Kind { fragment: Some(true), ..kind });
            for (bytes, more) in [(&second, true), (&last, false)] {
                let mut host = again();
                assert!(matches!(host.uplink(&first), Outcome::ToContainer(..)), "{state}");
                let name = format!("later fragment, {state}");
                let kind = of_client(name, host, bytes.clone(), &body, FRAGMENT_START);
                let gone = [dropped(Reason::Truncated)].into();
                all.push(Kind {
                    cut: [(0, [PASSED].into()), (FRAGMENT_START, gone)].into(),
                    least: FRAGMENT_START,
                    fragment: Some(more),
                    ..kind
                });
            }
        }
    }
    all
}

/// ICMPv6 errors of the client's side, about a packet of a session that embeds `length` bytes.
pub fn errors_of_clients() -> Vec<Kind> {
    let mut all = Vec::new();
    let kinds = [(1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (2, 0), (3, 0), (3, 1), (4, 0), (4, 1)];
    let untranslated = Some(dropped(Reason::IcmpError));
    let mut types: Vec<_> = kinds.into_iter().map(|kind| (kind, None)).collect();
    types.extend([((1, 5), untranslated.clone()), ((4, 2), untranslated)]);
    for flow in flows() {
        let sent = got(&flow);
        for (state, host, _) in hosts(&flow, false) {
            let mut push = |name: &str, kind: Icmpv6Type, body: &[u8], rung, whole| {
                let (from, reason) = rung;
                all.push(Kind {
                    name: format!("{name}, {kind:?}, {state}"),
                    host: Scene { tables: host.tables.clone(), now: host.now },
                    side: Side::Uplink,
                    bytes: about(flow.host, kind, body),
                    transport: 40,
                    cut: [(0, [PASSED].into()), (from, [dropped(reason)].into())].into(),
                    least: from,
                    fragment: None,
                    whole,
                });
            };
            let raw = |(kind, code), second: [u8; 4]| Icmpv6Type::Unknown {
                type_u8: kind,
                code_u8: code,
                bytes5to8: second,
            };
            let cut = (96, Reason::IcmpMalformed);
            for (kind, whole) in &types {
                push("error", raw(*kind, [0; 4]), &sent[..131], cut, whole.clone());
            }
            let extended = [&sent[..128], EXTENSION].concat();
            for kind in [(1, 4), (3, 0)] {
                push("extension", raw(kind, [16, 0, 0, 0]), &extended, cut, None);
            }
            // About a fragment: the first one has ports, behind its header.
            for (place, rung, whole) in [
                (1, (100, Reason::IcmpFragment), dropped(Reason::IcmpFragment)),
                (9, (usize::MAX, Reason::IcmpFragment), PASSED),
            ] {
                let header: [u8; 7] = [0, 0, place, 1, 2, 3, 4];
                let chain: &[(u8, &[u8])] = &[(protocol::FRAGMENT, &header)];
                let inner = behind(&sent, chain, &sent[40..120]);
                push("fragment", raw((2, 0), [0; 4]), &inner, rung, Some(whole));
            }
        }
    }
    all
}
