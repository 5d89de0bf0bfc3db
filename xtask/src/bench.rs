//! `bench`: builds everything and starts the benchmark of the `tests` crate in this process's place.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{self, say};
use crate::{paths, setup};

/// Builds, then becomes the benchmark, so that Ctrl-C reaches the program that has something to clean up.
pub fn run(quick: bool, json: bool) -> Result<()> {
    say("build", "cargo build --release (some minutes the first time)");
    run::loud(run::cargo().args(["build", "--release", "--quiet"]).args([
        "-p",
        "publisher",
        "-p",
        "publisher-tests",
        "--bins",
    ]))?;
    let program = paths::release_dir().join("bench");
    let mut command = Command::new(&program);
    if quick {
        command.arg("--quick");
    }
    if json {
        command.args(["-o", "json"]);
    }
    say("bench", if quick { "less than three minutes" } else { "some twelve minutes" });
    let error = command.envs(setup::environment()).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}
