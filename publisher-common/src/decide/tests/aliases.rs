//! Which alias and port a flow is given, and what happens when they run out.

use super::*;
use crate::alias::{CANDIDATES, Candidates};
use crate::layout::{ForwardKey, LocalKey};
use crate::wire::protocol;
use std::collections::HashSet;
use std::vec::Vec;

fn client(number: u16) -> ForwardKey {
    let mut flow = samples::flow();
    flow.client[14..].copy_from_slice(&number.to_be_bytes());
    flow.client[8] = 7;
    flow
}

fn candidates(scene: &Scene, flow: &ForwardKey) -> Vec<([u8; 4], [u8; 2])> {
    let config = scene.tables.config.as_ref().expect("a configuration");
    let candidates = Candidates::of_pool(config, flow);
    (0..CANDIDATES).map(|index| candidates.get(index)).map(|c| (c.alias, c.port)).collect()
}

/// Host bits of a pool so small that clients meet.
fn small_pool(scene: &mut Scene, prefix: u32) {
    let config = scene.tables.config.as_mut().expect("a configuration");
    config.pool_mask = (!0u32 << (32 - prefix)).to_be_bytes();
}

#[test]
fn s11_the_clients_port_is_kept() {
    let mut scene = Scene::new();
    for number in 1..200u16 {
        let flow = ForwardKey { client_port: (number * 300).to_be_bytes(), ..client(number) };
        assert_eq!(scene.open(&flow).alias_port, flow.client_port);
    }
}

#[test]
fn s11_port_0_is_never_given() {
    let mut scene = Scene::new();
    for number in 1..200u16 {
        let flow = ForwardKey { client_port: [0; 2], ..client(number) };
        let reply = scene.establish(&flow);
        assert!(u16::from_be_bytes(reply.alias_port) >= 1024);
    }
}

#[test]
fn s11_two_clients_with_one_alias_and_port_are_kept_apart() {
    let mut scene = Scene::new();
    // One address is left between the pool's ends.
    small_pool(&mut scene, 31);
    let replies: Vec<_> = (1..=2).map(|number| scene.establish(&client(number))).collect();
    assert_ne!(replies[0], replies[1]);
    for (number, reply) in replies.iter().enumerate() {
        let outcome = scene.container(reply, Segment::data(1));
        assert!(Seen::to_client(&outcome).answers(&client(number as u16 + 1)));
    }
    scene.assert_paired();
}

#[test]
fn s11_one_client_and_port_to_two_addresses_of_the_host() {
    let mut scene = Scene::new();
    let host = [0xfd; 16];
    scene.tables.locals.push((LocalKey::BITS, LocalKey { scope: [0; 4], address: host }));
    let (first, second) = (samples::flow(), ForwardKey { host, ..samples::flow() });
    let (a, b) = (scene.establish(&first), scene.establish(&second));
    assert_eq!(a.alias, b.alias, "it stays one client");
    assert_eq!(a.alias_port, first.client_port);
    assert_ne!(a.alias_port, b.alias_port);
    assert!(Seen::to_client(&scene.container(&a, Segment::data(1))).answers(&first));
    assert!(Seen::to_client(&scene.container(&b, Segment::data(1))).answers(&second));
}

#[test]
fn a_bound_alias_is_left_to_its_client() {
    let mut scene = Scene::new();
    let flow = samples::flow();
    let wanted = candidates(&scene, &flow);
    scene.bind(wanted[0].0, client(1).client);
    let reply = scene.open(&flow);
    assert_eq!((reply.alias, reply.alias_port), wanted[2], "the next alias, with the port kept");
    // Its own binding doesn't keep a client away.
    let mut scene = Scene::new();
    scene.bind(wanted[0].0, flow.client);
    assert_eq!(scene.open(&flow).alias, wanted[0].0);
}

#[test]
fn an_alias_is_shared_only_when_none_is_left() {
    let mut scene = Scene::new();
    let flow = samples::flow();
    let wanted = candidates(&scene, &flow);
    for (alias, _) in &wanted {
        scene.bind(*alias, client(1).client);
    }
    let reply = scene.establish(&flow);
    let first_shared = wanted[crate::alias::NEIGHBOURS as usize];
    assert_eq!((reply.alias, reply.alias_port), first_shared);
    assert_eq!(scene.tables.aliases[&reply.alias].client, client(1).client, "whois stays");
}

#[test]
fn a_binding_is_of_a_client_on_its_link() {
    let mut scene = Scene::new();
    let flow = samples::flow();
    let wanted = candidates(&scene, &flow);
    scene.bind(wanted[0].0, flow.client);
    scene.tables.aliases.get_mut(&wanted[0].0).expect("bound").scope = 5;
    assert_ne!(scene.open(&flow).alias, wanted[0].0);
}

#[test]
fn an_alias_is_bound_at_promotion() {
    let mut scene = Scene::new();
    let flow = samples::flow();
    let reply = scene.open(&flow);
    let _ = scene.container(&reply, Segment::syn_ack());
    assert!(scene.tables.aliases.is_empty(), "a SYN binds nothing");
    assert_eq!(scene.establish(&flow), reply);
    assert_eq!(scene.tables.aliases.keys().collect::<Vec<_>>(), [&reply.alias]);
}

#[test]
fn s12_when_no_tuple_is_left_a_new_flow_is_refused_and_others_live() {
    let mut scene = Scene::new();
    small_pool(&mut scene, 31);
    // One source port, one alias, and ports of their own choice: in the end somebody finds none of
    // the candidates free, since every one of them is taken by hand here.
    let flow = client(1);
    let other = scene.establish(&client(2));
    let tuples: HashSet<_> = candidates(&scene, &flow).into_iter().collect();
    let taken = *scene.reverse(&other);
    for (alias, alias_port) in tuples {
        let reply = crate::layout::ReplyKey { alias, alias_port, ..other };
        scene.tables.reverse.entry(reply).or_insert(taken);
    }
    let Outcome::Answered(told, Reason::Exhausted) = scene.client(&flow, Segment::syn()) else {
        panic!("a SYN without a tuple");
    };
    // ICMPv6 address unreachable (RFC 6146 §3.5.1.1).
    assert_eq!(told[40..42], [1, 3]);
    assert!(matches!(scene.client(&client(2), Segment::data(1)), Outcome::ToContainer(..)));
    assert!(matches!(scene.container(&other, Segment::data(1)), Outcome::ToClient(..)));
}

#[test]
fn s12_an_expired_half_open_session_makes_way() {
    let mut scene = Scene::new();
    small_pool(&mut scene, 31);
    let first = scene.open(&client(1));
    scene.now += 240;
    assert_ne!(scene.open(&client(2)), first, "it has not expired yet");
    scene.now += 1;
    let third = scene.open(&client(3));
    assert_eq!(third, first);
    assert_eq!(scene.tables.half_open[&third].forward, client(3));
}

#[test]
fn s17_a_full_table_leaves_a_session_half_open_and_translated() {
    for capacity in [1, 2] {
        let mut scene = Scene::new();
        scene.tables.capacity = capacity;
        for number in 0..capacity {
            let _ = scene.establish(&client(number as u16 + 10));
        }
        let flow = client(1);
        let reply = scene.open(&flow);
        for _ in 0..3 {
            let _ = scene.container(&reply, Segment::syn_ack());
            let ack = Segment::ack(packets::ISN.wrapping_add(1));
            assert_eq!(Seen::to_container(&scene.client(&flow, ack)).reply_key(), reply);
            assert!(!scene.is_established(&flow));
            scene.assert_paired();
        }
        let data = scene.client(&flow, Segment::data(100));
        assert_eq!(Seen::to_container(&data).payload.len(), 100);
        assert!(Seen::to_client(&scene.container(&reply, Segment::data(5))).answers(&flow));
        // Room again: the next packet finds its place.
        scene.tables.capacity = capacity + 1;
        let _ = scene.client(&flow, Segment::data(1));
        assert!(scene.is_established(&flow));
        scene.assert_paired();
    }
}

#[test]
fn s17_half_a_pair_is_never_left_behind() {
    // The forward table alone is full: the reverse direction that is already in goes out again.
    let mut scene = Scene::new();
    let flow = samples::flow();
    let reply = scene.open(&flow);
    let _ = scene.container(&reply, Segment::syn_ack());
    let mut donor = Scene::new();
    let _ = donor.establish(&client(9));
    scene.tables.forward = donor.tables.forward;
    scene.tables.capacity = 1;
    let ack = Segment::ack(packets::ISN.wrapping_add(1));
    assert_eq!(Seen::to_container(&scene.client(&flow, ack)).reply_key(), reply);
    assert!(scene.tables.reverse.is_empty(), "the reverse direction was left behind");
    assert!(scene.tables.half_open.contains_key(&reply));
}

/// Two flows of one client from one port, to two addresses of the host: the second one's first tuple is
/// the first one's.
fn displaced(number: u8) -> (Scene, ForwardKey, ForwardKey) {
    let mut scene = Scene::new();
    scene.now = 100_000;
    let host = [0xfd; 16];
    scene.tables.locals.push((160, crate::layout::LocalKey { scope: [0; 4], address: host }));
    let first = ForwardKey { protocol: number, ..samples::flow() };
    (scene, first, ForwardKey { host, ..first })
}

#[test]
fn a_displaced_session_is_found_wherever_it_is() {
    let (mut scene, first, second) = displaced(protocol::UDP);
    let (one, two) = (scene.open(&first), scene.open(&second));
    assert_ne!(one, two);
    // Its first tuple has become free meanwhile.
    scene.tables.half_open.remove(&one);
    scene.now += 290;
    assert_eq!(scene.open(&second), two, "it isn't moved");
    scene.now += 290;
    assert_eq!(scene.open(&second), two, "however long it has been half-open");
    // A flow whose slot has never been displaced isn't searched for.
    scene.tables.displaced.clear();
    assert_eq!(scene.open(&second), one);
}

#[test]
fn a_displaced_session_is_found_when_it_is_closing() {
    let (mut scene, first, second) = displaced(protocol::TCP);
    let _ = scene.establish(&first);
    let reply = scene.establish(&second);
    scene.now += 50_000;
    let _ = scene.container(&reply, Segment::rst());
    let revived = scene.client(&second, Segment::data(1));
    assert_eq!(Seen::to_container(&revived).reply_key(), reply);
    assert!(scene.is_established(&second));
}
