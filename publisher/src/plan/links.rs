//! Container links: one per target address, with a generation that ends sessions when it is raised.

use super::Facts;
use crate::topology::{ResolvedTarget, Snapshot};
use publisher_common::layout::{LINKS, Link, link_flags};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Which target has which index, and what its link was last.
///
/// It is read back from the pinned map at start, so that generations go on where they were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkTable {
    links: BTreeMap<u32, Link>,
    indices: BTreeMap<Ipv4Addr, u32>,
}

impl LinkTable {
    /// The table of the links that a datapath holds.
    pub fn new(links: BTreeMap<u32, Link>) -> Self {
        let indices = links.iter().map(|(index, link)| (link.target.into(), *index)).collect();
        Self { links, indices }
    }

    /// The index of a target's link.
    pub fn index(&self, target: Ipv4Addr) -> Option<u32> {
        self.indices.get(&target).copied()
    }

    /// A target's link as it was last planned.
    pub fn link(&self, target: Ipv4Addr) -> Option<&Link> {
        self.links.get(&self.index(target)?)
    }

    /// A link by its index.
    pub fn by_index(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// The index of a target's link, given to it now if need be. An index is taken from a target that
    /// is no longer in use only when none is free.
    fn assign(&mut self, target: Ipv4Addr, in_use: &BTreeSet<Ipv4Addr>) -> Option<u32> {
        if let Some(index) = self.index(target) {
            return Some(index);
        }
        let index = match (0..LINKS).find(|index| !self.links.contains_key(index)) {
            Some(index) => index,
            None => {
                let (old, index) = self.indices.iter().find(|(old, _)| !in_use.contains(old))?;
                let (old, index) = (*old, *index);
                self.indices.remove(&old);
                index
            }
        };
        let generation = self.links.get(&index).map_or(0, |link| link.generation);
        let link = Link {
            generation: generation.wrapping_add(1).max(1),
            target: target.octets(),
            ..Link::default()
        };
        self.links.insert(index, link);
        self.indices.insert(target, index);
        Some(index)
    }
}

/// The links of all targets in use; those of other targets are taken down.
pub(super) fn plan(facts: &Facts<'_>, table: &mut LinkTable) -> BTreeMap<u32, Link> {
    let in_use: BTreeSet<Ipv4Addr> = facts
        .publications
        .iter()
        .map(|publication| publication.spec.target())
        .chain(facts.draining.iter().flat_map(|draining| draining.targets.iter().copied()))
        .collect();
    for target in &in_use {
        table.assign(*target, &in_use);
    }
    for link in table.links.values_mut() {
        let target = Ipv4Addr::from(link.target);
        *link = match facts.resolutions.get(&target) {
            Some(Ok(resolved)) if in_use.contains(&target) => up(link, resolved, facts),
            _ if !in_use.contains(&target) || !still_there(link, facts.snapshot) => {
                down(link, facts.snapshot)
            }
            // The container doesn't answer, but its link is as it was: it may be paused.
            _ => *link,
        };
    }
    table.links.clone()
}

/// The link of a target that is reachable. Sessions go on if it is the same container by the same
/// link; that its veth has become known changes nothing for them.
fn up(before: &Link, resolved: &ResolvedTarget, facts: &Facts<'_>) -> Link {
    let veth = resolved.veth.as_ref().map_or(0, |veth| veth.ifindex);
    let peer = veth != 0 && resolved.peer.is_ok();
    let device = resolved.device.ifindex;
    let mac = resolved.mac.unwrap_or_default();
    let same = before.device == 0
        || before.device == device
            && (before.mac == mac || before.mac == [0; 6])
            && (before.veth == veth || before.veth == 0);
    Link {
        generation: if same { before.generation } else { before.generation.wrapping_add(1).max(1) },
        flags: link_flags::UP | if peer { link_flags::PEER } else { 0 },
        veth,
        device,
        target: before.target,
        gateway: resolved.gateway.map_or([0; 4], |gateway| gateway.octets()),
        mac,
        device_mac: facts.snapshot.links.get(&device).and_then(|link| link.mac).unwrap_or_default(),
        mtu: facts.mtu.ipv4.unwrap_or(resolved.mtu),
        reserved: [0; 16],
    }
}

/// Whether the interfaces that a link goes by are there and up.
fn still_there(link: &Link, snapshot: &Snapshot) -> bool {
    let is_up = |ifindex: u32| snapshot.links.get(&ifindex).is_some_and(|found| found.is_up());
    link.flags & link_flags::UP != 0 && is_up(link.device) && link.veth != 0 && is_up(link.veth)
}

/// A link that can't be used. Where its veth is gone, so is the container: its sessions end.
fn down(before: &Link, snapshot: &Snapshot) -> Link {
    let gone = before.veth != 0 && !snapshot.links.contains_key(&before.veth);
    let mut link = Link { flags: 0, ..*before };
    if gone {
        link.generation = before.generation.wrapping_add(1).max(1);
        (link.veth, link.device, link.mac) = (0, 0, [0; 6]);
    }
    link
}
