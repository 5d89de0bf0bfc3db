//! How fast a pass goes through the tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A pass that rests after each chunk of entries, so that it never takes much of a core, or one that
/// doesn't.
pub struct Pace {
    /// Rests are so many times as long as the work was.
    rests: u32,
    since: Instant,
    /// Set when the daemon ends: no time for rests.
    stop: Arc<AtomicBool>,
    /// The work, without the rests.
    worked: Duration,
}

impl Pace {
    /// Takes a tenth of a core, until `stop` is set.
    #[must_use]
    pub fn gentle(stop: Arc<AtomicBool>) -> Self {
        Self { rests: 9, since: Instant::now(), stop, worked: Duration::ZERO }
    }

    /// Doesn't rest.
    #[must_use]
    pub fn quick() -> Self {
        Self { rests: 0, ..Self::gentle(Arc::default()) }
    }

    /// A chunk is done.
    pub(super) fn rest(&mut self) {
        let worked = self.since.elapsed();
        self.worked += worked;
        if self.rests > 0 && !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(worked * self.rests);
        }
        self.since = Instant::now();
    }

    /// How long the work has taken.
    #[must_use]
    pub const fn worked(&self) -> Duration {
        self.worked
    }
}
