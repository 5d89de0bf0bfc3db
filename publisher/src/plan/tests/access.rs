//! Access rules and limits on their way into the datapath.

use super::*;
use crate::model::{Access, Limits};
use publisher_common::layout::{AccessKey, Rule, publication_flags, verdict};
use std::num::NonZeroU32;

fn guarded(id: u32, allow: &[&str], deny: &[&str], limits: Limits) -> Publication {
    let parse = |list: &[&str]| list.iter().map(|it| it.parse().unwrap()).collect::<Vec<_>>();
    let mut publication = publication(id, "8080", "172.17.0.2:80", SourceMode::Auto);
    let access = Access::new(parse(allow), parse(deny)).expect("rules");
    publication.spec = publication.spec.guarded(access, limits);
    publication
}

fn rule(publication: u32, prefix: &str, bits: u32) -> (u32, AccessKey) {
    let client: std::net::Ipv6Addr = prefix.parse().unwrap();
    (AccessKey::PUBLICATION_BITS + bits, AccessKey::new(publication, client.octets()))
}

#[test]
fn rules_become_prefixes_below_the_publications_number() {
    let mut host = Host::new();
    host.publications = vec![guarded(7, &["2001:db8::/32"], &["2001:db8::5"], Limits::default())];
    let desired = host.desired();
    let (allow, deny) =
        (Rule { verdict: verdict::ALLOW, until: 0 }, Rule { verdict: verdict::DENY, until: 0 });
    assert_eq!(
        desired.access.into_iter().collect::<Vec<_>>(),
        [
            (rule(7, "::", 0), deny),
            (rule(7, "2001:db8::", 32), allow),
            (rule(7, "2001:db8::5", 128), deny)
        ]
    );
    let entry = desired.publications.values().next().expect("an entry");
    assert_eq!(entry.flags, publication_flags::ACCESS);
    host.publications = vec![guarded(7, &[], &["2001:db8::5"], Limits::default())];
    assert_eq!(host.desired().access[&rule(7, "::", 0)], allow);
}

#[test]
fn without_rules_the_flag_is_off() {
    let mut host = Host::new();
    let desired = host.desired();
    assert!(desired.access.is_empty());
    assert_eq!(desired.publications.values().next().expect("an entry").flags, 0);
}

#[test]
fn limits_are_the_publications_own() {
    let mut host = Host::new();
    let number = NonZeroU32::new;
    let limits = Limits { max_sessions: number(3), rate: number(4), source_rate: number(5) };
    host.publications = vec![guarded(7, &[], &[], limits)];
    let desired = host.desired();
    let entry = desired.publications.values().next().expect("an entry");
    assert_eq!((entry.max_sessions, entry.rate, entry.source_rate), (3, 4, 5));
}

#[test]
fn rules_are_there_before_what_they_guard_and_go_after_it() {
    let mut host = Host::new();
    let open = host.desired();
    host.publications = vec![guarded(7, &["2001:db8::/32"], &[], Limits::default())];
    let guarded = host.desired();
    let steps = [Action::SetAccess, Action::SetPublications, Action::TidyAccess];
    assert_eq!(plan(&guarded, &open), steps);
    assert_eq!(plan(&open, &guarded), steps);
}

#[test]
fn sessions_are_counted_for_as_long_as_there_may_be_some() {
    let mut host = Host::new();
    let before = host.desired();
    assert_eq!(before.uses, [7].into());
    host.publications.clear();
    host.draining = vec![Draining {
        id: 7,
        targets: [TARGET].into(),
        ports: [(6, 8080u16.to_be_bytes())].into(),
        until: 0,
    }];
    let draining = host.desired();
    assert!(!plan(&draining, &before).contains(&Action::SetUses));
    host.draining.clear();
    let after = host.desired();
    assert!(after.uses.is_empty() && plan(&after, &draining).contains(&Action::SetUses));
}

#[test]
fn bans_are_rules_of_no_publication_and_are_looked_at_once_they_are_there() {
    let mut host = Host::new();
    let open = host.desired();
    host.bans.insert("2001:db8::/64".parse().unwrap(), 900);
    let banned = host.desired();
    let ban = Rule { verdict: verdict::DENY, until: 900 };
    assert_eq!(
        banned.access.clone().into_iter().collect::<Vec<_>>(),
        [(rule(0, "2001:db8::", 64), ban)]
    );
    let steps = [Action::SetAccess, Action::SetBans, Action::TidyAccess];
    assert_eq!(plan(&banned, &open), steps);
    assert_eq!(plan(&open, &banned), steps);
    assert!(plan(&banned, &banned).is_empty());
}
