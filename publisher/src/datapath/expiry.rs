//! Sessions whose time is over (rules S4–S8).
//!
//! An idle session is never deleted outright: it is moved to the closing sessions in state TRANS, as the
//! state machine's timeout says. There any packet but a RST makes it established again, so a session that
//! carries a packet in that very moment loses nothing. What is there or half-open is left to the datapath,
//! which takes no notice of what has had its time, and to the LRU.

use super::counts::Counts;
use super::error::DatapathError;
use super::hash::Write;
use super::pace::Pace;
use super::sessions::{Entry, Sessions, age, is_over, unreadable};
use publisher_common::layout::{
    Class, Forward, ForwardKey, Reverse, Session, State, Timeouts, Transient, names, session_flags,
};
use publisher_common::wire::protocol;

/// How long a UDP session that was moved for its idleness can still be called back, in seconds.
const LAST_CALL: u32 = 5;

/// Why the daemon ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// It was idle for too long.
    Idle,
    /// Its publication was removed with its sessions.
    Killed,
    /// Its publication was removed, and its time to drain is over.
    Removed,
    /// Its client was banned.
    Denied,
    /// Its container link is gone, or its target has moved.
    TargetGone,
}

/// What a pass has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Established sessions that are left.
    pub established: u64,
    /// Half-open sessions whose time isn't over.
    pub half_open: u64,
    /// Closing sessions whose time isn't over.
    pub closing: u64,
    /// Sessions that were ended, idle ones among them.
    pub ended: u64,
}

impl Sessions {
    /// Goes through all sessions once: moves idle ones, ends those that `ends` gives a reason for, and
    /// tells `ended` of each established one. Counts what is left.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn pass(
        &self,
        clock: fn() -> u32,
        timeouts: &Timeouts,
        pace: &mut Pace,
        counts: &mut Counts,
        mut ends: impl FnMut(&Entry) -> Option<EndReason>,
        mut ended: impl FnMut(&Entry, EndReason),
    ) -> Result<Seen, DatapathError> {
        let mut seen = Seen::default();
        let mut reader = self.0.forward.reader();
        while let Some((keys, values)) = reader.next_chunk().map_err(unreadable(names::FORWARD))? {
            let now = clock();
            for (key, value) in keys.iter().zip(values) {
                let entry = Entry::of_forward(key, value);
                let gone = match ends(&entry) {
                    Some(reason) => self.end(&entry).map(|entry| (entry, reason)),
                    None => self.retire_idle(key, value, now, timeouts),
                };
                match gone {
                    Some((entry, reason)) => {
                        counts.end(&entry);
                        seen.ended += 1;
                        ended(&entry, reason);
                    }
                    None => {
                        counts.established(&entry);
                        seen.established += 1;
                    }
                }
            }
            counts.settle_ended(self);
            pace.rest();
        }
        for (class, map, name) in self.transient() {
            let mut reader = map.reader();
            while let Some((keys, values)) = reader.next_chunk().map_err(unreadable(name))? {
                let now = clock();
                for (key, value) in keys.iter().zip(values) {
                    if ends(&Entry::of_transient(class, key, value)).is_some() {
                        seen.ended += u64::from(map.remove(key));
                    } else if !is_over(key, value, timeouts, now) {
                        *(match class {
                            Class::HalfOpen => &mut seen.half_open,
                            Class::Closing => &mut seen.closing,
                        }) += 1;
                    }
                }
                pace.rest();
            }
        }
        Ok(seen)
    }

    /// Ends an established session; `None` where the datapath was faster.
    fn end(&self, entry: &Entry) -> Option<Entry> {
        let reverse = self.0.reverse.get(&entry.reply);
        let here = self.0.forward.remove(&entry.forward);
        let reverse = reverse.filter(|found| found.forward == entry.forward)?;
        let there = self.0.reverse.remove(&entry.reply);
        (here && there).then(|| entry.and_reverse(&reverse))
    }

    /// Moves a session if both directions have been idle for too long. The other direction is looked at
    /// only where this one has been.
    fn retire_idle(
        &self,
        key: &ForwardKey,
        forward: &Forward,
        now: u32,
        timeouts: &Timeouts,
    ) -> Option<(Entry, EndReason)> {
        let limit = idle_limit(forward.reply.protocol, timeouts);
        if age(now, forward.last_seen) <= limit {
            return None;
        }
        let reverse = self.0.reverse.get(&forward.reply)?;
        if reverse.forward != *key || age(now, reverse.last_seen) <= limit {
            return None;
        }
        self.retire(key, forward, &reverse, now, timeouts)
            .then(|| (Entry::of_forward(key, forward).and_reverse(&reverse), EndReason::Idle))
    }

    /// Moves an idle session to the closing ones; `false` where it has carried a packet since it was read.
    fn retire(
        &self,
        key: &ForwardKey,
        forward: &Forward,
        reverse: &Reverse,
        now: u32,
        timeouts: &Timeouts,
    ) -> bool {
        let maps = &self.0;
        let reply = &forward.reply;
        let left = if reply.protocol == protocol::UDP {
            timeouts.udp.saturating_sub(LAST_CALL)
        } else {
            0
        };
        let moved = Transient {
            forward: *key,
            last_seen: now.wrapping_sub(left),
            session: Session { state: State::TRANS, ..forward.session },
            sent: forward.usage,
            received: reverse.usage,
            reserved_tail: [0; 8],
        };
        if maps.closing.insert(reply, &moved, Write::New).is_err() {
            // Something is there already: what an earlier session has left, or what this one has just
            // become by its own packets. The latter is young.
            let old = maps.closing.get(reply).is_some_and(|found| age(now, found.last_seen) > 2);
            if !old || maps.closing.insert(reply, &moved, Write::Any).is_err() {
                return false;
            }
        }
        let unchanged = maps.forward.get(key).is_some_and(|found| {
            found.usage == forward.usage && found.last_seen == forward.last_seen
        }) && maps.reverse.get(reply).is_some_and(|found| {
            found.usage == reverse.usage && found.last_seen == reverse.last_seen
        });
        if !unchanged {
            // Unless the datapath has put its own in the place of ours.
            if maps.closing.get(reply) == Some(moved) {
                maps.closing.remove(reply);
            }
            return false;
        }
        if forward.session.flags & session_flags::DISPLACED != 0 {
            // Where the datapath has to look for it now. The slot is there, so nothing can fail.
            let _ = maps.displaced.insert(&key.slot(), &now, Write::Any);
        }
        maps.forward.remove(key);
        maps.reverse.remove(reply);
        true
    }
}

/// How long an established session may be idle before it is moved, in seconds. What TCP has left then
/// makes up the whole of its time.
fn idle_limit(number: u8, timeouts: &Timeouts) -> u32 {
    if number == protocol::UDP {
        timeouts.udp
    } else {
        timeouts.tcp_established.saturating_sub(timeouts.tcp_transitory).max(1)
    }
}

#[cfg(test)]
#[path = "expiry_tests.rs"]
mod tests;
