//! What is counted about sessions, set right.
//!
//! The datapath counts established sessions of each publication and each /64 as they come and go. The
//! daemon counts those that it ends itself, and while it goes through the sessions it counts all of them.
//! Packets go on meanwhile, so a difference is believed only as far as two passes agree on it.

use super::error::DatapathError;
use super::hash::Write;
use super::pace::Pace;
use super::sessions::{Entry, Sessions, age, unreadable};
use publisher_common::layout::{Source, SourceKey, Use, names};
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash as Key;

/// How long an alias stays with its client after the client's last session, in seconds.
const ALIAS_KEPT: u32 = 3_600;
/// Differences that are kept from one pass to the next.
const DIFFERENCES: usize = 65_536;

/// What a pass counts.
#[derive(Default)]
pub struct Counts {
    publications: HashMap<u32, i64>,
    /// The publication of the last sessions, and how many of it came one after the other.
    run: (u32, i64),
    /// Sessions and aliases; only a thorough pass counts them.
    sources: Option<HashMap<SourceKey, (u32, u32)>>,
    pool: Pool,
    ended_uses: HashMap<u32, i64>,
    ended_sources: HashMap<SourceKey, i64>,
}

/// The aliases of the pool that established sessions use, a bit for each.
#[derive(Default)]
struct Pool {
    first: u32,
    used: Vec<u64>,
}

impl Pool {
    fn place(&self, address: [u8; 4]) -> Option<(usize, u64)> {
        let offset = u32::from_be_bytes(address).checked_sub(self.first)? as usize;
        (offset / 64 < self.used.len()).then(|| (offset / 64, 1 << (offset % 64)))
    }

    fn has(&self, address: [u8; 4]) -> bool {
        self.place(address).is_some_and(|(word, bit)| self.used[word] & bit != 0)
    }
}

impl Counts {
    /// Counts of a pass that also counts what each /64 has, and which aliases out of a pool are in use:
    /// `first` is the pool's first address, `mask` its network mask.
    #[must_use]
    pub fn thorough(first: [u8; 4], mask: [u8; 4]) -> Self {
        let addresses = !u32::from_be_bytes(mask) as usize + 1;
        Self {
            sources: Some(HashMap::new()),
            pool: Pool { first: u32::from_be_bytes(first), used: vec![0; addresses.div_ceil(64)] },
            ..Self::default()
        }
    }

    pub(super) fn established(&mut self, entry: &Entry) {
        // Neighbours are often of the same publication.
        let id = entry.session.publication.index;
        if id != self.run.0 {
            self.end_run();
            self.run.0 = id;
        }
        self.run.1 += 1;
        if let Some(sources) = &mut self.sources {
            sources.entry(SourceKey::of(&entry.forward)).or_default().0 += 1;
            if let Some((word, bit)) = self.pool.place(entry.reply.alias) {
                self.pool.used[word] |= bit;
            }
        }
    }

    fn end_run(&mut self) {
        let (id, count) = std::mem::take(&mut self.run);
        if count > 0 {
            *self.publications.entry(id).or_default() += count;
        }
    }

    /// The daemon has ended an established session.
    pub(super) fn end(&mut self, entry: &Entry) {
        *self.ended_uses.entry(entry.session.publication.index).or_default() += 1;
        *self.ended_sources.entry(SourceKey::of(&entry.forward)).or_default() += 1;
    }

    /// Takes what was ended off the maps' counts.
    pub(super) fn settle_ended(&mut self, sessions: &Sessions) {
        for (id, ended) in self.ended_uses.drain() {
            sessions.lower_use(id, ended);
        }
        for (key, ended) in self.ended_sources.drain() {
            sessions.lower_source(&key, ended, 0);
        }
    }
}

/// Differences between what the maps say and what was counted, as the last pass found them.
#[derive(Default)]
pub struct Differences {
    uses: HashMap<u32, i64>,
    sources: HashMap<SourceKey, (i64, i64)>,
}

/// What two passes agree on: nothing where they differ in sign.
const fn agreed(before: i64, now: i64) -> i64 {
    match (before > 0, before < 0, now > 0, now < 0) {
        (true, _, true, _) => {
            if before < now {
                before
            } else {
                now
            }
        }
        (_, true, _, true) => {
            if before > now {
                before
            } else {
                now
            }
        }
        _ => 0,
    }
}

fn note<K: Eq + Key, V>(differences: &mut HashMap<K, V>, key: K, value: V) {
    if differences.len() < DIFFERENCES {
        differences.insert(key, value);
    }
}

impl Sessions {
    /// Established sessions by publication, as the datapath counts them.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn uses(&self) -> Result<HashMap<u32, u64>, DatapathError> {
        let mut uses = HashMap::new();
        let read = self.0.uses.for_each(|id, found| {
            // Below 0 for a moment, where it was counted anew just then.
            uses.insert(*id, found.sessions.cast_signed().max(0).cast_unsigned());
        });
        read.map_err(unreadable(names::USES))?;
        Ok(uses)
    }

    /// Makes room for the counts of these publications, and forgets those of others.
    ///
    /// # Errors
    /// When the map can't be read or written.
    pub fn keep_uses(&self, ids: &BTreeSet<u32>) -> Result<(), DatapathError> {
        let mut gone = Vec::new();
        let mut present = BTreeSet::new();
        let read = self.0.uses.for_each(|id, _| match ids.contains(id) {
            true => drop(present.insert(*id)),
            false => gone.push(*id),
        });
        read.map_err(unreadable(names::USES))?;
        for id in gone {
            self.0.uses.remove(&id);
        }
        for id in ids.difference(&present) {
            match self.0.uses.insert(id, &Use::default(), Write::New) {
                Err(error) if error.raw_os_error() != Some(libc::EEXIST) => {
                    return Err(unreadable(names::USES)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Counts a session that the datapath has taken over uncounted.
    pub(super) fn count_adopted(&self, id: u32, source: &SourceKey) {
        let maps = &self.0;
        let one = Use { sessions: 1, ..Use::default() };
        if maps.uses.insert(&id, &one, Write::New).is_err() {
            self.lower_use(id, -1);
        }
        let one = Source { sessions: 1, aliases: 0 };
        if maps.sources.insert(source, &one, Write::New).is_err() {
            self.lower_source(source, -1, 0);
        }
    }

    fn lower_use(&self, id: u32, by: i64) {
        if let Some(mut found) = self.0.uses.get(&id) {
            found.sessions = found.sessions.wrapping_sub(by.cast_unsigned());
            // Where it has gone meanwhile, there is nothing to set right.
            let _ = self.0.uses.insert(&id, &found, Write::Existing);
        }
    }

    fn lower_source(&self, key: &SourceKey, sessions: i64, aliases: i64) {
        if let Some(mut found) = self.0.sources.get(key) {
            found.sessions = found.sessions.wrapping_sub(sessions.cast_unsigned());
            found.aliases = found.aliases.wrapping_sub(aliases.cast_unsigned());
            let _ = self.0.sources.insert(key, &found, Write::Existing);
        }
    }

    /// Sets the maps' counts right by what a pass has counted, and gives back aliases that nobody has
    /// used for an hour. Returns how many aliases are bound.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn correct(
        &self,
        mut counts: Counts,
        differences: &mut Differences,
        now: u32,
        pace: &mut Pace,
    ) -> Result<u64, DatapathError> {
        counts.end_run();
        self.correct_uses(&counts, differences)?;
        let Counts { sources: Some(mut sources), pool, .. } = counts else {
            return self.count_aliases();
        };
        let aliases = self.keep_aliases(now, &pool, &mut sources, pace)?;
        self.correct_sources(sources, differences, pace)?;
        Ok(aliases)
    }

    fn count_aliases(&self) -> Result<u64, DatapathError> {
        let mut bound = 0;
        self.0.aliases.for_each(|_, _| bound += 1).map_err(unreadable(names::ALIASES))?;
        Ok(bound)
    }

    fn correct_uses(
        &self,
        counts: &Counts,
        differences: &mut Differences,
    ) -> Result<(), DatapathError> {
        let before = std::mem::take(&mut differences.uses);
        let mut wrong = Vec::new();
        let read = self.0.uses.for_each(|id, found| {
            let counted = counts.publications.get(id).copied().unwrap_or(0);
            let mut difference = found.sessions.cast_signed().wrapping_sub(counted);
            let by = agreed(before.get(id).copied().unwrap_or(0), difference);
            if by != 0 {
                wrong.push((*id, by));
                difference -= by;
            }
            if difference != 0 {
                note(&mut differences.uses, *id, difference);
            }
        });
        read.map_err(unreadable(names::USES))?;
        for (id, by) in wrong {
            self.lower_use(id, by);
        }
        Ok(())
    }

    fn correct_sources(
        &self,
        mut counted: HashMap<SourceKey, (u32, u32)>,
        differences: &mut Differences,
        pace: &mut Pace,
    ) -> Result<(), DatapathError> {
        let before = std::mem::take(&mut differences.sources);
        let mut reader = self.0.sources.reader();
        while let Some((keys, values)) = reader.next_chunk().map_err(unreadable(names::SOURCES))? {
            for (key, found) in keys.iter().zip(values) {
                let (sessions, aliases) = counted.remove(key).unwrap_or_default();
                if (found.sessions, found.aliases, sessions, aliases) == (0, 0, 0, 0) {
                    self.0.sources.remove(key);
                    continue;
                }
                let (s, a) = (
                    found.sessions.cast_signed().wrapping_sub(sessions.into()),
                    found.aliases.cast_signed().wrapping_sub(aliases.into()),
                );
                let (old_s, old_a) = before.get(key).copied().unwrap_or_default();
                let by = (agreed(old_s, s), agreed(old_a, a));
                if by != (0, 0) {
                    self.lower_source(key, by.0, by.1);
                }
                if (s - by.0, a - by.1) != (0, 0) {
                    note(&mut differences.sources, *key, (s - by.0, a - by.1));
                }
            }
            pace.rest();
        }
        for (key, (sessions, aliases)) in counted {
            let missing = Source { sessions: sessions.into(), aliases: aliases.into() };
            // Where the datapath has just made one, or the table is full, it stays as it is.
            let _ = self.0.sources.insert(&key, &missing, Write::New);
        }
        Ok(())
    }

    /// Counts aliases by /64, notes which are in use, and gives back those that haven't been for long.
    fn keep_aliases(
        &self,
        now: u32,
        pool: &Pool,
        sources: &mut HashMap<SourceKey, (u32, u32)>,
        pace: &mut Pace,
    ) -> Result<u64, DatapathError> {
        let mut bound = 0;
        let mut reader = self.0.aliases.reader();
        while let Some((keys, values)) = reader.next_chunk().map_err(unreadable(names::ALIASES))? {
            for (address, alias) in keys.iter().zip(values) {
                if pool.has(*address) {
                    let mut seen = *alias;
                    seen.last_seen = now;
                    let _ = self.0.aliases.insert(address, &seen, Write::Existing);
                } else if age(now, alias.last_seen) > ALIAS_KEPT && self.0.aliases.remove(address) {
                    continue;
                }
                let [a, b, c, d, e, f, g, h, ..] = alias.client;
                let key = SourceKey {
                    prefix: [a, b, c, d, e, f, g, h],
                    scope: alias.scope,
                    reserved: [0; 4],
                };
                sources.entry(key).or_default().1 += 1;
                bound += 1;
            }
            pace.rest();
        }
        Ok(bound)
    }
}

#[cfg(test)]
#[path = "counts_tests.rs"]
mod tests;
