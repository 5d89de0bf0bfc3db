//! Who may open sessions, how many, and what is written about them.

use super::*;
use crate::layout::{
    AccessKey, ForwardKey, PublicationKey, Rule, SourceKey, Use, config_flags, publication_flags,
    record_kind, verdict,
};
use crate::wire::protocol;

/// The sample's TCP publication.
const NUMBER: u32 = 1;

fn client(prefix: u8, host: u8, port: u16) -> ForwardKey {
    let mut flow = samples::flow();
    (flow.client[7], flow.client[15]) = (prefix, host);
    flow.client_port = port.to_be_bytes();
    flow
}

/// A scene whose publication is changed by `change`, with an entry to count in.
fn scene(change: impl Fn(&mut crate::layout::Publication)) -> Scene {
    let mut scene = Scene::new();
    for number in [protocol::TCP, protocol::UDP] {
        let key = PublicationKey {
            host: [0; 16],
            scope: 0,
            port: samples::PORT,
            protocol: number,
            reserved: 0,
        };
        let publication = scene.tables.publications.get_mut(&key).expect("published");
        change(publication);
        scene.tables.uses.insert(publication.handle.index, Use::default());
    }
    scene
}

fn rule(scene: &mut Scene, number: u32, prefix: [u8; 16], bits: u32, verdict: u32) {
    let key = AccessKey::new(number, prefix);
    let bits = AccessKey::PUBLICATION_BITS + bits;
    scene.tables.rules.push((bits, key, Rule { verdict, until: 0 }));
}

#[test]
fn the_longest_prefix_decides() {
    let mut scene = scene(|publication| publication.flags = publication_flags::ACCESS);
    let near = client(1, 9, 50_000);
    assert_eq!(scene.client(&near, Segment::syn()), dropped(Reason::Denied), "no rule at all");
    rule(&mut scene, NUMBER, [0; 16], 0, verdict::ALLOW);
    rule(&mut scene, NUMBER, near.client, 48, verdict::DENY);
    rule(&mut scene, NUMBER, near.client, 64, verdict::ALLOW);
    rule(&mut scene, NUMBER, near.client, 128, verdict::DENY);
    rule(&mut scene, NUMBER + 5, client(1, 8, 0).client, 128, verdict::DENY);
    assert_eq!(scene.client(&near, Segment::syn()), dropped(Reason::Denied), "/128");
    let _ = scene.open(&client(1, 8, 50_000));
    let (mut other, mut far) = (client(2, 9, 50_000), client(3, 9, 50_000));
    other.client[..6].copy_from_slice(&near.client[..6]);
    assert_eq!(scene.client(&other, Segment::syn()), dropped(Reason::Denied), "/48");
    far.client[0] = 0x2a;
    let _ = scene.open(&far);
    assert_eq!(scene.tables.half_open.len(), 2, "what is refused leaves nothing");
}

#[test]
fn a_ban_holds_for_every_publication_until_its_time_is_over() {
    let mut scene = scene(|publication| publication.flags = 0);
    let flow = client(1, 9, 50_000);
    let until = scene.now + 10;
    let key = AccessKey::new(0, flow.client);
    scene.tables.rules.push((AccessKey::BITS, key, Rule { verdict: verdict::DENY, until }));
    let established = client(1, 9, 50_001);
    let reply = scene.establish(&established);
    // Looked at only where the configuration says that there are any.
    scene.tables.config.as_mut().expect("a configuration").flags = config_flags::BANS;
    assert_eq!(scene.client(&flow, Segment::syn()), dropped(Reason::Denied));
    let datagrams = ForwardKey { protocol: protocol::UDP, ..flow };
    assert_eq!(scene.client(&datagrams, Body::datagram(3)), dropped(Reason::Denied));
    let _ = scene.open(&client(1, 8, 50_000));
    // The daemon ends what is open.
    assert!(matches!(scene.container(&reply, Segment::data(1)), Outcome::ToClient(..)));
    scene.now = until;
    let _ = scene.open(&flow);
}

#[test]
fn a_session_again_on_a_closing_tuple_is_a_new_one() {
    let mut scene = scene(|publication| publication.flags = 0);
    let flow = client(1, 9, 50_000);
    let reply = scene.establish(&flow);
    let _ = scene.client(&flow, Segment::rst());
    rule(&mut scene, 0, flow.client, 128, verdict::DENY);
    scene.tables.config.as_mut().expect("a configuration").flags = config_flags::BANS;
    assert_eq!(scene.client(&flow, Segment::syn()), dropped(Reason::Denied));
    assert_eq!(scene.state(&reply), None);
}

#[test]
fn a_publication_has_so_many_sessions_at_once() {
    let mut scene = scene(|publication| publication.max_sessions = 2);
    let flows = [1, 2, 3].map(|host| client(1, host, 50_000));
    // All three come before one is established: the third is stopped at its proof.
    let replies = flows.map(|flow| scene.open(&flow));
    for reply in &replies {
        let _ = scene.container(reply, Segment::syn_ack());
    }
    let proof = || Segment::ack(packets::ISN.wrapping_add(1));
    let _ = scene.client(&flows[0], proof());
    let _ = scene.client(&flows[1], proof());
    assert_eq!(scene.client(&flows[2], proof()), dropped(Reason::SessionLimit));
    assert_eq!(scene.tables.uses[&NUMBER].sessions, 2);
    assert_eq!(scene.client(&flows[2], Segment::syn()), dropped(Reason::SessionLimit));
    // Others aren't touched, and one that ends makes room.
    assert!(matches!(scene.client(&flows[0], Segment::data(1)), Outcome::ToContainer(..)));
    let _ = scene.client(&flows[0], Segment::fin());
    let _ = scene.container(&replies[0], Segment::fin());
    assert_eq!(scene.tables.uses[&NUMBER].sessions, 1);
    let _ = scene.establish(&flows[2]);
    scene.assert_paired();
}

#[test]
fn a_prefix_has_so_many_sessions_at_once() {
    let mut scene = Scene::new();
    scene.tables.config.as_mut().expect("a configuration").sessions_per_source = 2;
    let reply = scene.establish(&client(1, 1, 50_000));
    let _ = scene.establish(&client(1, 2, 50_000));
    let third = client(1, 3, 50_000);
    assert_eq!(scene.client(&third, Segment::syn()), dropped(Reason::SourceLimit));
    let _ = scene.establish(&client(2, 3, 50_000));
    let _ = scene.container(&reply, Segment::rst());
    let _ = scene.establish(&third);
    let source = scene.tables.sources[&SourceKey::of(&third)];
    assert_eq!((source.sessions, source.aliases), (2, 3));
    // Where the daemon has counted anew meanwhile, a number below 0 is none.
    scene.tables.sources.values_mut().for_each(|source| source.sessions = u64::MAX);
    let _ = scene.open(&client(1, 4, 50_000));
}

#[test]
fn new_sessions_are_limited_by_the_second() {
    let mut scene = scene(|publication| {
        publication.rate = 3;
        publication.source_rate = 2;
    });
    let flows: [_; 3] = [1, 2, 3].map(|host| client(1, host, 50_000));
    let _ = scene.open(&flows[0]);
    let _ = scene.open(&flows[1]);
    assert_eq!(scene.client(&flows[2], Segment::syn()), dropped(Reason::SourceRate));
    let _ = scene.open(&flows[0]);
    let _ = scene.open(&client(2, 1, 50_000));
    assert_eq!(scene.client(&client(3, 1, 50_000), Segment::syn()), dropped(Reason::Rate));
    scene.now += 1;
    let _ = scene.open(&flows[2]);
    let _ = scene.open(&client(3, 1, 50_000));
}

#[test]
fn a_client_that_sends_its_syn_again_is_no_new_session() {
    let mut scene = scene(|publication| publication.rate = 1);
    let home = Scene::new().open(&client(1, 1, 50_000));
    // Its first tuple is somebody else's, so that it isn't found at once.
    let mut other = Scene::new();
    let established = other.establish(&client(9, 9, 1));
    let taken = *other.reverse(&established);
    scene.tables.reverse.insert(home, taken);
    let reply = scene.open(&client(1, 1, 50_000));
    assert_ne!(reply, home);
    assert_eq!(scene.open(&client(1, 1, 50_000)), reply);
    assert_eq!(scene.client(&client(1, 2, 50_000), Segment::syn()), dropped(Reason::Rate));
}

#[test]
fn a_prefix_has_its_share_of_the_aliases_and_then_shares_among_its_own() {
    let mut scene = Scene::new();
    scene.tables.config.as_mut().expect("a configuration").aliases_per_source = 4;
    let aliases: std::vec::Vec<_> =
        (0..200u8).map(|host| scene.establish(&client(1, host, 50_000)).alias).collect();
    let bound = |scene: &Scene, whole| {
        scene.tables.aliases.values().filter(|alias| alias.whole_prefix == whole).count()
    };
    assert_eq!(bound(&scene, 0), 4);
    assert!(bound(&scene, 1) <= 64, "{}", bound(&scene, 1));
    // A client that has its own keeps it, from whatever port.
    assert_eq!(scene.establish(&client(1, 2, 40_000)).alias, aliases[2]);
    // The neighbours' aliases are nobody else's.
    for host in 0..50 {
        let reply = scene.establish(&client(2, host, 50_000));
        assert!(!aliases.contains(&reply.alias));
        let alias = &scene.tables.aliases[&reply.alias];
        assert_eq!(alias.client[7], 2);
    }
    scene.assert_paired();
}

#[test]
fn all_clients_of_a_prefix_may_be_one_alias() {
    let mut scene = Scene::new();
    let config = scene.tables.config.as_mut().expect("a configuration");
    config.flags = config_flags::ALIAS_PER_PREFIX;
    let aliases = [1, 2, 3].map(|host| scene.establish(&client(1, host, 50_000 + host as u16)));
    assert!(aliases.iter().all(|reply| reply.alias == aliases[0].alias));
    let alias = &scene.tables.aliases[&aliases[0].alias];
    assert_eq!((alias.whole_prefix, &alias.client[8..]), (1, &[0; 8][..]));
    assert_ne!(scene.establish(&client(2, 1, 50_000)).alias, aliases[0].alias);
}

#[test]
fn s18_what_happens_to_a_session_is_logged() {
    let flow = samples::flow();
    let mut scene = Scene::new();
    let reply = scene.open(&flow);
    assert!(scene.tables.records.is_empty(), "a SYN is no session yet");
    scene.now += 1;
    let _ = scene.establish(&flow);
    scene.now += 5;
    let _ = scene.container(&reply, Segment::rst());
    let _ = scene.client(&flow, Segment::data(7));
    let _ = scene.client(&flow, Segment::fin());
    let _ = scene.container(&reply, Segment::fin());
    let kinds: std::vec::Vec<_> = scene.tables.records.iter().map(|record| record.kind).collect();
    let expected =
        [record_kind::OPENED, record_kind::RESET, record_kind::RESUMED, record_kind::FINISHED];
    assert_eq!(kinds, expected);
    let record = scene.tables.records[3];
    assert_eq!((record.forward, record.reply), (flow, reply));
    assert_eq!((record.at, record.created), (scene.now, scene.now - 6));
    assert_eq!((record.publication.index, record.uplink), (NUMBER, samples::UPLINK));
    // SYN twice, ACK, data, FIN; SYN-ACK, RST, FIN.
    assert_eq!((record.sent.packets, record.received.packets), (5, 3));
    assert_eq!(record.received.bytes, 3 * 40);

    let mut scene = Scene::new();
    let _ = scene.establish(&flow);
    scene.tables.links[0].generation += 1;
    let _ = scene.client(&flow, Segment::syn());
    assert_eq!(scene.tables.records[1].kind, record_kind::TARGET_GONE);
}
