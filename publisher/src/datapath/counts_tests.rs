use super::super::scene::{NOW, TIMEOUTS, clock, maps};
use super::*;
use publisher_common::layout::Alias;
use publisher_common::wire::protocol::TCP;

fn pass(sessions: &Sessions, differences: &mut Differences, now: u32) -> u64 {
    let mut counts = Counts::thorough([198, 18, 0, 0], [255, 254, 0, 0]);
    let pace = &mut Pace::quick();
    sessions.pass(clock, &TIMEOUTS, pace, &mut counts, |_| None, |_, _| {}).unwrap();
    sessions.correct(counts, differences, now, pace).unwrap()
}

#[test]
fn two_passes_must_agree_on_a_difference() {
    for (before, now, by) in
        [(5, 5, 5), (5, 3, 3), (-4, -6, -4), (5, -5, 0), (0, 5, 0), (5, 0, 0), (-2, -1, -1)]
    {
        assert_eq!(agreed(before, now), by, "{before} {now}");
    }
}

#[test]
fn counts_are_set_right_on_the_second_look() {
    let sessions = maps(64);
    let (key, _) = sessions.put(1, TCP, [NOW, NOW]);
    let source = SourceKey::of(&key);
    sessions.keep_uses(&BTreeSet::from([1, 2])).unwrap();
    let wrong = Use { sessions: 10, ..Use::default() };
    sessions.0.uses.insert(&1, &wrong, Write::Any).unwrap();
    sessions.0.sources.insert(&source, &Source { sessions: 5, aliases: 9 }, Write::New).unwrap();
    let empty = SourceKey { prefix: [9; 8], ..source };
    sessions.0.sources.insert(&empty, &Source::default(), Write::New).unwrap();

    let mut differences = Differences::default();
    pass(&sessions, &mut differences, NOW);
    assert_eq!(sessions.uses().unwrap()[&1], 10);
    assert_eq!(sessions.0.sources.get(&empty), None, "nothing is left of it");
    // Meanwhile a session has ended.
    sessions.lower_use(1, 1);
    pass(&sessions, &mut differences, NOW);
    assert_eq!(sessions.uses().unwrap()[&1], 1);
    let right = Source { sessions: 1, aliases: 0 };
    assert_eq!(sessions.0.sources.get(&source), Some(right));
    pass(&sessions, &mut differences, NOW);
    assert_eq!(sessions.uses().unwrap()[&1], 1);
    assert_eq!(sessions.0.sources.get(&source), Some(right));
}

#[test]
fn a_missing_source_is_made() {
    let sessions = maps(64);
    let (key, _) = sessions.put(1, TCP, [NOW, NOW]);
    pass(&sessions, &mut Differences::default(), NOW);
    let found = sessions.0.sources.get(&SourceKey::of(&key));
    assert_eq!(found, Some(Source { sessions: 1, aliases: 0 }));
}

#[test]
fn what_the_daemon_ends_is_taken_off_at_once() {
    let sessions = maps(64);
    sessions.keep_uses(&BTreeSet::from([1])).unwrap();
    let (key, _) = sessions.put(1, TCP, [NOW - 9_000, NOW - 9_000]);
    let one = Use { sessions: 1, ..Use::default() };
    sessions.0.uses.insert(&1, &one, Write::Any).unwrap();
    let source = Source { sessions: 1, aliases: 1 };
    sessions.0.sources.insert(&SourceKey::of(&key), &source, Write::New).unwrap();
    let mut counts = Counts::default();
    sessions.pass(clock, &TIMEOUTS, &mut Pace::quick(), &mut counts, |_| None, |_, _| {}).unwrap();
    assert_eq!(sessions.uses().unwrap()[&1], 0);
    assert_eq!(
        sessions.0.sources.get(&SourceKey::of(&key)),
        Some(Source { sessions: 0, aliases: 1 })
    );
}

#[test]
fn uses_follow_the_publications() {
    let sessions = maps(64);
    sessions.keep_uses(&BTreeSet::from([1, 2])).unwrap();
    let counted = Use { sessions: 4, ..Use::default() };
    sessions.0.uses.insert(&2, &counted, Write::Existing).unwrap();
    sessions.keep_uses(&BTreeSet::from([2, 3])).unwrap();
    assert_eq!(sessions.uses().unwrap(), HashMap::from([(2, 4), (3, 0)]));
}

#[test]
fn an_alias_is_given_back_an_hour_after_the_last_session() {
    let sessions = maps(64);
    let (key, reply) = sessions.put(1, TCP, [NOW, NOW]);
    let alias = Alias {
        client: key.client,
        scope: 0,
        created: 1,
        last_seen: 1,
        whole_prefix: 0,
        reserved: [0; 11],
    };
    let idle = [198, 18, 9, 9];
    sessions.0.aliases.insert(&reply.alias, &alias, Write::New).unwrap();
    let seen_lately = Alias { last_seen: NOW, ..alias };
    sessions.0.aliases.insert(&idle, &seen_lately, Write::New).unwrap();
    let mut differences = Differences::default();
    assert_eq!(pass(&sessions, &mut differences, NOW + ALIAS_KEPT), 2);
    assert_eq!(sessions.alias(reply.alias).unwrap().last_seen, NOW + ALIAS_KEPT, "in use");
    assert_eq!(pass(&sessions, &mut differences, NOW + ALIAS_KEPT + 1), 1);
    assert_eq!(sessions.alias(idle), None);
    assert_eq!(sessions.0.sources.get(&SourceKey::of(&key)).map(|it| it.aliases), Some(2));
}
