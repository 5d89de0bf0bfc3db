//! Whether a client may open a session: access rules, then limits. What is refused is counted under
//! its reason, and costs others nothing.

use super::Workspace;
use crate::layout::{
    AccessKey, RateKey, Source, SourceKey, Window, config_flags, publication_flags,
};
use crate::reason::Reason;
use crate::tables::Tables;

/// Finds out whether the client of `work.flow` may open one more session of `work.publication`:
/// `work.may_open`, or else `work.refusal`. In memory rather than as a value, whose every case would be
/// followed by the verifier through all that comes later.
#[inline(never)]
pub(super) fn look<T: Tables>(work: &mut Workspace, tables: &mut T) {
    work.may_open = match refusal(work, tables) {
        Some(reason) => {
            work.refusal = reason;
            false
        }
        None => true,
    };
}

#[inline(always)]
fn refusal<T: Tables>(work: &Workspace, tables: &mut T) -> Option<Reason> {
    let Workspace { flow, publication, arrival, .. } = work;
    let config = tables.config()?;
    if config.has(config_flags::BANS)
        && let Some(rule) = tables.access(&AccessKey::new(0, flow.client))
        && rule.denies(arrival.now)
    {
        return Some(Reason::Denied);
    }
    if publication.flags & publication_flags::ACCESS != 0 {
        let key = AccessKey::new(publication.handle.index, flow.client);
        if tables.access(&key).is_none_or(|rule| rule.denies(arrival.now)) {
            return Some(Reason::Denied);
        }
    }
    if let Some(reason) = over_limit(work, tables) {
        return Some(reason);
    }
    let number = publication.handle.index;
    if publication.rate != 0
        && let Some(found) = tables.usage(number)
        && is_used_up(&found.opened, arrival.now, publication.rate)
    {
        return Some(Reason::Rate);
    }
    if publication.source_rate != 0
        && let Some(window) = tables.rate(&rate_key(work))
        && is_used_up(window, arrival.now, publication.source_rate)
    {
        return Some(Reason::SourceRate);
    }
    None
}

const fn is_used_up(window: &Window, now: u32, limit: u32) -> bool {
    window.second == now && window.count >= limit
}

#[inline(always)]
fn rate_key(work: &Workspace) -> RateKey {
    let SourceKey { prefix, scope, .. } = SourceKey::of(&work.flow);
    RateKey { prefix, scope, publication: work.publication.handle.index }
}

/// Why `work.publication` or the client's /64 may have no more established sessions.
#[inline(always)]
pub(super) fn over_limit<T: Tables>(work: &Workspace, tables: &mut T) -> Option<Reason> {
    let Workspace { flow, publication, .. } = work;
    let limit = publication.max_sessions;
    if limit != 0
        && tables
            .usage(publication.handle.index)
            .is_some_and(|found| reaches(found.sessions, limit))
    {
        return Some(Reason::SessionLimit);
    }
    let limit = tables.config()?.sessions_per_source;
    if limit != 0
        && tables.source(&SourceKey::of(flow)).is_some_and(|found| reaches(found.sessions, limit))
    {
        return Some(Reason::SourceLimit);
    }
    None
}

/// Counts a session that was opened just now for the rates.
#[inline(never)]
pub(super) fn count_opened<T: Tables>(work: &Workspace, tables: &mut T) {
    let Workspace { publication, arrival, .. } = work;
    if publication.rate != 0
        && let Some(found) = tables.usage(publication.handle.index)
    {
        let _ = found.opened.take(arrival.now, u32::MAX);
    }
    if publication.source_rate != 0 {
        let key = rate_key(work);
        if let Some(window) = tables.rate(&key) {
            let _ = window.take(arrival.now, u32::MAX);
        } else {
            tables.insert_rate(&key, &Window { second: arrival.now, count: 1 });
        }
    }
}

/// A session of `work.flow` has become established.
#[inline(never)]
pub(super) fn count_up<T: Tables>(publication: u32, work: &Workspace, tables: &mut T) {
    if let Some(found) = tables.usage(publication) {
        T::add(&mut found.sessions, 1);
    }
    let key = SourceKey::of(&work.flow);
    let first = Source { sessions: 1, aliases: 0 };
    if tables.source(&key).is_none() && tables.insert_source(&key, &first) {
        return;
    }
    if let Some(found) = tables.source(&key) {
        T::add(&mut found.sessions, 1);
    }
}

/// An alias was bound to the client of `work.flow`.
#[inline(always)]
pub(super) fn count_alias<T: Tables>(work: &Workspace, tables: &mut T) {
    if let Some(found) = tables.source(&SourceKey::of(&work.flow)) {
        T::add(&mut found.aliases, 1);
    }
}

/// A session of `work.flow` is established no more.
#[inline(never)]
pub(super) fn count_down<T: Tables>(publication: u32, work: &Workspace, tables: &mut T) {
    if let Some(found) = tables.usage(publication) {
        T::add(&mut found.sessions, u64::MAX);
    }
    if let Some(found) = tables.source(&SourceKey::of(&work.flow)) {
        T::add(&mut found.sessions, u64::MAX);
    }
}

/// Whether the client's /64 may have one more alias for one of its clients alone, with `more` 0, or with
/// `more` beyond that for all of them.
#[inline(never)]
pub(super) fn may_bind<T: Tables>(more: u32, work: &Workspace, tables: &mut T) -> bool {
    let share = tables.config().map_or(0, |config| config.aliases_per_source);
    share == 0
        || tables
            .source(&SourceKey::of(&work.flow))
            .is_none_or(|found| !reaches(found.aliases, share.saturating_add(more)))
}

/// Whether a number that all CPUs change has reached a limit. Where the daemon has counted anew at the
/// same moment, it may be below 0 for a while.
#[inline(always)]
const fn reaches(number: u64, limit: u32) -> bool {
    limit as u64 <= number && number <= u64::MAX / 2
}
