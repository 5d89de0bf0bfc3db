//! Halves of sessions without their other half: a daemon was killed between two removals.

use super::error::DatapathError;
use super::pace::Pace;
use super::sessions::{Sessions, unreadable};
use publisher_common::layout::{ForwardKey, ReplyKey, names};

/// How many are looked at again at once; the rest has to wait for the next time.
const SUSPECTS: usize = 65_536;

impl Sessions {
    /// Removes halves that have no other half both before and after `pause`: a session that is just being
    /// established or ended has one half for a moment. Returns how many.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn remove_orphans(
        &self,
        pace: &mut Pace,
        pause: impl FnOnce(),
    ) -> Result<u64, DatapathError> {
        let maps = &self.0;
        let (mut forward, mut reverse) = (Vec::new(), Vec::new());
        let mut reader = maps.forward.reader();
        while let Some((keys, values)) = reader.next_chunk().map_err(unreadable(names::FORWARD))? {
            let lonely =
                keys.iter().zip(values).filter(|(key, value)| !self.has_reverse(key, &value.reply));
            forward.extend(lonely.take(SUSPECTS - forward.len()).map(|(key, _)| *key));
            pace.rest();
        }
        let mut reader = maps.reverse.reader();
        while let Some((keys, values)) = reader.next_chunk().map_err(unreadable(names::REVERSE))? {
            let lonely = keys
                .iter()
                .zip(values)
                .filter(|(key, value)| !self.has_forward(key, &value.forward));
            reverse.extend(lonely.take(SUSPECTS - reverse.len()).map(|(key, _)| *key));
            pace.rest();
        }
        if forward.is_empty() && reverse.is_empty() {
            return Ok(0);
        }
        pause();
        let mut removed = 0;
        for key in &forward {
            if let Some(found) = maps.forward.get(key)
                && !self.has_reverse(key, &found.reply)
            {
                removed += u64::from(maps.forward.remove(key));
            }
        }
        for key in &reverse {
            if let Some(found) = maps.reverse.get(key)
                && !self.has_forward(key, &found.forward)
            {
                removed += u64::from(maps.reverse.remove(key));
            }
        }
        Ok(removed)
    }

    fn has_reverse(&self, key: &ForwardKey, reply: &ReplyKey) -> bool {
        self.0.reverse.get(reply).is_some_and(|found| found.forward == *key)
    }

    fn has_forward(&self, reply: &ReplyKey, key: &ForwardKey) -> bool {
        self.0.forward.get(key).is_some_and(|found| found.reply == *reply)
    }
}
