//! How TCP sessions end, and how their tuples open again.

use super::packets::ISN;
use super::*;
use crate::layout::{ReplyKey, State};

/// An established session's scene.
fn open() -> (Scene, ReplyKey) {
    let mut scene = Scene::new();
    let reply = scene.establish(&samples::flow());
    (scene, reply)
}

#[test]
fn s5_fins_of_both_sides_close_in_either_order() {
    let flow = samples::flow();
    let (mut scene, reply) = open();
    assert!(matches!(scene.client(&flow, Segment::fin()), Outcome::ToContainer(..)));
    assert_eq!(scene.state(&reply), Some(State::V6_FIN_RCV));
    scene.assert_paired();
    assert!(matches!(scene.container(&reply, Segment::data(9)), Outcome::ToClient(..)));
    assert_eq!(scene.state(&reply), Some(State::V6_FIN_RCV), "the other half stays open");
    assert!(matches!(scene.container(&reply, Segment::fin()), Outcome::ToClient(..)));
    assert_eq!(scene.closing(&reply).session.state, State::V4_FIN_V6_FIN_RCV);
    assert!(scene.tables.forward.is_empty() && scene.tables.reverse.is_empty());

    let (mut scene, reply) = open();
    let _ = scene.container(&reply, Segment::fin());
    assert_eq!(scene.state(&reply), Some(State::V4_FIN_RCV));
    let _ = scene.client(&flow, Segment::data(3));
    assert_eq!(scene.state(&reply), Some(State::V4_FIN_RCV));
    let _ = scene.client(&flow, Segment::fin());
    assert_eq!(scene.closing(&reply).session.state, State::V4_FIN_V6_FIN_RCV);
    scene.assert_paired();
}

#[test]
fn s5_a_repeated_fin_of_one_side_closes_nothing() {
    let flow = samples::flow();
    let (mut scene, reply) = open();
    for _ in 0..3 {
        let _ = scene.client(&flow, Segment::fin());
    }
    assert_eq!(scene.state(&reply), Some(State::V6_FIN_RCV));
    assert!(scene.is_established(&flow));
}

#[test]
fn s5_what_follows_the_fins_is_translated_and_promotes_nothing() {
    let flow = samples::flow();
    let (mut scene, reply) = open();
    let _ = scene.client(&flow, Segment::fin());
    let _ = scene.container(&reply, Segment::fin());
    for _ in 0..2 {
        let last = scene.client(&flow, Segment::ack(ISN.wrapping_add(2)));
        assert_eq!(Seen::to_container(&last).reply_key(), reply);
        assert!(Seen::to_client(&scene.container(&reply, Segment::data(1))).answers(&flow));
        assert_eq!(scene.state(&reply), Some(State::V4_FIN_V6_FIN_RCV));
    }
    assert!(scene.tables.forward.is_empty());
}

#[test]
fn s5_counters_follow_a_session_into_its_end() {
    let flow = samples::flow();
    let (mut scene, reply) = open();
    let (sent, received) =
        (scene.tables.forward[&flow].usage.packets, scene.reverse(&reply).usage.packets);
    let _ = scene.client(&flow, Segment::fin());
    let _ = scene.container(&reply, Segment::fin());
    let closing = scene.closing(&reply);
    assert_eq!((closing.sent.packets, closing.received.packets), (sent + 1, received + 1));
    let _ = scene.client(&flow, Segment::data(0));
    assert_eq!(scene.closing(&reply).sent.packets, sent + 2);
}

#[test]
fn s5_a_session_that_is_done_but_was_not_moved_goes_with_its_next_packet() {
    use crate::layout::session_flags::{CLIENT_FIN, CONTAINER_FIN};
    let flow = samples::flow();
    for by_client in [true, false] {
        let (mut scene, reply) = open();
        let (forward, reverse) = (&mut scene.tables.forward, &mut scene.tables.reverse);
        forward.get_mut(&flow).expect("forward").session.flags |= CLIENT_FIN | CONTAINER_FIN;
        reverse.get_mut(&reply).expect("reverse").session.flags |= CLIENT_FIN | CONTAINER_FIN;
        let outcome = if by_client {
            scene.client(&flow, Segment::data(0))
        } else {
            scene.container(&reply, Segment::data(0))
        };
        assert!(!matches!(outcome, Outcome::Stop(_)), "it is translated all the same");
        assert_eq!(scene.closing(&reply).session.state, State::V4_FIN_V6_FIN_RCV);
        scene.assert_paired();
    }
}

#[test]
fn s6_a_reset_of_either_side_leaves_the_session_in_trans() {
    let flow = samples::flow();
    for by_client in [true, false] {
        let (mut scene, reply) = open();
        let created = scene.reverse(&reply).session.created;
        scene.now += 5;
        let outcome = if by_client {
            scene.client(&flow, Segment::rst())
        } else {
            scene.container(&reply, Segment::rst())
        };
        assert!(!matches!(outcome, Outcome::Stop(_)), "the reset itself is passed on");
        assert_eq!(scene.state(&reply), Some(State::TRANS));
        assert_eq!(scene.closing(&reply).last_seen, scene.now);
        assert!(scene.tables.forward.is_empty() && scene.tables.reverse.is_empty());
        // Another reset changes nothing.
        let _ = scene.client(&flow, Segment::rst());
        assert_eq!(scene.state(&reply), Some(State::TRANS));

        let outcome = if by_client {
            scene.container(&reply, Segment::data(2))
        } else {
            scene.client(&flow, Segment::data(2))
        };
        assert!(!matches!(outcome, Outcome::Stop(_)));
        assert_eq!(scene.state(&reply), Some(State::ESTABLISHED), "back again");
        assert_eq!(scene.reverse(&reply).session.created, created);
        assert!(scene.tables.closing.is_empty());
        scene.assert_paired();
    }
}

#[test]
fn s6_a_fin_before_the_reset_is_forgotten_by_its_revival() {
    let flow = samples::flow();
    let (mut scene, reply) = open();
    let _ = scene.client(&flow, Segment::fin());
    let _ = scene.client(&flow, Segment::rst());
    let _ = scene.client(&flow, Segment::data(1));
    assert_eq!(scene.state(&reply), Some(State::ESTABLISHED));
    let _ = scene.container(&reply, Segment::fin());
    assert_eq!(scene.state(&reply), Some(State::V4_FIN_RCV));
    scene.assert_paired();
}

#[test]
fn s3_a_closing_session_ends_after_the_transitory_time() {
    let flow = samples::flow();
    let (mut scene, reply) = open();
    let _ = scene.client(&flow, Segment::rst());
    scene.now += 241;
    assert_eq!(scene.client(&flow, Segment::data(1)), dropped(Reason::NoSession));
    assert!(scene.tables.closing.is_empty());
    let (mut scene, _) = open();
    let _ = scene.client(&flow, Segment::rst());
    scene.now += 241;
    assert_eq!(scene.container(&reply, Segment::data(1)), dropped(Reason::ReplyNoSession));
}

#[test]
fn s13_a_syn_reopens_a_tuple_that_is_closing() {
    let flow = samples::flow();
    for reset in [true, false] {
        let (mut scene, reply) = open();
        if reset {
            let _ = scene.container(&reply, Segment::rst());
        } else {
            let _ = scene.client(&flow, Segment::fin());
            let _ = scene.container(&reply, Segment::fin());
        }
        assert!(scene.tables.closing.contains_key(&reply));
        scene.now += 1;
        assert_eq!(scene.open(&flow), reply, "the client keeps its port");
        assert!(scene.tables.closing.is_empty());
        assert_eq!(scene.state(&reply), Some(State::V6_INIT));
        assert_eq!(scene.tables.half_open[&reply].session.created, scene.now);
        assert_eq!(scene.tables.half_open[&reply].sent.packets, 1, "counted anew");
        assert_eq!(scene.establish(&flow), reply);
    }
}

#[test]
fn s13_a_syn_within_an_established_session_is_the_containers_to_judge() {
    let flow = samples::flow();
    let (mut scene, reply) = open();
    assert_eq!(scene.open(&flow), reply);
    assert_eq!(scene.state(&reply), Some(State::ESTABLISHED));
}
