//! A TCP connection from its SYN on.

use super::packets::{ISN, from_client, from_target};
use super::*;
use crate::decide::Exit;
use crate::layout::{State, session_flags};
use crate::wire::tcp_flags::{ACK, FIN, RST, SYN};

#[test]
fn s4_handshake_then_data_both_ways() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let outcome = scene.client(&flow, Segment::syn());
    let syn = Seen::to_container(&outcome);
    let reply = syn.reply_key();
    assert_eq!((reply.target, reply.target_port), (samples::TARGET, samples::TARGET_PORT));
    assert_eq!(syn.hops, 63);
    let Outcome::ToContainer(_, exit) = outcome else { unreachable!() };
    assert_eq!(exit, Exit::Peer(samples::VETH));
    assert_eq!(scene.state(&reply), Some(State::V6_INIT));
    assert!(!scene.is_established(&flow));

    let outcome = scene.container(&reply, Segment::syn_ack());
    assert!(Seen::to_client(&outcome).answers(&flow));
    let Outcome::ToClient(_, uplink) = outcome else { unreachable!() };
    assert_eq!((uplink.ifindex, uplink.raw), (samples::UPLINK, false));
    assert!(!scene.is_established(&flow), "the client has proved nothing yet");

    let _ = scene.client(&flow, Segment::ack(ISN.wrapping_add(1)));
    assert_eq!(scene.state(&reply), Some(State::ESTABLISHED));
    assert!(scene.tables.half_open.is_empty());
    for length in [0, 1, 2, 3, 1_000, 1_440] {
        let there = Seen::to_container(&scene.client(&flow, Segment::data(length)));
        assert_eq!((there.reply_key(), there.payload.len()), (reply, length));
        let back = Seen::to_client(&scene.container(&reply, Segment::data(length)));
        assert!(back.answers(&flow));
        assert_eq!((back.payload, back.hops), (Segment::data(length).payload, 63));
    }
    scene.assert_paired();
}

#[test]
fn s3_each_direction_keeps_its_own_time() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    let opened = scene.now;
    let times =
        |scene: &Scene| (scene.tables.forward[&flow].last_seen, scene.reverse(&reply).last_seen);
    scene.now += 3;
    for _ in 0..2 {
        let _ = scene.client(&flow, Segment::data(1));
        assert_eq!(times(&scene), (opened + 3, opened));
    }
    scene.now += 4;
    for _ in 0..2 {
        let _ = scene.container(&reply, Segment::data(1));
        assert_eq!(times(&scene), (opened + 3, opened + 7));
    }
}

#[test]
fn s4_only_the_acknowledgment_of_the_containers_isn_promotes() {
    let flow = samples::flow();
    for (offset, flags, promotes) in [
        (1u32, ACK, true),
        (0, ACK, false),
        (2, ACK, false),
        (u32::MAX, ACK, false),
        (1, SYN | ACK, false),
        (1, RST | ACK, false),
        (1, RST, false),
        (1, FIN | ACK, true),
        (1, FIN, false),
        (1, 0, false),
    ] {
        let mut scene = Scene::new();
        let reply = scene.open(&flow);
        let _ = scene.container(&reply, Segment::syn_ack());
        let segment = Segment { acknowledgment: ISN.wrapping_add(offset), ..Segment::new(flags) };
        let _ = scene.client(&flow, segment);
        assert_eq!(scene.is_established(&flow), promotes, "ISN + {offset}, flags {flags:#x}");
        scene.assert_paired();
    }
}

#[test]
fn s4_a_blind_acknowledgment_before_the_answer_promotes_nothing() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.open(&flow);
    for guess in [0, 1, ISN.wrapping_add(1)] {
        assert_eq!(
            Seen::to_container(&scene.client(&flow, Segment::ack(guess))).reply_key(),
            reply
        );
        assert!(!scene.is_established(&flow));
    }
}

#[test]
fn s4_only_a_syn_ack_is_the_containers_answer() {
    let flow = samples::flow();
    for flags in [ACK, SYN, FIN | ACK, 0] {
        let mut scene = Scene::new();
        let reply = scene.open(&flow);
        let segment = Segment { sequence: ISN, ..Segment::new(flags) };
        assert!(Seen::to_client(&scene.container(&reply, segment)).answers(&flow));
        let _ = scene.client(&flow, Segment::ack(ISN.wrapping_add(1)));
        assert!(!scene.is_established(&flow), "flags {flags:#x}");
    }
}

#[test]
fn s4_a_retransmitted_syn_keeps_its_session() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.open(&flow);
    scene.now += 1;
    assert_eq!(scene.open(&flow), reply);
    assert_eq!(scene.tables.half_open.len(), 1);
    assert_eq!(scene.tables.half_open[&reply].last_seen, scene.now);
}

#[test]
fn s11_a_retransmitted_syn_keeps_a_session_that_is_not_at_its_first_tuple() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let home = Scene::new().open(&flow);
    // The flow of the same client to another address of the host has taken the first tuple.
    let host = [0xfd; 16];
    scene.tables.locals.push((160, crate::layout::LocalKey { scope: [0; 4], address: host }));
    let other = crate::layout::ForwardKey { host, ..flow };
    assert_eq!(scene.open(&other), home);
    let reply = scene.open(&flow);
    assert_ne!(reply, home);
    assert_eq!(scene.open(&flow), reply, "a second session of one connection");
    assert_eq!(scene.tables.half_open.len(), 2);
}

#[test]
fn s4_a_reset_is_passed_on_and_ends_nothing_that_is_half_open() {
    let flow = samples::flow();
    let mut scene = Scene::new();
    let reply = scene.open(&flow);
    let _ = scene.container(&reply, Segment::syn_ack());
    // A forged ACK that isn't acceptable makes the container send a RST, and go on waiting.
    let forged = scene.client(&flow, Segment::ack(ISN.wrapping_add(77)));
    assert_eq!(Seen::to_container(&forged).reply_key(), reply);
    assert!(Seen::to_client(&scene.container(&reply, Segment::rst())).answers(&flow));
    // So does a client that isn't the one.
    assert_eq!(Seen::to_container(&scene.client(&flow, Segment::rst())).reply_key(), reply);
    assert_eq!(scene.state(&reply), Some(State::V6_INIT));
    let _ = scene.client(&flow, Segment::ack(ISN.wrapping_add(1)));
    assert_eq!(scene.state(&reply), Some(State::ESTABLISHED));
    scene.assert_paired();
}

#[test]
fn s9_a_segment_of_no_session_is_dropped() {
    let mut scene = Scene::new();
    for flags in [ACK, FIN | ACK, RST, FIN, 0, SYN | ACK] {
        let outcome = scene.client(&samples::flow(), Segment::new(flags));
        assert_eq!(outcome, dropped(Reason::NoSession), "flags {flags:#x}");
    }
    for flags in [SYN | FIN, SYN | RST] {
        let outcome = scene.client(&samples::flow(), Segment::new(flags));
        assert_eq!(outcome, dropped(Reason::TcpFlags), "flags {flags:#x}");
    }
    assert!(scene.tables.half_open.is_empty());
}

#[test]
fn g9_a_wrong_checksum_stays_equally_wrong() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    let sum = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    // In ones' complement: the distance from right to wrong.
    let distance = |right: u16, wrong: u16| (u32::from(right) + 0xffff - u32::from(wrong)) % 0xffff;

    let right = from_client(&flow, &Segment::data(5).into());
    let mut wrong = right.clone();
    wrong[57] ^= 0x3c;
    let translated = [&right, &wrong].map(|bytes| match scene.uplink(bytes) {
        Outcome::ToContainer(bytes, _) => sum(&bytes, 36),
        other => panic!("{other:?}"),
    });
    assert_eq!(distance(sum(&right, 56), sum(&wrong, 56)), distance(translated[0], translated[1]));
    assert_ne!(translated[0], translated[1]);

    let right = from_target(&reply, &Segment::data(5).into());
    let mut wrong = right.clone();
    wrong[14 + 37] ^= 0x3c;
    let translated = [&right, &wrong].map(|bytes| match scene.veth(samples::VETH, bytes) {
        Outcome::ToClient(bytes, _) => sum(&bytes, 56),
        other => panic!("{other:?}"),
    });
    assert_eq!(distance(sum(&right, 50), sum(&wrong, 50)), distance(translated[0], translated[1]));
    assert_ne!(translated[0], translated[1]);
}

#[test]
fn s3_the_session_knows_its_publication_link_and_uplink() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    let session = scene.reverse(&reply).session;
    assert_eq!((session.publication.index, session.publication.generation), (1, 1));
    assert_eq!((session.link.index, session.link.generation), (0, 1));
    assert_eq!((session.uplink, session.created), (samples::UPLINK, 1_000));
    assert_eq!(session.flags, session_flags::REPLIED);
    let alias = scene.tables.aliases[&reply.alias];
    assert_eq!((alias.client, alias.scope, alias.created), (samples::CLIENT, 0, 1_000));
}
