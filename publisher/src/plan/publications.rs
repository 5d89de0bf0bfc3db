//! Publications as the datapath's keys and values: one entry per port.

use super::{Facts, LinkTable};
use crate::model::{HostAddress, Limits, PathMode, Publication, SourceMode};
use crate::topology::{AliasRoute, ResolvedTarget, Snapshot, Unresolved};
use publisher_common::layout::{self, Handle, PublicationKey, publication_flags, source_mode};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// The source that a container sees, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An alias for each client.
    Alias,
    /// The container link's own address, for this reason.
    Gateway(String),
}

/// The source for a publication's sessions. `auto` is alias, unless the container's replies to an
/// alias wouldn't come back.
pub fn source_of(mode: SourceMode, resolved: &ResolvedTarget) -> Source {
    match (mode, &resolved.alias_route) {
        (SourceMode::Gateway, _) => Source::Gateway("asked for".into()),
        (SourceMode::Auto, AliasRoute::Elsewhere { reason }) if resolved.gateway.is_some() => {
            Source::Gateway(reason.clone())
        }
        _ => Source::Alias,
    }
}

/// All entries.
pub(super) fn plan(
    facts: &Facts<'_>,
    table: &LinkTable,
) -> BTreeMap<PublicationKey, layout::Publication> {
    let mut entries = BTreeMap::new();
    for publication in facts.publications {
        if facts.proxied.contains_key(&publication.id) {
            continue;
        }
        let missing = facts.held.get(&publication.id);
        let spec = &publication.spec;
        let Some(link) = table.index(spec.target()) else { continue };
        let source = match facts.resolutions.get(&spec.target()) {
            Some(Ok(resolved)) => source_of(spec.source(), resolved),
            Some(Err(Unresolved { .. })) | None => Source::Alias,
        };
        let Some((host, scope)) = host_key(spec.host(), facts.snapshot) else { continue };
        for port in spec.ports().iter() {
            let Some(target_port) = spec.target_port(port) else { continue };
            let key = PublicationKey {
                host,
                scope,
                port: port.to_be_bytes(),
                protocol: spec.protocol().number(),
                reserved: 0,
            };
            let is_held = missing.is_some_and(|missing| !missing.contains(&port));
            let past_bound = is_held || spec.path() == PathMode::Kernel;
            entries.insert(key, entry(publication, target_port, &source, link, past_bound));
        }
    }
    entries
}

/// Ports of sessions that go on although they couldn't be opened now: protocol number and port.
pub(super) fn draining(facts: &Facts<'_>) -> Vec<(u8, [u8; 2])> {
    let removed = facts.draining.iter().flat_map(|draining| draining.ports.iter().copied());
    let is_left = |it: &&Publication| facts.proxied.get(&it.id).is_some_and(|is_busy| *is_busy);
    let left = facts.publications.iter().filter(is_left).flat_map(|publication| {
        let spec = &publication.spec;
        spec.ports().iter().map(|port| (spec.protocol().number(), port.to_be_bytes()))
    });
    removed.chain(left).collect()
}

fn entry(
    publication: &Publication,
    target_port: u16,
    source: &Source,
    link: u32,
    past_bound: bool,
) -> layout::Publication {
    let mut flags = 0;
    if past_bound {
        flags |= publication_flags::PAST_BOUND;
    }
    let spec = &publication.spec;
    if !spec.access().is_open() {
        flags |= publication_flags::ACCESS;
    }
    let Limits { max_sessions, rate, source_rate } = spec.limits();
    let number = |limit: Option<NonZeroU32>| limit.map_or(0, NonZeroU32::get);
    layout::Publication {
        handle: Handle { index: publication.id, generation: publication.generation },
        target: spec.target().octets(),
        target_port: target_port.to_be_bytes(),
        source: match source {
            Source::Alias => source_mode::ALIAS,
            Source::Gateway(_) => source_mode::GATEWAY,
        },
        flags,
        link,
        max_sessions: number(max_sessions),
        rate: number(rate),
        source_rate: number(source_rate),
        reserved: [0; 8],
    }
}

/// The address of a publication's host side and its interface; `None` where that isn't there.
fn host_key(host: &HostAddress, snapshot: &Snapshot) -> Option<([u8; 16], u32)> {
    let octets = host.address().octets();
    match host.scope() {
        None => Some((octets, 0)),
        Some(name) => {
            let link = snapshot.links.values().find(|link| link.name == name)?;
            Some((octets, link.ifindex))
        }
    }
}
