//! `demo`: builds everything and starts the demo program of the `tests` crate in this process's place.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{self, say};
use crate::{paths, setup};

/// Builds, then becomes the demo, so that Ctrl-C reaches the program that has something to clean up.
pub fn run(docker: bool) -> Result<()> {
    say("build", "cargo build --release (some minutes the first time)");
    run::loud(run::cargo().args(["build", "--release", "--quiet"]).args([
        "-p",
        "publisher",
        "-p",
        "publisher-tests",
        "--bins",
    ]))?;
    let program = paths::release_dir().join("demo");
    let mut command = Command::new(&program);
    if docker {
        command.arg("--docker");
    }
    let error = command.envs(setup::environment()).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}
