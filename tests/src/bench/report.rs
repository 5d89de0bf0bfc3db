//! The tables, the goals, and the same as JSON.

use std::fmt::{self, Write};

use serde::Serialize;

use super::contender::Kind;
use super::machine::Machine;
use super::programs::ProgramRuns;
use super::rounds::{Figures, Metric};
use super::statistics::{Ratio, median};

/// Above this share of the processors in others' hands, the figures say little.
const TOO_BUSY: f64 = 0.05;

/// All that a run has to say.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of this document's form.
    pub schema: u32,
    /// Where it ran.
    pub machine: Machine,
    /// How our own packets went: `peer` or `neigh`.
    pub path: String,
    /// Every contender's values, ours first.
    pub figures: Vec<Figures>,
    /// Ours against each of the others.
    pub comparisons: Vec<Comparison>,
    /// The goals, with what was reached.
    pub goals: Vec<Goal>,
    /// What the programs took, from a run of its own.
    pub programs: Vec<ProgramRuns>,
}

/// Ours against another contender, by one metric.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Comparison {
    /// Which of ours.
    pub ours: Kind,
    /// The other contender.
    pub against: Kind,
    /// What is compared.
    pub metric: Metric,
    /// Ours divided by theirs.
    pub ratio: Ratio,
}

/// One goal, against docker-proxy.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Goal {
    /// Which of ours has it.
    pub ours: Kind,
    /// What it is about.
    pub metric: Metric,
    /// The ratio of medians that is asked for.
    pub asked: f64,
    /// Whether more is better.
    pub at_least: bool,
    /// What was reached.
    pub reached: f64,
    /// Whether that is enough.
    pub met: bool,
}

impl Report {
    /// Compares and judges.
    ///
    /// # Panics
    /// When the figures aren't those of all contenders, ours first, with a value per round.
    pub fn new(
        machine: Machine,
        path: String,
        figures: Vec<Figures>,
        programs: Vec<ProgramRuns>,
    ) -> Self {
        let (ours, others) = figures.split_first().expect("figures of contenders");
        assert_eq!(ours.contender, Kind::Publisher);
        let proxy = figures.iter().filter(|it| it.contender == Kind::Proxy);
        let docker = |ours| {
            figures
                .iter()
                .filter_map(move |it| (it.contender == Kind::DockerProxy).then_some((ours, it)))
        };
        let pairs = others.iter().map(|other| (ours, other)).chain(proxy.flat_map(docker));
        let mut comparisons = Vec::new();
        for (ours, other) in pairs {
            for metric in Metric::ALL {
                let ratio = Ratio::of(ours.of(metric), other.of(metric));
                let (ours, against) = (ours.contender, other.contender);
                comparisons.push(Comparison { ours, against, metric, ratio });
            }
        }
        let goals = goals(&comparisons);
        Self { schema: 1, machine, path, figures, comparisons, goals, programs }
    }

    fn ratio(&self, (ours, against): (Kind, Kind), metric: Metric) -> &Ratio {
        let mut all = self.comparisons.iter();
        let found = all.find(|it| (it.ours, it.against, it.metric) == (ours, against, metric));
        &found.expect("every contender was compared").ratio
    }
}

fn goals(comparisons: &[Comparison]) -> Vec<Goal> {
    let judge = |comparison: &Comparison| {
        let Comparison { ours, against, metric, ratio } = comparison;
        let of_proxy = *ours == Kind::Proxy;
        let (asked, at_least) = match metric {
            Metric::StreamUp | Metric::StreamDown => (if of_proxy { 1.1 } else { 1.15 }, true),
            Metric::CpuUp | Metric::CpuDown => (if of_proxy { 0.9 } else { 0.85 }, false),
            Metric::Connections => (if of_proxy { 1.5 } else { 2.0 }, true),
        };
        let reached = ratio.of_medians;
        let met = if at_least { reached >= asked } else { reached <= asked };
        (*against == Kind::DockerProxy).then_some(Goal {
            ours: *ours,
            metric: *metric,
            asked,
            at_least,
            reached,
            met,
        })
    };
    comparisons.iter().filter_map(judge).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { kernel, cores, processor, busy_before } = &self.machine;
        let rounds = self.figures.first().map_or(0, |it| it.of(Metric::StreamUp).len());
        writeln!(
            formatter,
            "kernel {kernel}, {cores} cores ({processor}) shared by client, host and container; \
             {rounds} rounds; congestion control cubic; our path: {}\n",
            self.path
        )?;
        if *busy_before > TOO_BUSY {
            writeln!(
                formatter,
                "WARNING: others used {:.0} % of the processors before the run: don't trust these figures\n",
                busy_before * 100.0
            )?;
        }
        table(
            formatter,
            "medians",
            &Metric::ALL.map(Metric::name),
            self.figures.iter().map(|it| {
                let cell = |metric: Metric| cell(metric, median(it.of(metric)));
                (it.contender.to_string(), Metric::ALL.map(cell).to_vec())
            }),
        )?;
        let others = self.figures.iter().skip(1).map(|it| (Kind::Publisher, it.contender));
        let mut pairs: Vec<_> = others.collect();
        let docker = (Kind::Proxy, Kind::DockerProxy);
        if self.comparisons.iter().any(|it| (it.ours, it.against) == docker) {
            pairs.push(docker);
        }
        let pairs = || pairs.iter().copied();
        let name = |(ours, against): (Kind, Kind)| format!("{ours} against {against}");
        table(
            formatter,
            "ratio of medians",
            &Metric::ALL.map(Metric::name),
            pairs().map(|pair| {
                let cell = |metric| format!("{:.2}", self.ratio(pair, metric).of_medians);
                (name(pair), Metric::ALL.map(cell).to_vec())
            }),
        )?;
        table(
            formatter,
            "paired by round, 95 % interval",
            &Metric::ALL.map(Metric::name),
            pairs().map(|pair| {
                let cell = |metric| {
                    let Ratio { paired, interval: [low, high], .. } = self.ratio(pair, metric);
                    format!("{paired:.2} ({low:.2}-{high:.2})")
                };
                (name(pair), Metric::ALL.map(cell).to_vec())
            }),
        )?;
        table(
            formatter,
            "goal, against docker-proxy",
            &["asked", "reached", "met"],
            self.goals.iter().map(|goal| {
                let sign = if goal.at_least { ">=" } else { "<=" };
                let asked = format!("{sign} {:.2}", goal.asked);
                let met = if goal.met { "yes" } else { "NO" };
                (
                    format!("{}: {}", goal.ours, goal.metric.name()),
                    vec![asked, format!("{:.2}", goal.reached), met.to_owned()],
                )
            }),
        )?;
        table(
            formatter,
            "program, in a run of its own",
            &["work", "runs", "ns/run"],
            self.programs.iter().map(|it| {
                let cells =
                    vec![it.work.to_owned(), it.runs.to_string(), format!("{:.0}", it.ns_per_run)];
                (it.program.clone(), cells)
            }),
        )?;
        for figures in self.figures.iter().filter(|it| it.failed_connections > 0) {
            let Figures { contender, failed_connections, .. } = figures;
            writeln!(formatter, "WARNING: {failed_connections} connections of {contender} failed")?;
        }
        Ok(())
    }
}

fn cell(metric: Metric, value: f64) -> String {
    match metric {
        Metric::StreamUp | Metric::StreamDown => format!("{value:.1}"),
        Metric::CpuUp | Metric::CpuDown => format!("{value:.3}"),
        Metric::Connections => format!("{value:.0}"),
    }
}

/// A Markdown table, its columns as wide as they need, with an empty line after it.
fn table(
    into: &mut fmt::Formatter<'_>,
    corner: &str,
    columns: &[&str],
    rows: impl Iterator<Item = (String, Vec<String>)>,
) -> fmt::Result {
    let mut lines: Vec<Vec<String>> = vec![];
    lines.push(std::iter::once(corner).chain(columns.iter().copied()).map(String::from).collect());
    lines.extend(rows.map(|(name, cells)| std::iter::once(name).chain(cells).collect()));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..=columns.len()).map(|column| width(column).unwrap_or(0)).collect();
    for (index, line) in lines.iter().enumerate() {
        let mut text = String::from("|");
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            match column {
                0 => write!(text, " {cell:<width$} |")?,
                _ => write!(text, " {cell:>width$} |")?,
            }
        }
        writeln!(into, "{text}")?;
        if index == 0 {
            let rules: Vec<String> = widths
                .iter()
                .enumerate()
                .map(|(column, &width)| match column {
                    0 => "-".repeat(width + 2),
                    _ => "-".repeat(width + 1) + ":",
                })
                .collect();
            writeln!(into, "|{}|", rules.join("|"))?;
        }
    }
    writeln!(into)
}

#[cfg(test)]
mod tests {
    use super::Report;
    use crate::bench::contender::Kind;
    use crate::bench::machine::Machine;
    use crate::bench::rounds::Figures;

    fn report(busy_before: f64) -> Report {
        let machine =
            Machine { kernel: "6.18".into(), cores: 2, processor: "x".into(), busy_before };
        let figures = |contender, factor: f64| Figures {
            contender,
            values: [12.0, 11.0, 0.4, 0.45, 2000.0].map(|value| vec![value * factor; 5]),
            failed_connections: 0,
        };
        let factors = [(Kind::Publisher, 1.0), (Kind::DockerProxy, 0.5), (Kind::Dnat, 1.0)];
        let all = factors.map(|(kind, factor)| figures(kind, factor)).to_vec();
        Report::new(machine, "peer".into(), all, vec![])
    }

    #[test]
    fn the_proxy_has_goals_of_its_own() {
        let Report { machine, path, mut figures, .. } = report(0.0);
        let proxy = Figures { contender: Kind::Proxy, ..figures[0].clone() };
        figures.insert(1, proxy);
        let report = Report::new(machine, path, figures, vec![]);
        let asked: Vec<_> = report.goals.iter().map(|goal| (goal.ours, goal.asked)).collect();
        assert_eq!(asked.len(), 10);
        assert_eq!((asked[0], asked[9]), ((Kind::Publisher, 1.15), (Kind::Proxy, 1.5)));
        let text = report.to_string();
        assert!(text.contains("| Publisher's proxy against docker-proxy 28.5 |"), "{text}");
    }

    #[test]
    fn goals_are_judged_against_docker_proxy_only() {
        let met: Vec<bool> = report(0.0).goals.iter().map(|goal| goal.met).collect();
        // Twice as fast, and twice the processor time.
        assert_eq!(met, [true, true, false, false, true]);
    }

    #[test]
    fn the_table_says_what_was_reached_and_when_not_to_trust_it() {
        let text = report(0.0).to_string();
        assert!(
            text.contains("| Publisher: CPU s/GB to client        | <= 0.85 |    2.00 |  NO |"),
            "{text}"
        );
        assert!(!text.contains("WARNING"), "{text}");
        assert!(report(0.5).to_string().contains("WARNING: others used 50 %"));
    }
}
