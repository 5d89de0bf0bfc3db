//! Sessions that ended in the last hour, for `whois`: as many as fit, compact.

use publisher_common::layout::Record;
use std::collections::VecDeque;

/// How long one is remembered, in seconds.
const REMEMBERED: u32 = 3_600;

/// A session that has ended. Addresses and ports as in the packet, times of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) client: [u8; 16],
    pub(crate) alias: [u8; 4],
    pub(crate) scope: u32,
    pub(crate) created: u32,
    pub(crate) at: u32,
    pub(crate) client_port: [u8; 2],
    pub(crate) alias_port: [u8; 2],
}

const _: () = assert!(size_of::<Ended>() <= 64, "there are hundreds of thousands of them");

impl Ended {
    pub(super) const fn of(record: &Record) -> Self {
        Self {
            client: record.forward.client,
            alias: record.reply.alias,
            scope: record.forward.scope,
            created: record.created,
            at: record.at,
            client_port: record.forward.client_port,
            alias_port: record.reply.alias_port,
        }
    }
}

pub(super) struct History {
    entries: VecDeque<Ended>,
    most: usize,
}

impl History {
    pub(super) const fn new(most: usize) -> Self {
        Self { entries: VecDeque::new(), most }
    }

    /// Adds one; the oldest makes way.
    pub(super) fn add(&mut self, ended: Ended) {
        while self.entries.front().is_some_and(|old| is_old(old, ended.at)) {
            self.entries.pop_front();
        }
        if self.entries.len() >= self.most {
            self.entries.pop_front();
        }
        if self.most > 0 {
            self.entries.push_back(ended);
        }
    }

    /// Those of an alias, the newest first.
    pub(super) fn find(&self, now: u32, alias: [u8; 4], port: Option<[u8; 2]>) -> Vec<Ended> {
        let fits = |ended: &&Ended| {
            ended.alias == alias
                && port.is_none_or(|port| port == ended.alias_port)
                && !is_old(ended, now)
        };
        self.entries.iter().rev().filter(fits).copied().collect()
    }
}

const fn is_old(ended: &Ended, now: u32) -> bool {
    let age = now.wrapping_sub(ended.at);
    age > REMEMBERED && age <= u32::MAX / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(at: u32, port: u8) -> Ended {
        Ended {
            client: [port; 16],
            alias: [198, 18, 0, 4],
            scope: 0,
            created: 0,
            at,
            client_port: [1, 1],
            alias_port: [0, port],
        }
    }

    #[test]
    fn newest_first_for_an_hour_and_no_more_than_fit() {
        let alias = [198, 18, 0, 4];
        let mut history = History::new(3);
        for port in 1..=4 {
            history.add(ended(100 + u32::from(port), port));
        }
        let ports = |found: Vec<Ended>| -> Vec<u8> {
            found.iter().map(|ended| ended.alias_port[1]).collect()
        };
        assert_eq!(ports(history.find(105, alias, None)), [4, 3, 2]);
        assert_eq!(ports(history.find(105, alias, Some([0, 3]))), [3]);
        assert!(history.find(105, [198, 18, 0, 5], None).is_empty());
        assert_eq!(ports(history.find(103 + REMEMBERED, alias, None)), [4, 3]);
        history.add(ended(105 + REMEMBERED, 9));
        assert_eq!(history.entries.len(), 1, "the old ones are forgotten");
        let mut none = History::new(0);
        none.add(ended(1, 1));
        assert!(none.find(1, alias, None).is_empty());
    }
}
