//! Protocols and messages that are the host's own business, whatever session they seem to belong to.

use super::packets::{from_client, from_target};
use super::*;
use crate::layout::{ForwardKey, ReplyKey};
use crate::wire::{ETHERNET_LENGTH, protocol};
use etherparse::PacketBuilder;
use std::vec::Vec;

/// An ICMPv6 message of the client's to the host.
fn icmpv6(flow: &ForwardKey, kind: u8, code: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv6(flow.client, flow.host, 255)
        .icmpv6_raw(kind, code, [0x12, 0x34, 0, 1])
        .write(&mut bytes, payload)
        .expect("an ICMPv6 message");
    bytes
}

/// An ICMP message of the container's to `to`.
fn icmp(reply: &ReplyKey, to: [u8; 4], kind: u8, code: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(samples::TARGET_MAC, samples::link().device_mac)
        .ipv4(reply.target, to, 64)
        .icmpv4_raw(kind, code, [0x12, 0x34, 0, 1])
        .write(&mut bytes, payload)
        .expect("an ICMP message");
    bytes
}

/// What the two sides got of each other last, as an error embeds it.
fn embedded(flow: &ForwardKey, reply: &ReplyKey) -> (Vec<u8>, Vec<u8>) {
    let to_client = ForwardKey {
        client: flow.host,
        host: flow.client,
        client_port: flow.host_port,
        host_port: flow.client_port,
        ..*flow
    };
    let to_container = ReplyKey {
        target: reply.alias,
        alias: reply.target,
        target_port: reply.alias_port,
        alias_port: reply.target_port,
        ..*reply
    };
    let body = || Body::from(Segment::data(64));
    let to_container = from_target(&to_container, &body())[ETHERNET_LENGTH..].to_vec();
    (from_client(&to_client, &body()), to_container)
}

#[test]
fn h11_icmp_of_ipv4_inside_ipv6_is_never_translated() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    let (_, about) = embedded(&flow, &reply);
    let before = (scene.tables.forward.clone(), scene.tables.reverse.clone());
    for kind in 0..=255u8 {
        // A whole message, its first bytes read as the ports of the session.
        let message = icmp(&reply, reply.alias, kind, 4, &about);
        let mut bytes = from_client(&flow, &Segment::data(0).into());
        bytes.truncate(40);
        bytes.extend_from_slice(&message[ETHERNET_LENGTH + 20..]);
        let length = (bytes.len() - 40) as u16;
        bytes[4..6].copy_from_slice(&length.to_be_bytes());
        bytes[6] = protocol::ICMP;
        assert_eq!(scene.uplink(&bytes), PASSED, "type {kind}");
        let [a, b] = flow.client_port;
        let [c, d] = flow.host_port;
        bytes[40..44].copy_from_slice(&[a, b, c, d]);
        assert_eq!(scene.uplink(&bytes), PASSED, "with the session's ports");
    }
    assert_eq!((scene.tables.forward, scene.tables.reverse), before);
}

#[test]
fn i1_the_host_answers_echo_itself() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    for kind in [128, 129] {
        assert_eq!(scene.uplink(&icmpv6(&flow, kind, 0, b"ping")), PASSED, "type {kind}");
    }
    for kind in [8, 0] {
        // A container's, to an alias: there is nobody to answer. To all others: not ours.
        let to_alias = icmp(&reply, reply.alias, kind, 0, b"ping");
        let outcome = scene.veth(samples::VETH, &to_alias);
        assert_eq!(outcome, dropped(Reason::ReplyProtocol), "type {kind}");
        let to_gateway = icmp(&reply, samples::GATEWAY, kind, 0, b"ping");
        assert_eq!(scene.veth(samples::VETH, &to_gateway), PASSED, "type {kind}");
    }
    // Nor is an error about an echo any session's.
    let echo =
        icmpv6(&ForwardKey { client: flow.host, host: flow.client, ..flow }, 129, 0, &[0; 16]);
    for kind in 1..=4 {
        assert_eq!(scene.uplink(&icmpv6(&flow, kind, 0, &echo)), PASSED, "about an echo: {kind}");
    }
}

#[test]
fn i7_neighbour_discovery_and_other_messages_are_the_hosts() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    let (got, got_by_container) = embedded(&flow, &reply);
    // Multicast listeners, neighbour discovery, informational, unknown; as if about the session.
    for kind in (0..=255u8).filter(|kind| !(1..=4).contains(kind)) {
        for payload in [&got[..], &[0; 16], &[]] {
            assert_eq!(scene.uplink(&icmpv6(&flow, kind, 0, payload)), PASSED, "type {kind}");
        }
    }
    // Redirects, time stamps, address masks: what goes to an alias never reaches the host's stack.
    for kind in (0..=255u8).filter(|kind| !matches!(kind, 3 | 4 | 11 | 12)) {
        let to_alias = icmp(&reply, reply.alias, kind, 0, &got_by_container);
        let outcome = scene.veth(samples::VETH, &to_alias);
        assert_eq!(outcome, dropped(Reason::ReplyProtocol), "type {kind}");
        let elsewhere = icmp(&reply, [192, 0, 2, 1], kind, 0, &got_by_container);
        assert_eq!(scene.veth(samples::VETH, &elsewhere), PASSED, "type {kind}");
    }
}
