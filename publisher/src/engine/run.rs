//! What goes on while the daemon runs: following the host, and looking after sessions.

use super::Engine;
use crate::topology::{FirewallWatcher, Watcher};
use std::io;
use std::time::Duration;
use tokio::time::{Instant, interval, sleep, sleep_until};
use tracing::info;

/// How often targets are looked at although nothing was heard: a route inside a container, or an
/// address of one that runs already, changes without a notice.
const REVIEW: Duration = Duration::from_secs(5);
/// The same while a target can't be reached.
const RETRY: Duration = Duration::from_millis(500);
/// How often bans are looked through: the datapath ends them by itself, but a short one that has ended
/// hides a longer one of a shorter prefix.
const BANS: Duration = Duration::from_secs(1);
/// How often the host's firewall is looked at although it gave no notice of a change.
const FIREWALL: Duration = Duration::from_secs(10);

impl Engine {
    /// Starts to watch the host's network; to be called before [`Engine::settle`].
    ///
    /// # Errors
    /// When netlink can't be used.
    pub fn watch(&self) -> io::Result<Watcher> {
        self.topology.watch()
    }

    /// Brings the datapath up to date for the first time.
    pub async fn settle(&self) {
        self.look_at_firewall().await;
        self.reconcile().await;
        let inner = self.inner.lock().await;
        for notice in &inner.notices {
            tracing::warn!("{notice}");
        }
        info!(
            "{} publications, {} uplinks, aliases out of {}",
            inner.state.publications().len(),
            inner.snapshot.uplinks.len(),
            self.pool
        );
    }

    /// Follows the host for as long as the daemon runs.
    ///
    /// # Errors
    /// When netlink fails for good.
    pub async fn run(&self, watcher: Watcher) -> io::Result<()> {
        self.read_log();
        tokio::select! {
            followed = self.follow(watcher) => followed,
            () = self.keep_sessions() => Ok(()),
            () = self.proxy.run() => Ok(()),
        }
    }

    async fn follow(&self, mut watcher: Watcher) -> io::Result<()> {
        let mut firewall = interval(FIREWALL);
        let rules = FirewallWatcher::open();
        let mut bans = interval(BANS);
        loop {
            let pause = if self.has_unresolved().await { RETRY } else { REVIEW };
            let review = sleep_until(Instant::now() + pause);
            tokio::select! {
                changes = watcher.next() => {
                    changes?;
                    self.reconcile().await;
                    if self.has_failed().await {
                        // What was tried may itself have been noticed.
                        sleep(RETRY).await;
                    }
                }
                () = review => self.reconcile().await,
                _ = bans.tick() => self.expire_bans().await,
                () = self.changed.notified() => self.reconcile().await,
                () = async { tokio::select! { () = rules.changed() => {}, _ = firewall.tick() => {} } } => {
                    if self.look_at_firewall().await {
                        self.reconcile().await;
                    }
                }
            }
        }
    }

    async fn has_failed(&self) -> bool {
        !self.inner.lock().await.failures.is_empty()
    }

    async fn has_unresolved(&self) -> bool {
        self.inner.lock().await.resolutions.values().any(Result::is_err)
    }

    /// Reads what the host's firewall could block; says whether that has changed.
    pub(super) async fn look_at_firewall(&self) -> bool {
        let findings = self.topology.firewall().await;
        let mut inner = self.inner.lock().await;
        let changed = inner.firewall != findings;
        inner.firewall = findings;
        changed
    }
}
