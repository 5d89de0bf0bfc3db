//! Sessions as the daemon sees them: reading them, and ending those that have had their time.

use super::error::DatapathError;
use super::tables::{Tables, failed};
use aya::maps::MapError;
use publisher_common::layout::{
    Alias, Class, ForwardKey, ReplyKey, Session, Timeouts, Usage, names,
};
use publisher_common::wire::protocol;
use std::collections::BTreeSet;

/// How long an alias stays with its client after the client's last session, in seconds.
const ALIAS_KEPT: u32 = 3_600;

/// A session, both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The client's flow.
    pub forward: ForwardKey,
    /// The container's flow.
    pub reply: ReplyKey,
    /// What both directions know.
    pub session: Session,
    /// What the client has sent.
    pub sent: Usage,
    /// What the container has sent.
    pub received: Usage,
    /// When either direction last carried a packet, in seconds of the monotonic clock.
    pub last_seen: u32,
    /// The table it is in, if it isn't established.
    pub class: Option<Class>,
}

/// What a sweep has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Sessions that were idle for too long.
    pub idle: u64,
    /// Sessions that were to be ended.
    pub ended: u64,
    /// Aliases that were given back.
    pub aliases: u64,
}

impl Tables {
    /// All sessions.
    ///
    /// The tables change while they are read: a session may be missed, or seen as it was a moment
    /// ago.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn sessions(&self) -> Result<Vec<Entry>, DatapathError> {
        let mut entries = Vec::new();
        for item in self.forward.iter() {
            let Some((key, forward)) = present(item).map_err(failed(names::FORWARD))? else {
                continue;
            };
            // Its other half may just have gone.
            let Ok(reverse) = self.reverse.get(&forward.reply, 0) else { continue };
            entries.push(Entry {
                forward: key,
                reply: forward.reply,
                session: forward.session,
                sent: forward.usage,
                received: reverse.usage,
                last_seen: later(forward.last_seen, reverse.last_seen),
                class: None,
            });
        }
        for (class, map, name) in [
            (Class::HalfOpen, &self.half_open, names::HALF_OPEN),
            (Class::Closing, &self.closing, names::CLOSING),
        ] {
            for item in map.iter() {
                let Some((key, value)) = present(item).map_err(failed(name))? else { continue };
                entries.push(Entry {
                    forward: value.forward,
                    reply: key,
                    session: value.session,
                    sent: value.sent,
                    received: value.received,
                    last_seen: value.last_seen,
                    class: Some(class),
                });
            }
        }
        Ok(entries)
    }

    /// Ends sessions that have been idle for too long, and those that `ends` says must end; gives
    /// back aliases that nobody has used for an hour.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn sweep(
        &mut self,
        now: u32,
        timeouts: &Timeouts,
        mut ends: impl FnMut(&Entry) -> bool,
    ) -> Result<Ended, DatapathError> {
        let mut done = Ended::default();
        let mut used = BTreeSet::new();
        for entry in self.sessions()? {
            if ends(&entry) {
                self.end(&entry);
                done.ended += 1;
            } else if age(now, entry.last_seen) > timeout(&entry, timeouts) && !self.revived(&entry)
            {
                self.end(&entry);
                done.idle += 1;
            } else if entry.class.is_none() {
                used.insert(entry.reply.alias);
            }
        }
        done.aliases = self.keep_aliases(now, &used)?;
        Ok(done)
    }

    /// Takes a session out of its table.
    fn end(&mut self, entry: &Entry) {
        // What is gone already needs no ending.
        match entry.class {
            None => {
                let _ = self.forward.remove(&entry.forward);
                let _ = self.reverse.remove(&entry.reply);
            }
            Some(Class::HalfOpen) => {
                let _ = self.half_open.remove(&entry.reply);
            }
            Some(Class::Closing) => {
                let _ = self.closing.remove(&entry.reply);
            }
        }
    }

    /// Whether a session has carried a packet since it was read.
    fn revived(&self, entry: &Entry) -> bool {
        entry.class.is_none()
            && (self.forward.get(&entry.forward, 0).is_ok_and(|now| now.usage != entry.sent)
                || self.reverse.get(&entry.reply, 0).is_ok_and(|now| now.usage != entry.received))
    }

    fn keep_aliases(&mut self, now: u32, used: &BTreeSet<[u8; 4]>) -> Result<u64, DatapathError> {
        let mut given_back = 0;
        for (address, mut alias) in self.aliases()? {
            if used.contains(&address) {
                if alias.last_seen != now {
                    alias.last_seen = now;
                    let _ = self.aliases.insert(address, alias, 0);
                }
            } else if age(now, alias.last_seen) > ALIAS_KEPT {
                let _ = self.aliases.remove(&address);
                given_back += 1;
            }
        }
        Ok(given_back)
    }

    /// All bound aliases.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn aliases(&self) -> Result<Vec<([u8; 4], Alias)>, DatapathError> {
        let mut aliases = Vec::new();
        for item in self.aliases.iter() {
            aliases.extend(present(item).map_err(failed(names::ALIASES))?);
        }
        Ok(aliases)
    }
}

/// An entry that was there when it was read: one may go between its key and its value.
pub(super) fn present<T>(item: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match item {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Seconds from `then` to `now`; clocks of two CPUs may differ by a moment.
const fn age(now: u32, then: u32) -> u32 {
    let age = now.wrapping_sub(then);
    if age > u32::MAX / 2 { 0 } else { age }
}

const fn later(a: u32, b: u32) -> u32 {
    if age(a, b) > 0 { a } else { b }
}

fn timeout(entry: &Entry, timeouts: &Timeouts) -> u32 {
    match (entry.reply.protocol, entry.class) {
        (protocol::UDP, _) => timeouts.udp,
        (_, None) => timeouts.tcp_established,
        _ => timeouts.tcp_transitory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_survive_the_clocks_end_and_small_steps_back() {
        assert_eq!(age(10, 4), 6);
        assert_eq!(age(4, 10), 0);
        assert_eq!(age(3, u32::MAX), 4);
        assert_eq!(later(5, 9), 9);
        assert_eq!(later(9, 5), 9);
        assert_eq!(later(2, u32::MAX), 2);
    }
}
