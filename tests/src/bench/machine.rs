//! The machine that measures: what it is, and what its processors do.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

/// What a reader must know of the machine to judge the figures.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// Processors that run threads.
    pub cores: usize,
    /// What the processor calls itself.
    pub processor: String,
    /// Share of the processors' time that others used before the run, 0 to 1.
    pub busy_before: f64,
}

impl Machine {
    /// Reads it off, watching the processors for a second.
    ///
    /// # Errors
    /// When /proc can't be read.
    pub fn look() -> Result<Self> {
        let text = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
        let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let cores = thread::available_parallelism().context("number of processors")?.get();
        let (start, before) = (Instant::now(), busy()?);
        thread::sleep(Duration::from_secs(1));
        let used = busy()?.saturating_sub(before).as_secs_f64();
        Ok(Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cores,
            processor: model.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            busy_before: used / (start.elapsed().as_secs_f64() * cores as f64),
        })
    }
}

/// Processor time that the whole machine has used since it was started, interrupts included.
///
/// # Errors
/// When /proc/stat can't be read.
pub fn busy() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let ticks = busy_ticks(&text).context("no processor time in /proc/stat")?;
    // SAFETY: sysconf only reads a constant.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let per_second = u32::try_from(per_second).ok().filter(|&n| n > 0).context("clock ticks")?;
    Ok(Duration::from_secs(ticks) / per_second)
}

/// user, nice, system, irq and softirq of the first line; idle, iowait and steal are not ours.
fn busy_ticks(text: &str) -> Option<u64> {
    let fields = text.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = fields.split_whitespace().map_while(|word| word.parse().ok()).collect();
    [0, 1, 2, 5, 6].iter().map(|&index| fields.get(index)).sum()
}

#[cfg(test)]
mod tests {
    use super::busy_ticks;

    #[test]
    fn idle_waiting_and_stolen_time_is_nobodys() {
        let text = "cpu  1 20 300 9999 9999 4000 50000 9999 0 0\ncpu0 7 7 7 7 7 7 7 7 0 0\n";
        assert_eq!(busy_ticks(text), Some(54_321));
        assert_eq!(busy_ticks("intr 1"), None);
    }
}
