//! Publications that were removed: UDP ends at once, TCP may go on for a while.

use super::clock;
use crate::datapath::{Datapath, DatapathError, Entry};
use crate::model::Publication;
use crate::plan::Draining;
use publisher_common::layout::Timeouts;
use publisher_common::wire::protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Takes stock of the sessions of publications that aren't there: after `rm`, or found at start.
pub(super) fn collect(
    sessions: &[Entry],
    publications: &[Publication],
    known: &[Draining],
    until: u32,
) -> Vec<Draining> {
    let mut draining: BTreeMap<u32, Draining> =
        known.iter().map(|entry| (entry.id, entry.clone())).collect();
    let kept: BTreeSet<u32> = publications.iter().map(|publication| publication.id).collect();
    let orphans = sessions
        .iter()
        .filter(|entry| entry.class.is_none() && entry.reply.protocol == protocol::TCP)
        .filter(|entry| !kept.contains(&entry.session.publication.index));
    for entry in orphans {
        let id = entry.session.publication.index;
        let found = draining.entry(id).or_insert_with(|| Draining {
            id,
            targets: BTreeSet::new(),
            ports: BTreeSet::new(),
            until,
        });
        found.targets.insert(Ipv4Addr::from(entry.reply.target));
        found.ports.insert((entry.forward.protocol, entry.forward.host_port));
    }
    draining.into_values().collect()
}

/// Ends what has had its time: idle sessions, those of links and publications that are gone, and
/// draining ones when their time is over. Returns the publications that still drain.
pub(super) fn sweep(
    datapath: &mut Datapath,
    publications: &[Publication],
    draining: &[Draining],
    timeouts: &Timeouts,
) -> Result<Vec<Draining>, DatapathError> {
    let now = clock::now();
    let kept: BTreeSet<u32> = publications.iter().map(|publication| publication.id).collect();
    let may_drain: BTreeSet<u32> = draining
        .iter()
        .filter(|entry| clock::seconds_since(entry.until, now) == 0)
        .map(|entry| entry.id)
        .collect();
    let links = datapath.tables().links()?;
    let mut busy = BTreeSet::new();
    datapath.tables().sweep(now, timeouts, |entry| {
        let link = entry.session.link;
        let generation = links.get(&link.index).map(|link| link.generation);
        let id = entry.session.publication.index;
        let drains = may_drain.contains(&id) && entry.reply.protocol == protocol::TCP;
        let ends = generation != Some(link.generation) || !(kept.contains(&id) || drains);
        if !ends && !kept.contains(&id) && entry.class.is_none() {
            busy.insert(id);
        }
        ends
    })?;
    let left = draining.iter().filter(|entry| busy.contains(&entry.id));
    Ok(left.cloned().collect())
}
