//! What processes and their maps cost, read off `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The kernel's clock ticks in a second, as it counts them towards programs (USER_HZ).
const TICKS: f64 = 100.0;

/// Processor time that a process has taken so far, in user and kernel mode.
///
/// # Errors
/// When there is no such process.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("stat")?;
    // The name may have blanks and brackets; the numbers come after the last one.
    let (_, rest) = stat.rsplit_once(") ").context("stat")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok());
    let total = ticks(11).zip(ticks(12)).map(|(user, system)| user + system).context("stat")?;
    Ok(Duration::from_secs_f64(total as f64 / TICKS))
}

/// The most resident memory that a process has had so far, in bytes.
///
/// # Errors
/// When there is no such process.
pub fn most_resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().context("VmHWM")?;
    Ok(kibibytes * 1024)
}

/// A BPF map that a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Map {
    /// How many entries it can have.
    pub capacity: u64,
    /// Kernel memory in bytes.
    pub bytes: u64,
}

/// All BPF maps that a process holds.
///
/// # Errors
/// When there is no such process.
pub fn maps(pid: u32) -> Result<Vec<Map>> {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("fdinfo")? {
        // It may have been closed meanwhile.
        let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
        let field = |name: &str| -> Option<u64> {
            let line = info.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        if let (Some(id), Some(capacity), Some(bytes)) =
            (field("map_id:"), field("max_entries:"), field("memlock:"))
        {
            maps.insert(id, Map { capacity, bytes });
        }
    }
    Ok(maps.into_values().collect())
}
