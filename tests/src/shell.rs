//! Running the machine's own tools, with failures that say what was run and what it answered.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Runs `command` to its end and returns what it wrote to stdout.
///
/// # Errors
/// When it can't be started (the error names it) or exits with another status than 0 (the error
/// holds its stderr).
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    succeeded(command, &output)
}

/// As [`run`], with `input` on the command's stdin: small, since it is written before anything is
/// read.
///
/// # Errors
/// As [`run`], and when the command doesn't take its input.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().with_context(|| cannot_run(command))?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let written = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output()?;
    let answer = succeeded(command, &output)?;
    written.with_context(|| format!("write to {command:?}"))?;
    Ok(answer)
}

fn succeeded(command: &Command, output: &Output) -> Result<String> {
    if !output.status.success() {
        bail!(
            "{command:?}: {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
            String::from_utf8_lossy(&output.stdout).trim(),
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn cannot_run(command: &Command) -> String {
    format!("can't run {:?}: is it installed and in PATH?", command.get_program())
}

/// Runs `command` to its end and returns status and output, whatever the status is.
///
/// # Errors
/// When it can't be started.
pub fn output(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| cannot_run(command))
}

/// Asks `condition` every 10 ms until it holds or `limit` has passed; says whether it held.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
