//! The benchmark itself: every contender carries every kind of work, and the report has all of it.

use std::time::Duration;

use anyhow::ensure;
use publisher_tests::bench::contender::{Contender, Kind};
use publisher_tests::bench::machine::Machine;
use publisher_tests::bench::report::Report;
use publisher_tests::bench::rounds::Metric;
use publisher_tests::bench::{Plan, programs, rounds};
use publisher_tests::case;

/// Too short to say how fast anything is.
const SHORT: Duration = Duration::from_millis(200);

#[test]
fn every_contender_carries_every_work() {
    case::run(|case| {
        let mut contenders = Vec::new();
        for kind in Kind::ALL {
            contenders.push(Contender::build(case, kind)?);
        }
        let plan = Plan { rounds: 2, stream: SHORT, connections: SHORT };
        let figures = rounds::run(&contenders, plan)?;
        for figures in &figures {
            for metric in Metric::ALL {
                let values = figures.of(metric);
                ensure!(values.len() == 2, "{}, {metric:?}: {values:?}", figures.contender);
                // A tick of the processors' clock may be longer than what a short run used.
                let least = if metric.name().contains("CPU") { 0.0 } else { f64::MIN_POSITIVE };
                ensure!(
                    values.iter().all(|&value| value >= least && value.is_finite()),
                    "{}, {metric:?}: {values:?}",
                    figures.contender
                );
            }
            ensure!(figures.failed_connections == 0, "failed connections: {figures:?}");
        }
        let programs = programs::measure(&contenders[0], SHORT)?;
        for name in ["uplink_ethernet", "container_veth"] {
            let mut works = programs.iter().filter(|it| it.program == name);
            ensure!(works.all(|it| it.ns_per_run > 0.0), "{name}: {programs:?}");
            let count = programs.iter().filter(|it| it.program == name).count();
            ensure!(count == 3, "{name} ran for {count} of 3 kinds of work: {programs:?}");
        }
        let path = contenders[0].path()?.unwrap_or_default();
        ensure!(path == "peer", "our path is {path:?}");
        let report = Report::new(Machine::look()?, path, figures, programs);
        let document = serde_json::to_value(&report)?;
        ensure!(document["schema"] == 1, "{document}");
        ensure!(document["goals"].as_array().is_some_and(|all| all.len() == 10), "{document}");
        Ok(())
    });
}
