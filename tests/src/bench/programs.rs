//! What each BPF program takes per run, by the kernel's own clock.
//!
//! Counting slows every program down a little, so it happens in a run of its own. The kernel counts
//! while a descriptor of ours is open and stops when it is closed, however this process ends.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::sys::{Stats, enable_stats};
use serde::Serialize;
use serde_json::Value;

use super::contender::Contender;
use super::work::Direction;
use crate::daemon::Daemon;

/// What one program did during one work.
#[derive(Debug, Clone, Serialize)]
pub struct ProgramRuns {
    /// The program's name.
    pub program: String,
    /// What the traffic was.
    pub work: &'static str,
    /// How often it ran.
    pub runs: u64,
    /// Mean nanoseconds per run.
    pub ns_per_run: f64,
}

/// Carries each kind of work for `duration` and reads off what the programs took for it. Programs
/// that didn't run aren't in the answer.
///
/// # Errors
/// When the kernel doesn't count, the daemon doesn't answer, or the work can't be done.
pub fn measure(contender: &Contender<'_>, duration: Duration) -> Result<Vec<ProgramRuns>> {
    let daemon = contender.daemon.as_ref().context("this contender has no programs")?;
    let _counting = enable_stats(Stats::RunTime).context("let the kernel count programs' time")?;
    let mut all = Vec::new();
    let mut before = counters(daemon)?;
    for (work, carry) in works(contender, duration) {
        carry()?;
        let after = counters(daemon)?;
        for (program, (ns, runs)) in &after {
            let (old_ns, old_runs) = before.get(program).copied().unwrap_or_default();
            let (ns, runs) = (ns.saturating_sub(old_ns), runs.saturating_sub(old_runs));
            if runs > 0 {
                let ns_per_run = ns as f64 / runs as f64;
                all.push(ProgramRuns { program: program.clone(), work, runs, ns_per_run });
            }
        }
        before = after;
    }
    ensure!(!all.is_empty(), "no program of ours ran: the traffic went another way");
    Ok(all)
}

type Work<'a> = (&'static str, Box<dyn Fn() -> Result<()> + 'a>);

fn works<'a>(contender: &'a Contender<'_>, duration: Duration) -> [Work<'a>; 3] {
    [
        (
            "stream to container",
            Box::new(move || contender.stream(Direction::Up, duration).map(drop)),
        ),
        (
            "stream to client",
            Box::new(move || contender.stream(Direction::Down, duration).map(drop)),
        ),
        ("new connections", Box::new(move || contender.connections(duration).map(drop))),
    ]
}

/// Nanoseconds and runs of each program since it was loaded, by name.
fn counters(daemon: &Daemon<'_>) -> Result<BTreeMap<String, (u64, u64)>> {
    let status = daemon.json(&["status"])?;
    let programs = status["programs"].as_array().context("no programs in `status`")?;
    let read = |program: &Value| {
        let name = program["name"].as_str()?.to_owned();
        Some((name, (program["run_ns"].as_u64()?, program["run_count"].as_u64()?)))
    };
    let mut counters = BTreeMap::new();
    for program in programs {
        let (name, (ns, runs)) = read(program).with_context(|| format!("program {program}"))?;
        // One program may be loaded several times, for links of different kinds.
        let sum: &mut (u64, u64) = counters.entry(name).or_default();
        *sum = (sum.0 + ns, sum.1 + runs);
    }
    Ok(counters)
}
