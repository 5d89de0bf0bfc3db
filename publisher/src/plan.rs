//! What the datapath should be, and the steps from what it is: pure, so that it is tested without a
//! kernel.

mod access;
mod attach;
mod links;
mod path;
mod publications;
#[cfg(test)]
mod tests;

use crate::config::Mtu;
use crate::datapath::{AccessPrefix, Attachment, LocalPrefix};
use crate::model::{ClientPrefix, Publication};
use crate::topology::{ResolvedTarget, Snapshot, Unresolved};
use publisher_common::layout;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

pub use access::{ban_key, count as count_rules};
pub use links::LinkTable;
pub use path::{Way, is_held, way_of};
pub use publications::{Source, source_of};

/// What is known about each target.
pub type Resolutions = BTreeMap<Ipv4Addr, Result<ResolvedTarget, Unresolved>>;

/// A removed publication whose TCP sessions may go on for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draining {
    /// The publication's number.
    pub id: u32,
    /// Targets of its sessions.
    pub targets: BTreeSet<Ipv4Addr>,
    /// Protocol numbers and ports that its sessions came in by.
    pub ports: BTreeSet<(u8, [u8; 2])>,
    /// When the rest is ended, in seconds of the monotonic clock.
    pub until: u32,
}

/// What a plan is made from.
pub struct Facts<'a> {
    /// What is published.
    pub publications: &'a [Publication],
    /// Who is kept out of everything, and until when (0: for good).
    pub bans: &'a BTreeMap<ClientPrefix, u32>,
    /// What was published and isn't quiet yet.
    pub draining: &'a [Draining],
    /// The host's interfaces and addresses.
    pub snapshot: &'a Snapshot,
    /// The ways to the targets.
    pub resolutions: &'a Resolutions,
    /// MTUs that the configuration sets.
    pub mtu: &'a Mtu,
    /// Publications that the proxy serves alone, and whether they still have sessions in the kernel.
    pub proxied: &'a BTreeMap<u32, bool>,
    /// Publications whose ports are held by sockets of the proxy, and those of their ports that aren't.
    pub held: &'a BTreeMap<u32, BTreeSet<u16>>,
    /// Whether local processes can be served at the loopback interface.
    pub loopback: bool,
}

/// What the datapath should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Interfaces that clients arrive on.
    pub uplinks: BTreeMap<u32, layout::Uplink>,
    /// The host's own addresses.
    pub locals: Vec<LocalPrefix>,
    /// Container links by index.
    pub links: BTreeMap<u32, layout::Link>,
    /// Who may connect.
    pub access: BTreeMap<AccessPrefix, layout::Rule>,
    /// Whether there are rules that hold for all publications.
    pub has_bans: bool,
    /// Numbers of the publications whose sessions are counted.
    pub uses: BTreeSet<u32>,
    /// What is published.
    pub publications: BTreeMap<layout::PublicationKey, layout::Publication>,
    /// Ports of draining sessions: protocol number and port.
    pub draining: Vec<(u8, [u8; 2])>,
    /// Programs at interfaces.
    pub attachments: BTreeSet<Attachment>,
    /// Interface index of the slow lane's way in; 0 where there is none.
    pub slow_lane: u32,
}

impl Desired {
    /// Works out what the datapath should be; `table` remembers links and their generations.
    pub fn from_facts(facts: &Facts<'_>, table: &mut LinkTable) -> Self {
        let links = links::plan(facts, table);
        let lane = attach::slow_lane(facts);
        Self {
            slow_lane: lane.map_or(0, |lane| lane.entry),
            uplinks: attach::uplinks(facts),
            locals: attach::locals(facts.snapshot),
            access: access::plan(facts),
            has_bans: !facts.bans.is_empty(),
            uses: access::uses(facts),
            publications: publications::plan(facts, table),
            draining: publications::draining(facts),
            attachments: attach::attachments(facts, &links),
            links,
        }
    }
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Attach a program.
    Attach(Attachment),
    /// Set the table of uplinks.
    SetUplinks,
    /// Set the table of the host's addresses.
    SetLocals,
    /// Set one link.
    SetLink(u32),
    /// Write access rules: those that are missing, and those that say something else.
    SetAccess,
    /// Set whether rules that hold for all publications are looked at.
    SetBans,
    /// Make the counters of publications, and remove those of publications that are gone.
    SetUses,
    /// Set the tables of publications.
    SetPublications,
    /// Remove access rules that are no longer wanted.
    TidyAccess,
    /// Set the way into the slow lane.
    SetSlowLane,
    /// Detach a program.
    Detach(Attachment),
}

/// The steps from what was last applied to `desired`.
///
/// Replies can be handled before requests are: programs are attached first, links are set before what
/// is published on them, access rules before what they guard, and nothing is detached or removed before
/// it is out of use.
pub fn plan(desired: &Desired, applied: &Desired) -> Vec<Action> {
    let Desired {
        uplinks,
        locals,
        links,
        access,
        has_bans,
        uses,
        publications,
        draining,
        attachments,
        slow_lane,
    } = desired;
    let mut actions = Vec::new();
    let new = attachments.difference(&applied.attachments);
    actions.extend(new.cloned().map(Action::Attach));
    if *uplinks != applied.uplinks {
        actions.push(Action::SetUplinks);
    }
    if *locals != applied.locals {
        actions.push(Action::SetLocals);
    }
    let changed = links.iter().filter(|(index, link)| applied.links.get(index) != Some(link));
    actions.extend(changed.map(|(index, _)| Action::SetLink(*index)));
    if *access != applied.access {
        actions.push(Action::SetAccess);
    }
    if *has_bans != applied.has_bans {
        actions.push(Action::SetBans);
    }
    if *uses != applied.uses {
        actions.push(Action::SetUses);
    }
    if *publications != applied.publications || *draining != applied.draining {
        actions.push(Action::SetPublications);
    }
    if *access != applied.access {
        actions.push(Action::TidyAccess);
    }
    if *slow_lane != applied.slow_lane {
        actions.push(Action::SetSlowLane);
    }
    let old = applied.attachments.difference(attachments);
    actions.extend(old.cloned().map(Action::Detach));
    actions
}
