//! `cargo xtask bench`: the kernel path beside docker-proxy, DNAT and routed IPv6.
//!
//! Everything happens in network namespaces of its own and is gone at the end, also after Ctrl-C
//! or an error. Goals that aren't met are told, not failed: only what couldn't run is an error.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use publisher_tests::bench::contender::{Contender, Kind};
use publisher_tests::bench::machine::Machine;
use publisher_tests::bench::report::Report;
use publisher_tests::bench::{Plan, programs, rounds};
use publisher_tests::case::{self, Case};
use publisher_tests::interrupt;

/// What the command line asks for.
struct Wanted {
    plan: Plan,
    json: bool,
}

fn main() -> ExitCode {
    let Some(wanted) = wanted(std::env::args().skip(1)) else {
        eprintln!("error: unknown argument");
        eprintln!("hint: cargo xtask bench [--quick] [-o table|json]");
        return ExitCode::from(2);
    };
    interrupt::watch();
    let mut report = None;
    let outcome = case::attempt(|case| {
        report = Some(run(case, wanted.plan)?);
        Ok(())
    });
    if interrupt::happened() {
        eprintln!("interrupted");
        return ExitCode::from(130);
    }
    let shown = outcome.and_then(|()| show(&report.context("no report")?, wanted.json));
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn wanted(mut arguments: impl Iterator<Item = String>) -> Option<Wanted> {
    let mut wanted = Wanted { plan: Plan::LONG, json: false };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => wanted.plan = Plan::QUICK,
            "-o" => match arguments.next()?.as_str() {
                "json" => wanted.json = true,
                "table" => wanted.json = false,
                _ => return None,
            },
            _ => return None,
        }
    }
    Some(wanted)
}

fn run(case: &Case, plan: Plan) -> Result<Report> {
    let machine = Machine::look()?;
    let mut contenders = Vec::new();
    for kind in Kind::ALL {
        interrupt::check()?;
        contenders.push(Contender::build(case, kind).with_context(|| format!("prepare {kind}"))?);
    }
    let figures = rounds::run(&contenders, plan)?;
    let path = contenders[0].path()?.context("our own path")?;
    let programs = programs::measure(&contenders[0], Duration::from_secs(1))?;
    Ok(Report::new(machine, path, figures, programs))
}

fn show(report: &Report, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}
