//! A session belongs to one container link: what goes when it changes, and who may answer.

use super::packets::{from_client, from_target};
use super::*;
use crate::decide::Exit;
use crate::layout::{ForwardKey, Link, link_flags};
use crate::wire::protocol;

fn udp() -> ForwardKey {
    ForwardKey { protocol: protocol::UDP, ..samples::flow() }
}

/// The link without its veth: replies come by the bridge.
fn behind_bridge() -> Scene {
    let mut scene = Scene::new();
    scene.tables.links[0] = Link { veth: 0, flags: link_flags::UP, ..samples::link() };
    scene
}

const OTHER_MAC: [u8; 6] = [2, 0x42, 0xac, 0x11, 0, 3];

#[test]
fn tcp_data_of_a_session_whose_link_changed_is_dropped() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    scene.tables.links[0].generation += 1;
    for segment in [Segment::data(1), Segment::fin(), Segment::rst(), Segment::syn_ack()] {
        assert_eq!(scene.client(&flow, segment), dropped(Reason::TargetGone));
    }
    assert_eq!(scene.container(&reply, Segment::data(1)), dropped(Reason::TargetGone));
    scene.assert_paired();
}

#[test]
fn a_syn_and_a_datagram_open_anew_on_the_changed_link() {
    for flow in [samples::flow(), udp()] {
        let mut scene = Scene::new();
        let _ = scene.establish(&flow);
        scene.tables.links[0].generation = 2;
        let reply = scene.open(&flow);
        assert!(!scene.is_established(&flow), "the old session has ended");
        assert_eq!(scene.tables.half_open[&reply].session.link.generation, 2);
        scene.assert_paired();
        assert_eq!(scene.establish(&flow), reply);
    }
}

#[test]
fn a_link_that_is_down_ends_its_sessions() {
    for flow in [samples::flow(), udp()] {
        let mut scene = Scene::new();
        let reply = scene.establish(&flow);
        scene.tables.links[0].flags &= !link_flags::UP;
        let (body, answer): (Body, Body) = if flow.protocol == protocol::UDP {
            (Body::datagram(1), Body::datagram(1))
        } else {
            (Segment::syn().into(), Segment::data(1).into())
        };
        assert_eq!(scene.container(&reply, answer), dropped(Reason::TargetGone));
        assert_eq!(scene.client(&flow, body), dropped(Reason::TargetDown));
        assert!(!scene.is_established(&flow));
        scene.assert_paired();
    }
}

#[test]
fn half_open_and_closing_sessions_end_with_their_link_too() {
    let flow = samples::flow();
    let mut scene = Scene::new();
    let reply = scene.open(&flow);
    scene.tables.links[0].generation = 2;
    assert_eq!(scene.container(&reply, Segment::syn_ack()), dropped(Reason::TargetGone));
    assert_eq!(scene.client(&flow, Segment::data(1)), dropped(Reason::NoSession));
    assert_eq!(scene.establish(&flow), reply);

    let _ = scene.client(&flow, Segment::rst());
    scene.tables.links[0].generation = 3;
    assert_eq!(scene.container(&reply, Segment::data(1)), dropped(Reason::TargetGone));
    assert_eq!(scene.client(&flow, Segment::data(1)), dropped(Reason::NoSession));
    assert!(scene.tables.forward.is_empty());
}

#[test]
fn a_reply_by_another_veth_is_forged() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.open(&flow);
    let forged = from_target(&reply, &Segment::syn_ack().into());
    assert_eq!(scene.veth(samples::VETH + 1, &forged), dropped(Reason::ForgedReply));
    // It proves nothing either.
    let _ = scene.client(&flow, Segment::ack(packets::ISN.wrapping_add(1)));
    assert!(!scene.is_established(&flow));
    let _ = scene.establish(&flow);
    for segment in [Segment::data(1), Segment::rst(), Segment::fin()] {
        let forged = from_target(&reply, &segment.into());
        assert_eq!(scene.veth(samples::VETH + 1, &forged), dropped(Reason::ForgedReply));
    }
    let usage = scene.reverse(&reply).usage.packets;
    assert_eq!((usage, scene.is_established(&flow)), (1, true), "left no trace");
}

#[test]
fn a_reply_by_the_bridge_is_forged_while_the_veth_is_known() {
    let (mut scene, flow) = (Scene::new(), samples::flow());
    let reply = scene.establish(&flow);
    let frame = from_target(&reply, &Segment::data(1).into());
    assert_eq!(scene.bridge(samples::BRIDGE, &frame), dropped(Reason::ForgedReply));
}

#[test]
fn on_a_bridge_the_hardware_address_must_be_the_targets() {
    let (mut scene, flow) = (behind_bridge(), samples::flow());
    let outcome = scene.client(&flow, Segment::syn());
    let reply = Seen::to_container(&outcome).reply_key();
    let Outcome::ToContainer(_, exit) = outcome else { unreachable!() };
    assert_eq!(exit, Exit::Neighbour(samples::BRIDGE));
    let right = from_target(&reply, &Segment::syn_ack().into());
    let mut wrong = right.clone();
    wrong[6..12].copy_from_slice(&OTHER_MAC);
    assert_eq!(scene.bridge(samples::BRIDGE, &wrong), dropped(Reason::ForgedReply));
    assert_eq!(scene.bridge(samples::BRIDGE + 1, &right), dropped(Reason::ForgedReply));
    for byte in 6..12 {
        let mut near = right.clone();
        near[byte] ^= 1;
        assert_eq!(scene.bridge(samples::BRIDGE, &near), dropped(Reason::ForgedReply));
    }
    assert!(Seen::to_client(&scene.bridge(samples::BRIDGE, &right)).answers(&flow));
    // By a veth it can't be told whose it is.
    assert_eq!(scene.veth(samples::VETH, &right), dropped(Reason::ForgedReply));
}

#[test]
fn without_peer_packets_leave_by_the_device() {
    let mut scene = Scene::new();
    scene.tables.links[0].flags = link_flags::UP;
    let outcome = scene.uplink(&from_client(&samples::flow(), &Segment::syn().into()));
    let Outcome::ToContainer(_, exit) = outcome else { panic!("{outcome:?}") };
    assert_eq!(exit, Exit::Neighbour(samples::BRIDGE));
}
