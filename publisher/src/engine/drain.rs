//! Publications that were removed: UDP ends at once, TCP may go on for a while.

use super::clock;
use crate::datapath::{DatapathError, EndReason, Entry, Sessions};
use crate::model::{ClientPrefix, Publication};
use crate::plan::Draining;
use crate::store::State;
use publisher_common::layout::{Link, Timeouts};
use publisher_common::wire::protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

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

/// What somebody has asked for to end.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// Publications that were removed with their sessions.
    pub killed: BTreeSet<u32>,
    /// Clients that were banned.
    pub denied: Vec<ClientPrefix>,
}

/// Which sessions must end whatever their age: those of links and publications that are gone, and draining
/// ones when their time is over.
pub(super) struct Ends {
    /// Generations by link.
    links: BTreeMap<u32, u32>,
    kept: BTreeSet<u32>,
    /// The number of the next publication.
    next_id: u32,
    may_drain: BTreeSet<u32>,
    /// Those whose time to drain is over.
    drained: BTreeSet<u32>,
    asked: Asked,
    /// Publications that still drain, as far as seen.
    busy: BTreeSet<u32>,
}

impl Ends {
    pub(super) fn new(
        links: &BTreeMap<u32, Link>,
        state: &State,
        draining: &[Draining],
        asked: Asked,
    ) -> Self {
        let now = clock::now();
        let (drained, may_drain): (Vec<_>, Vec<_>) =
            draining.iter().partition(|entry| is_over(entry, now));
        Self {
            links: links.iter().map(|(index, link)| (*index, link.generation)).collect(),
            kept: ids(state.publications()),
            next_id: state.next_id(),
            may_drain: may_drain.iter().map(|entry| entry.id).collect(),
            drained: drained.iter().map(|entry| entry.id).collect(),
            asked,
            busy: BTreeSet::new(),
        }
    }

    /// Why a session must end.
    pub(super) fn reason(&mut self, entry: &Entry) -> Option<EndReason> {
        let link = entry.session.link;
        let id = entry.session.publication.index;
        if !self.asked.denied.is_empty() {
            let client = Ipv6Addr::from(entry.forward.client);
            if self.asked.denied.iter().any(|prefix| prefix.contains(client)) {
                return Some(EndReason::Denied);
            }
        }
        // A link or a publication that is newer than what is known here came while the sessions were read.
        if self.links.get(&link.index).is_some_and(|now| is_older(link.generation, *now)) {
            return Some(EndReason::TargetGone);
        }
        if self.kept.contains(&id) || (id >= self.next_id && !self.drained.contains(&id)) {
            return None;
        }
        if self.may_drain.contains(&id) && entry.reply.protocol == protocol::TCP {
            if entry.class.is_none() {
                self.busy.insert(id);
            }
            return None;
        }
        Some(if self.asked.killed.contains(&id) { EndReason::Killed } else { EndReason::Removed })
    }

    /// Whether sessions of a publication have been seen that still drain.
    pub(super) fn is_busy(&self, draining: &Draining) -> bool {
        self.busy.contains(&draining.id)
    }
}

/// Whether a generation came before another one.
const fn is_older(generation: u32, than: u32) -> bool {
    let ahead = than.wrapping_sub(generation);
    ahead != 0 && ahead <= u32::MAX / 2
}

/// Whether a publication's time to drain is over.
pub(super) fn is_over(draining: &Draining, now: u32) -> bool {
    clock::seconds_since(draining.until, now) > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use publisher_common::layout::State as SessionState;
    use publisher_common::layout::{ForwardKey, Handle, ReplyKey, Session, Usage};

    fn entry(publication: u32, link: Handle, number: u8) -> Entry {
        Entry {
            forward: ForwardKey {
                client: [0; 16],
                host: [0; 16],
                client_port: [0; 2],
                host_port: [0; 2],
                scope: 0,
                protocol: number,
                origin: 0,
                reserved: [0; 2],
            },
            reply: ReplyKey {
                target: [0; 4],
                alias: [0; 4],
                target_port: [0; 2],
                alias_port: [0; 2],
                protocol: number,
                reserved: [0; 3],
            },
            session: Session {
                link,
                publication: Handle { index: publication, generation: 1 },
                uplink: 0,
                created: 0,
                container_isn: 0,
                state: SessionState::ESTABLISHED,
                flags: 0,
                reserved: [0; 2],
            },
            sent: Usage::default(),
            received: Usage::default(),
            last_seen: 0,
            class: None,
        }
    }

    fn draining(id: u32, until: u32) -> Draining {
        Draining { id, targets: BTreeSet::new(), ports: BTreeSet::new(), until }
    }

    #[test]
    fn what_is_newer_than_what_is_known_goes_on() {
        let now = clock::now();
        let link = Link { generation: 5, ..Link::default() };
        let mut state = State::default();
        for port in 1..=3 {
            let spec = crate::model::PublicationSpec::new(
                format!("808{port}").parse().unwrap(),
                "172.17.0.2:80".parse().unwrap(),
                crate::model::SourceMode::Auto,
            );
            state.add(spec.unwrap()).unwrap();
        }
        let (one, two, three) = (1, 2, 3);
        state.remove(two).unwrap();
        state.remove(three).unwrap();
        let known = [draining(two, now + 100)];
        let asked = Asked { killed: BTreeSet::from([three]), ..Asked::default() };
        let mut ends = Ends::new(&BTreeMap::from([(0, link)]), &state, &known, asked);
        let same = Handle { index: 0, generation: 5 };
        for (publication, link, number, reason) in [
            (one, same, protocol::TCP, None),
            (one, Handle { generation: 4, ..same }, protocol::TCP, Some(EndReason::TargetGone)),
            (one, Handle { generation: 6, ..same }, protocol::TCP, None),
            (one, Handle { index: 9, generation: 1 }, protocol::TCP, None),
            (two, same, protocol::TCP, None),
            (two, same, protocol::UDP, Some(EndReason::Removed)),
            (three, same, protocol::TCP, Some(EndReason::Killed)),
            (4, same, protocol::TCP, None),
        ] {
            let found = ends.reason(&entry(publication, link, number));
            assert_eq!(found, reason, "{publication} {link:?} {number}");
        }
        assert!(ends.is_busy(&known[0]) && !ends.is_busy(&draining(three, 0)));
    }
}
