//! The project's commands: `cargo xtask setup | demo | test | bench`.
//!
//! Every verb but `setup` looks first whether something is missing on this machine, and runs `setup` for it.

mod paths;
mod program;
mod residue;
mod rules;
mod run;
mod setup;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Publisher's own commands")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what this machine lacks to build and test Publisher, and say what was done
    Setup,
    /// Publish a container's port and fetch a page through it over IPv6, in namespaces of its own
    Demo {
        /// With a real Docker engine, run with its userland proxy off
        #[arg(long)]
        docker: bool,
    },
    /// Run every check and test: format, lints, unit and property tests, end-to-end tests, old kernels
    Test {
        /// Also the long runs
        #[arg(long)]
        full: bool,
        /// Only tests whose name contains this (skips format and lints)
        filter: Option<String>,
    },
    /// Measure the kernel path beside docker-proxy, IPv4 DNAT and routed IPv6, in namespaces of its own
    Bench {
        /// Five short rounds, in less than three minutes
        #[arg(long)]
        quick: bool,
        /// What the figures are printed as
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

fn main() -> ExitCode {
    match dispatch(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let (message, hint) = run::message_and_hint(&error);
            eprintln!("error: {message}");
            if let Some(hint) = hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

fn dispatch(verb: Verb) -> Result<()> {
    match verb {
        Verb::Setup => setup::run(),
        Verb::Demo { docker } => {
            run::need_root("demo")?;
            setup::ensure()?;
            program::become_one("demo", if docker { &["--docker"] } else { &[] })
        }
        Verb::Test { full, filter } => {
            run::need_root("test")?;
            setup::ensure()?;
            test::run(full, filter.as_deref())
        }
        Verb::Bench { quick, output } => {
            run::need_root("bench")?;
            setup::ensure()?;
            let quick: &[&str] = if quick { &["--quick"] } else { &[] };
            let output = ["-o", if output == Output::Json { "json" } else { "table" }];
            program::become_one("bench", &[quick, &output].concat())
        }
    }
}
