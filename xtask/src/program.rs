//! Programs of the `tests` crate, `demo` and `bench`: built with everything they use, then started in this process's place.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{self, say};
use crate::{paths, setup};

/// Builds, then becomes the program, so that Ctrl-C reaches the one that has something to clean up.
pub fn become_one(name: &str, arguments: &[&str]) -> Result<()> {
    say("build", "cargo build --release (some minutes the first time)");
    run::loud(run::cargo().args(["build", "--release", "--quiet"]).args([
        "-p",
        "publisher",
        "-p",
        "publisher-tests",
        "--bins",
    ]))?;
    let program = paths::release_dir().join(name);
    let mut command = Command::new(&program);
    let error = command.args(arguments).envs(setup::environment()).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}
