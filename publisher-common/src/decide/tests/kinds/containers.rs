//! What comes from containers and from routers behind them.

use super::super::errors::got_by_container;
use super::super::packets::{from_target, reseal};
use super::*;
use etherparse::PacketBuilder;
use std::format;

/// A container's packet with `headers` bytes before its transport header. What goes to an alias is
/// nobody else's, so not even a packet without ports is the host's.
fn of_container(
    (name, host): (String, Scene),
    (bytes, body): (Vec<u8>, &Body),
    headers: usize,
    gateway: bool,
) -> Kind {
    let lost = dropped(Reason::ReplyNoSession);
    let cut = |lower: Outcome| {
        let told = (headers + ports_length(body), [dropped(Reason::Truncated)].into());
        [(0, [PASSED].into()), (20, [lower].into()), told].into()
    };
    Kind {
        name,
        host,
        side: Side::Veth,
        bytes,
        transport: headers,
        cut: cut(if gateway { PASSED } else { lost }),
        least: headers + transport_length(body),
        fragment: None,
        whole: None,
    }
}

/// A container's packet with IPv4 options, whose header checksum is right.
fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut bytes = [&packet[..20], options, &packet[20..]].concat();
    bytes[0] += (options.len() / 4) as u8;
    let total = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    reseal(&mut bytes);
    bytes
}

/// Containers' packets with ports: without options, with padding, with a used up source route.
pub fn of_containers() -> Vec<Kind> {
    let mut all = Vec::new();
    for flow in flows() {
        for gateway in [false, true] {
            for (state, host, reply) in hosts(&flow, gateway) {
                let mut bodies = bodies(&flow);
                if flow.protocol == protocol::TCP {
                    bodies.push(("syn-ack", Segment::syn_ack().options(SYN_OPTIONS).into()));
                }
                for (name, body) in bodies {
                    for options in [&[][..], &[1, 1, 1, 0], &[131, 7, 8, 10, 0, 0, 1, 0]] {
                        let plain = &from_target(&reply, &body)[ETHERNET_LENGTH..];
                        let bytes = with_options(plain, options);
                        let host = Scene { tables: host.tables.clone(), now: host.now };
                        let name = format!("{name}, {state}, {options:?}, gateway: {gateway}");
                        let headers = 20 + options.len();
                        all.push(of_container((name, host), (bytes, &body), headers, gateway));
                    }
                }
            }
        }
    }
    all
}

/// First and later fragments of a container's datagram.
pub fn fragments_of_containers() -> Vec<Kind> {
    let mut all = Vec::new();
    for flow in flows() {
        let body: Body = match flow.protocol {
            protocol::UDP => Body::datagram(200),
            _ => Segment::data(200).options(OPTIONS).into(),
        };
        for (state, host, reply) in hosts(&flow, false) {
            let whole = &from_target(&reply, &body)[ETHERNET_LENGTH..];
            let part = |from: usize, to: usize, more: bool| {
                let mut bytes = [&whole[..20], &whole[20 + from..20 + to]].concat();
                let (total, more) = (bytes.len() as u16, if more { 0x2000 } else { 0 });
                bytes[2..4].copy_from_slice(&total.to_be_bytes());
                bytes[4..6].copy_from_slice(&[1, 2]);
                bytes[6..8].copy_from_slice(&((from / 8) as u16 | more).to_be_bytes());
                reseal(&mut bytes);
                bytes
            };
            let again = || Scene { tables: host.tables.clone(), now: host.now };
            let first = part(0, 80, true);
            let name = format!("first fragment, {state}");
            let kind = of_container((name, again()), (first.clone(), &body), 20, false);
            let sent = &first;
            all.push(Kind { fragment: Some(true), ..kind });
            for (bytes, more) in [(part(80, 160, true), true), (part(160, 208, false), false)] {
                let mut host = again();
                let kind = |host| {
                    let name = format!("later fragment, {state}");
                    of_container((name, host), (bytes.clone(), &body), 20, false)
                };
                assert!(matches!(kind(again()).send(&mut host, sent), Outcome::ToClient(..)));
                let gone = [dropped(Reason::Truncated)].into();
                all.push(Kind {
                    cut: [(0, [PASSED].into()), (20, gone)].into(),
                    least: 20,
                    fragment: Some(more),
                    ..kind(host)
                });
            }
        }
    }
    all
}

/// ICMP errors of the container's side.
pub fn errors_of_containers() -> Vec<Kind> {
    let mut all = Vec::new();
    let translated = (0..16).filter(|code| *code != 14).map(|code| (3, code));
    let mut types: Vec<_> = translated.map(|kind| (kind, None)).collect();
    types.extend([((11, 0), None), ((11, 1), None), ((12, 0), None), ((12, 2), None)]);
    let untranslated = Some(dropped(Reason::IcmpError));
    types.extend([(3, 14), (4, 0), (12, 1)].map(|kind| (kind, untranslated.clone())));
    for flow in flows() {
        for (state, host, reply) in hosts(&flow, false) {
            let sent = got_by_container(&reply);
            let mut push = |name: &str, kind: (u8, u8), body: &[u8], units: u8, reason, whole| {
                let mut bytes = Vec::new();
                PacketBuilder::ipv4(reply.target, reply.alias, 64)
                    .icmpv4_raw(kind.0, kind.1, [0, units, 0, 0])
                    .write(&mut bytes, body)
                    .expect("an ICMP error");
                let lost = dropped(Reason::ReplyNoSession);
                all.push(Kind {
                    name: format!("{name}, {kind:?}, {state}"),
                    host: Scene { tables: host.tables.clone(), now: host.now },
                    side: Side::Veth,
                    bytes,
                    transport: 20,
                    cut: [
                        (0, [PASSED].into()),
                        (20, [lost].into()),
                        (28, [dropped(Reason::IcmpMalformed)].into()),
                        (56, [dropped(reason)].into()),
                    ]
                    .into(),
                    least: 56,
                    fragment: None,
                    whole,
                });
            };
            for (kind, whole) in &types {
                push("error", *kind, &sent[..131], 0, Reason::IcmpMalformed, whole.clone());
            }
            let extended = [&sent[..128], EXTENSION].concat();
            for kind in [(3, 1), (11, 0), (12, 0)] {
                push("extension", kind, &extended, 32, Reason::IcmpMalformed, None);
            }
            for place in [0x2000u16, 1] {
                let mut inner = sent[..120].to_vec();
                inner[6..8].copy_from_slice(&place.to_be_bytes());
                let reason = Reason::IcmpFragment;
                push("fragment", (3, 4), &inner, 0, reason, Some(dropped(reason)));
            }
        }
    }
    all
}
