//! Sessions as the daemon sees them: the maps that hold them, by handles that any thread may use
//! without the engine's lock, and reading them one after the other.

use super::error::DatapathError;
use super::hash::Hash;
use publisher_common::layout::{
    Alias, Class, Forward, ForwardKey, ReplyKey, Reverse, Session, Source, SourceKey, Timeouts,
    Transient, Usage, Use, names,
};
use publisher_common::wire::protocol;
use std::io;
use std::sync::Arc;

/// The maps of sessions, and of what is counted about them.
#[derive(Clone)]
pub struct Sessions(pub(super) Arc<Maps>);

pub(super) struct Maps {
    pub(super) forward: Hash<ForwardKey, Forward>,
    pub(super) reverse: Hash<ReplyKey, Reverse>,
    pub(super) half_open: Hash<ReplyKey, Transient>,
    pub(super) closing: Hash<ReplyKey, Transient>,
    pub(super) aliases: Hash<[u8; 4], Alias>,
    pub(super) uses: Hash<u32, Use>,
    pub(super) sources: Hash<SourceKey, Source>,
    /// An array, which has the same commands.
    pub(super) displaced: Hash<u32, u32>,
}

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

impl Entry {
    /// An established session by its first half.
    pub(super) fn of_forward(key: &ForwardKey, value: &Forward) -> Self {
        Self {
            forward: *key,
            reply: value.reply,
            session: value.session,
            sent: value.usage,
            received: Usage::default(),
            last_seen: value.last_seen,
            class: None,
        }
    }

    /// Adds what the other half knows.
    pub(super) fn and_reverse(mut self, value: &Reverse) -> Self {
        self.received = value.usage;
        self.last_seen = later(self.last_seen, value.last_seen);
        self
    }

    pub(super) fn of_transient(class: Class, key: &ReplyKey, value: &Transient) -> Self {
        Self {
            forward: value.forward,
            reply: *key,
            session: value.session,
            sent: value.sent,
            received: value.received,
            last_seen: value.last_seen,
            class: Some(class),
        }
    }
}

impl Sessions {
    /// Calls `take` with the sessions that `wants` asks for, which doesn't know yet what the container
    /// has sent of an established one. Half-open and closing ones whose time is over don't count.
    ///
    /// The tables change while they are read: a session may be missed, or seen as it was a moment ago.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn each(
        &self,
        now: u32,
        timeouts: &Timeouts,
        mut wants: impl FnMut(&Entry) -> bool,
        mut take: impl FnMut(Entry),
    ) -> Result<(), DatapathError> {
        let maps = &self.0;
        let established = maps.forward.for_each(|key, value| {
            let entry = Entry::of_forward(key, value);
            // Its other half may just have gone.
            if wants(&entry)
                && let Some(reverse) = maps.reverse.get(&value.reply)
            {
                take(entry.and_reverse(&reverse));
            }
        });
        established.map_err(unreadable(names::FORWARD))?;
        for (class, map, name) in self.transient() {
            let read = map.for_each(|key, value| {
                let entry = Entry::of_transient(class, key, value);
                if !is_over(key, value, timeouts, now) && wants(&entry) {
                    take(entry);
                }
            });
            read.map_err(unreadable(name))?;
        }
        Ok(())
    }

    /// The tables of sessions that aren't established.
    pub(super) fn transient(&self) -> [(Class, &Hash<ReplyKey, Transient>, &'static str); 2] {
        [
            (Class::HalfOpen, &self.0.half_open, names::HALF_OPEN),
            (Class::Closing, &self.0.closing, names::CLOSING),
        ]
    }

    /// Who an alias is bound to.
    #[must_use]
    pub fn alias(&self, address: [u8; 4]) -> Option<Alias> {
        self.0.aliases.get(&address)
    }
}

/// An error about the map `name`.
pub(super) fn unreadable(name: &'static str) -> impl FnOnce(io::Error) -> DatapathError {
    move |error| DatapathError::Map { name, reason: error.to_string() }
}

/// Whether the datapath takes no notice of a session any more that isn't established.
pub(super) const fn is_over(
    key: &ReplyKey,
    value: &Transient,
    timeouts: &Timeouts,
    now: u32,
) -> bool {
    let timeout =
        if key.protocol == protocol::UDP { timeouts.udp } else { timeouts.tcp_transitory };
    age(now, value.last_seen) > timeout
}

/// Seconds from `then` to `now`; clocks of two CPUs may differ by a moment.
pub(super) const fn age(now: u32, then: u32) -> u32 {
    let age = now.wrapping_sub(then);
    if age > u32::MAX / 2 { 0 } else { age }
}

pub(super) const fn later(a: u32, b: u32) -> u32 {
    if age(a, b) > 0 { a } else { b }
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
