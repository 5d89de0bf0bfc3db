//! The counters of dropped packets, as `publisherctl drops` shows them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::daemon::Daemon;
use crate::shell;

/// How often each reason was counted that was.
///
/// # Errors
/// When the daemon doesn't answer, or with an entry that isn't whole.
pub fn drops(daemon: &Daemon<'_>) -> Result<BTreeMap<String, u64>> {
    let mut counted = BTreeMap::new();
    for entry in daemon.entries(&["drops"])? {
        let reason = entry["reason"].as_str().context("reason")?;
        ensure!(entry["meaning"].as_str().is_some_and(|text| !text.is_empty()), "{entry}");
        let count = entry["count"].as_u64().context("count")?;
        if count > 0 {
            counted.insert(reason.to_owned(), count);
        }
    }
    Ok(counted)
}

/// Does `send` and waits until exactly the counter of `reason` has gone up by one, and no other.
///
/// # Errors
/// Those of `send`, and when the counters don't get there within a second.
pub fn counts_one(
    daemon: &Daemon<'_>,
    reason: &str,
    send: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut expected = drops(daemon)?;
    *expected.entry(reason.to_owned()).or_default() += 1;
    send()?;
    let mut after = BTreeMap::new();
    shell::wait_until(Duration::from_secs(1), || {
        after = drops(daemon).unwrap_or_default();
        after == expected
    });
    ensure!(after == expected, "{reason}: counted {after:?}, not {expected:?}");
    Ok(())
}
