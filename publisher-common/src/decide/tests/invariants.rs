//! Whatever happens in whatever order: the two directions of established sessions belong together,
//! no tuple is given twice, and everything that comes out is valid.

use super::*;
use crate::layout::{ForwardKey, LocalKey, ReplyKey, link_flags};
use crate::wire::protocol;
use proptest::prelude::*;
use std::collections::HashSet;
use std::vec::Vec;

/// A second address of the host.
const SECOND: [u8; 16] = [0xfd; 16];

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    /// A client sends: client, port, host address, and whether by UDP.
    Client { who: u8, port: u8, second: bool, udp: bool, flags: u8, right: bool },
    /// A container answers a session that was once opened.
    Container { which: usize, flags: u8, stranger: bool },
    /// Time goes by.
    Wait(u32),
    /// The link changes, goes down or comes back.
    Link(u8),
    /// The capacity of the tables changes.
    Capacity(usize),
}

fn event() -> impl Strategy<Value = Event> {
    // Mostly what connections consist of: SYN, ACK, SYN-ACK, FIN-ACK, RST.
    let flags =
        || prop_oneof![Just(0x02u8), Just(0x10), Just(0x12), Just(0x11), Just(0x04), 0..32u8];
    prop_oneof![
        10 => (0..3u8, 0..2u8, any::<bool>(), any::<bool>(), flags(), any::<bool>()).prop_map(
            |(who, port, second, udp, flags, right)| {
                Event::Client { who, port, second, udp, flags, right }
            }
        ),
        10 => (any::<usize>(), flags(), prop::bool::weighted(0.1))
            .prop_map(|(which, flags, stranger)| Event::Container { which, flags, stranger }),
        1 => (1..400u32).prop_map(Event::Wait),
        1 => prop::sample::select(&[0u8, 1, 2, 2, 2]).prop_map(Event::Link),
        1 => prop::sample::select(&[0usize, 0, 0, 1, 2, 5]).prop_map(Event::Capacity),
    ]
}

fn flow(who: u8, port: u8, second: bool, udp: bool) -> ForwardKey {
    let mut flow = samples::flow();
    flow.client[15] = 10 + who;
    flow.client_port = (50_000 + u16::from(port)).to_be_bytes();
    flow.host = if second { SECOND } else { samples::HOST };
    flow.protocol = if udp { protocol::UDP } else { protocol::TCP };
    flow
}

fn play(events: Vec<Event>, prefix: u32) -> usize {
    let mut scene = Scene::new();
    scene.tables.locals.push((LocalKey::BITS, LocalKey { scope: [0; 4], address: SECOND }));
    scene.tables.config.as_mut().expect("a configuration").pool_mask =
        (!0u32 << (32 - prefix)).to_be_bytes();
    let mut opened: Vec<ReplyKey> = Vec::new();
    let mut promoted = HashSet::new();
    for event in events {
        match event {
            Event::Client { who, port, second, udp, flags, right } => {
                let flow = flow(who, port, second, udp);
                let ack = if right { packets::ISN.wrapping_add(1) } else { 5 };
                let body = if udp {
                    Body::datagram(usize::from(flags))
                } else {
                    Segment { acknowledgment: ack, ..Segment::new(flags) }.into()
                };
                let outcome = scene.client(&flow, body);
                if let Outcome::ToContainer(..) = outcome {
                    let reply = Seen::to_container(&outcome).reply_key();
                    assert_ne!(reply.alias_port, [0, 0]);
                    let config = scene.tables.config.as_ref().expect("a configuration");
                    assert!(config.is_alias(reply.alias));
                    if !opened.contains(&reply) {
                        opened.push(reply);
                    }
                }
            }
            Event::Container { which, flags, stranger } if !opened.is_empty() => {
                let reply = opened[which % opened.len()];
                let body = if reply.protocol == protocol::UDP {
                    Body::datagram(usize::from(flags))
                } else {
                    Segment { sequence: packets::ISN, ..Segment::new(flags) }.into()
                };
                let frame = packets::from_target(&reply, &body);
                let outcome = scene.veth(samples::VETH + u32::from(stranger), &frame);
                if let Outcome::ToClient(..) = outcome {
                    assert!(!stranger, "forged");
                    let _ = Seen::to_client(&outcome);
                }
            }
            Event::Container { .. } => {}
            Event::Wait(seconds) => scene.now += seconds,
            Event::Link(0) => scene.tables.links[0].generation += 1,
            Event::Link(1) => scene.tables.links[0].flags &= !link_flags::UP,
            Event::Link(_) => scene.tables.links[0].flags |= link_flags::UP,
            Event::Capacity(capacity) => scene.tables.capacity = capacity,
        }
        scene.assert_paired();
        promoted.extend(scene.tables.forward.keys().copied());
    }
    promoted.len()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn s11_the_directions_always_belong_together(
        events in prop::collection::vec(event(), 1..200),
        prefix in prop::sample::select(&[31u32, 30, 29, 15]),
    ) {
        let _ = play(events, prefix);
    }
}

#[test]
fn the_random_events_reach_established_sessions() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let events = prop::collection::vec(event(), 200);
    let promoted: usize =
        (0..50).map(|_| play(events.new_tree(&mut runner).expect("events").current(), 15)).sum();
    assert!(promoted > 100, "only {promoted} sessions were established");
}
