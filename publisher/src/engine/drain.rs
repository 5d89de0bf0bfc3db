//! Publications that were removed: UDP ends at once, TCP may go on for a while.

use super::clock;
use crate::datapath::{DatapathError, EndReason, Entry, Sessions};
use crate::model::Publication;
use crate::plan::Draining;
use publisher_common::layout::{Link, Timeouts};
use publisher_common::wire::protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Takes stock of the sessions of publications that aren't there: after `rm`, or found at start.
pub(super) fn collect(
    sessions: &Sessions,
    kept: &BTreeSet<u32>,
    known: &[Draining],
    until: u32,
) -> Result<Vec<Draining>, DatapathError> {
    let mut draining: BTreeMap<u32, Draining> =
        known.iter().map(|entry| (entry.id, entry.clone())).collect();
    let is_orphan = |entry: &Entry| {
        entry.class.is_none()
            && entry.reply.protocol == protocol::TCP
            && !kept.contains(&entry.session.publication.index)
    };
    sessions.each(clock::now(), &Timeouts::default(), is_orphan, |entry| {
        let id = entry.session.publication.index;
        let found = draining.entry(id).or_insert_with(|| Draining {
            id,
            targets: BTreeSet::new(),
            ports: BTreeSet::new(),
            until,
        });
        found.targets.insert(Ipv4Addr::from(entry.reply.target));
        found.ports.insert((entry.forward.protocol, entry.forward.host_port));
    })?;
    Ok(draining.into_values().collect())
}

/// The numbers of what is published.
pub(super) fn ids(publications: &[Publication]) -> BTreeSet<u32> {
    publications.iter().map(|publication| publication.id).collect()
}

/// Which sessions must end whatever their age: those of links and publications that are gone, and draining
/// ones when their time is over.
pub(super) struct Ends {
    /// Generations by link.
    links: BTreeMap<u32, u32>,
    kept: BTreeSet<u32>,
    may_drain: BTreeSet<u32>,
    killed: BTreeSet<u32>,
    /// Publications that still drain, as far as seen.
    busy: BTreeSet<u32>,
}

impl Ends {
    pub(super) fn new(
        links: &BTreeMap<u32, Link>,
        publications: &[Publication],
        draining: &[Draining],
        killed: BTreeSet<u32>,
    ) -> Self {
        let now = clock::now();
        let may_drain = draining.iter().filter(|entry| !is_over(entry, now));
        Self {
            links: links.iter().map(|(index, link)| (*index, link.generation)).collect(),
            kept: ids(publications),
            may_drain: may_drain.map(|entry| entry.id).collect(),
            killed,
            busy: BTreeSet::new(),
        }
    }

    /// Why a session must end.
    pub(super) fn reason(&mut self, entry: &Entry) -> Option<EndReason> {
        let link = entry.session.link;
        let id = entry.session.publication.index;
        if self.links.get(&link.index) != Some(&link.generation) {
            return Some(EndReason::TargetGone);
        }
        if self.kept.contains(&id) {
            return None;
        }
        if self.may_drain.contains(&id) && entry.reply.protocol == protocol::TCP {
            if entry.class.is_none() {
                self.busy.insert(id);
            }
            return None;
        }
        Some(if self.killed.contains(&id) { EndReason::Killed } else { EndReason::Removed })
    }

    /// Those that still drain.
    pub(super) fn left(&self, draining: &[Draining]) -> Vec<Draining> {
        draining.iter().filter(|entry| self.busy.contains(&entry.id)).cloned().collect()
    }
}

/// Whether a publication's time to drain is over.
pub(super) fn is_over(draining: &Draining, now: u32) -> bool {
    clock::seconds_since(draining.until, now) > 0
}
