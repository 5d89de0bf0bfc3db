//! File descriptors, so that none is missing in the middle of a connection.

use rustix::process::{Resource, getrlimit};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tracing::warn;

/// Left to the rest of the daemon: maps, programs and links, its API, netlink, files.
const REST: i64 = 256;
/// Left to connections when ports are held, or half of all where that is less.
const FOR_CONNECTIONS: i64 = 8_192;
/// Between two lines of the log about the same shortage.
const QUIET: Duration = Duration::from_secs(60);
/// A shortage counts as over after that.
const RECENT: Duration = Duration::from_secs(300);

/// How many descriptors may still be opened.
pub(super) struct Budget {
    limit: u64,
    free: AtomicI64,
    freed: Notify,
    is_short: AtomicBool,
    last: Mutex<Option<(Instant, Instant)>>,
}

/// Descriptors that were set aside; given back when it is dropped.
pub(super) struct Share {
    budget: Arc<Budget>,
    count: i64,
}

impl Budget {
    pub fn new() -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
        let free = i64::try_from(limit).unwrap_or(i64::MAX).saturating_sub(REST);
        Self {
            limit,
            free: AtomicI64::new(free),
            freed: Notify::new(),
            is_short: AtomicBool::new(false),
            last: Mutex::default(),
        }
    }

    /// Sets `count` descriptors aside, if there are so many.
    pub fn take(self: &Arc<Self>, count: i64) -> Option<Share> {
        let take = |free: i64| (free >= count).then_some(free - count);
        self.free.try_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        Some(Share { budget: Arc::clone(self), count })
    }

    /// Whether `count` ports can be held with enough left for connections.
    pub fn allows_ports(&self, count: usize) -> bool {
        let half = i64::try_from(self.limit / 2).unwrap_or(i64::MAX);
        let left = self.free.load(Ordering::Acquire) - i64::try_from(count).unwrap_or(i64::MAX);
        left >= FOR_CONNECTIONS.min(half)
    }

    /// How many files the daemon may have open.
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Ready when descriptors may be there again.
    pub async fn wait(&self) {
        let _ = tokio::time::timeout(Duration::from_millis(100), self.freed.notified()).await;
    }

    /// Something had to wait, or was refused, for want of descriptors.
    pub fn note_shortage(&self) {
        self.is_short.store(true, Ordering::Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let logged = last.map(|(_, logged)| logged).filter(|logged| now - *logged < QUIET);
        if logged.is_none() {
            warn!("{}", self.words());
        }
        *last = Some((now, logged.unwrap_or(now)));
    }

    /// A shortage of late.
    pub fn trouble(&self) -> Option<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen, _) = (*last)?;
        (seen.elapsed() < RECENT).then(|| self.words())
    }

    fn words(&self) -> String {
        format!(
            "the proxy has used up its file descriptors (the limit is {}): new connections wait until others \
             end; raise the limit of open files (LimitNOFILE= of the service)",
            self.limit
        )
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.free.fetch_add(self.count, Ordering::AcqRel);
        if self.budget.is_short.swap(false, Ordering::Relaxed) {
            self.budget.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_missing_until_it_is_given_back() {
        let budget = Arc::new(Budget { free: AtomicI64::new(3), ..Budget::new() });
        let pair = budget.take(2).unwrap();
        assert!(budget.take(2).is_none());
        let one = budget.take(1).unwrap();
        drop(one);
        assert!(!budget.allows_ports(1), "connections come first");
        drop(pair);
        assert!(budget.take(3).is_some());
        assert_eq!(budget.trouble(), None);
        budget.note_shortage();
        assert!(budget.trouble().unwrap().contains("file descriptors"));
    }
}
