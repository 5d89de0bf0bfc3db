//! Access rules as the datapath's keys and values, and whose sessions are counted.

use super::Facts;
use crate::datapath::AccessPrefix;
use crate::model::{ClientPrefix, PublicationSpec};
use publisher_common::layout::{AccessKey, Rule, verdict};
use std::collections::{BTreeMap, BTreeSet};

/// All rules. Those of a publication end in one for whom no other matches.
pub(super) fn plan(facts: &Facts<'_>) -> BTreeMap<AccessPrefix, Rule> {
    let mut rules = BTreeMap::new();
    for publication in facts.publications {
        for (prefix, lets_in) in publication.spec.access().rules() {
            let verdict = if lets_in { verdict::ALLOW } else { verdict::DENY };
            rules.insert(key(publication.id, prefix), Rule { verdict, until: 0 });
        }
    }
    for (clients, until) in facts.bans {
        rules.insert(ban_key(*clients), Rule { verdict: verdict::DENY, until: *until });
    }
    rules
}

/// The key of a ban.
pub fn ban_key(clients: ClientPrefix) -> AccessPrefix {
    key(0, clients)
}

/// How many rules publications take.
pub fn count<'a>(specs: impl Iterator<Item = &'a PublicationSpec>) -> usize {
    specs.map(|spec| spec.access().rules().count()).sum()
}

/// The publications that have sessions, or may get some.
pub(super) fn uses(facts: &Facts<'_>) -> BTreeSet<u32> {
    let published = facts.publications.iter().map(|publication| publication.id);
    published.chain(facts.draining.iter().map(|draining| draining.id)).collect()
}

fn key(publication: u32, prefix: ClientPrefix) -> AccessPrefix {
    let bits = AccessKey::PUBLICATION_BITS + u32::from(prefix.bits());
    (bits, AccessKey::new(publication, prefix.address().octets()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_client_is_the_whole_key() {
        let client = "2001:db8::5".parse().unwrap();
        let (bits, key) = key(7, ClientPrefix::of(client, 128));
        assert_eq!(bits, AccessKey::BITS);
        assert_eq!(key, AccessKey { publication: [0, 0, 0, 7], client: client.octets() });
        assert_eq!(super::key(7, ClientPrefix::ALL).0, AccessKey::PUBLICATION_BITS);
    }
}
