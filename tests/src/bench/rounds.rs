//! Contenders take turns: every round all of them, each round beginning with another one.

use std::io::{IsTerminal, Write, stderr};

use anyhow::{Context, Result};
use serde::Serialize;

use super::Plan;
use super::contender::{Contender, Kind};
use super::work::Direction;

/// What is measured, in the order of the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// One stream to the container, Gb/s.
    StreamUp,
    /// One stream to the client, Gb/s.
    StreamDown,
    /// Processor seconds of the whole machine per GB to the container.
    CpuUp,
    /// The same to the client.
    CpuDown,
    /// New connections per second.
    Connections,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::StreamUp, Self::StreamDown, Self::CpuUp, Self::CpuDown, Self::Connections];

    /// What it is, with its unit.
    pub fn name(self) -> &'static str {
        match self {
            Self::StreamUp => "stream to container, Gb/s",
            Self::StreamDown => "stream to client, Gb/s",
            Self::CpuUp => "CPU s/GB to container",
            Self::CpuDown => "CPU s/GB to client",
            Self::Connections => "new connections/s",
        }
    }
}

/// One contender's figures, a value per round for each metric.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Whose they are.
    pub contender: Kind,
    /// In the order of [`Metric::ALL`].
    pub values: [Vec<f64>; 5],
    /// Short connections that failed, in all.
    pub failed_connections: u64,
}

impl Figures {
    /// The values of a metric, one per round.
    pub fn of(&self, metric: Metric) -> &[f64] {
        &self.values[metric as usize]
    }
}

/// Runs all rounds; tells on stderr how far it is.
///
/// # Errors
/// When a contender's work can't be done, and on Ctrl-C.
pub fn run(contenders: &[Contender<'_>], plan: Plan) -> Result<Vec<Figures>> {
    let mut figures: Vec<Figures> = contenders
        .iter()
        .map(|it| Figures { contender: it.kind, values: Default::default(), failed_connections: 0 })
        .collect();
    for round in 0..plan.rounds {
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            let contender = &contenders[index];
            progress(&format!("round {} of {}: {}", round + 1, plan.rounds, contender.kind));
            measure(contender, plan, &mut figures[index])
                .with_context(|| format!("{} in round {}", contender.kind, round + 1))?;
        }
    }
    progress("");
    Ok(figures)
}

fn measure(contender: &Contender<'_>, plan: Plan, into: &mut Figures) -> Result<()> {
    let up = contender.stream(Direction::Up, plan.stream).context("stream to the container")?;
    let down = contender.stream(Direction::Down, plan.stream).context("stream to the client")?;
    let short = contender.connections(plan.connections).context("short connections")?;
    let values =
        [up.gigabits, down.gigabits, up.cpu_per_gigabyte, down.cpu_per_gigabyte, short.per_second];
    for (all, value) in into.values.iter_mut().zip(values) {
        all.push(value);
    }
    into.failed_connections += short.failed;
    Ok(())
}

/// One line that the next one replaces; nothing when nobody watches.
fn progress(text: &str) {
    let stderr = stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr.lock(), "\r\x1b[K{text}");
    }
}
