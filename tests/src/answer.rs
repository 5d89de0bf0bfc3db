//! What a command answered, and what the conventions ask of its failures.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::{daemon, shell};

/// How long a command may take that should end soon.
const LONGEST: Duration = Duration::from_secs(10);

/// What a program answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Answer {
    /// Runs `command` to its end.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn of(command: &mut Command) -> Result<Self> {
        let output = shell::output(command)?;
        Ok(Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command that should end soon, and kills it after 10 s (its code is `None` then).
    ///
    /// # Errors
    /// When it can't be started.
    pub fn soon(command: &mut Command) -> Result<Self> {
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().with_context(|| format!("start {command:?}"))?;
        let _ = daemon::wait(&mut child, LONGEST);
        let output = child.wait_with_output()?;
        Ok(Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// The answer itself when the exit code is 0.
    ///
    /// # Errors
    /// When it isn't; the error holds the whole answer.
    pub fn ok(self) -> Result<Self> {
        ensure!(self.code == Some(0), "expected exit code 0: {self:?}");
        Ok(self)
    }

    /// Checks that the program failed as the conventions ask: this exit code, exactly one line
    /// that begins with `error: `, and one with `hint: `, both on stderr. Returns the error line.
    ///
    /// # Errors
    /// When any of it isn't so; the error holds the whole answer.
    pub fn failed_with(&self, code: i32) -> Result<String> {
        ensure!(self.code == Some(code), "expected exit code {code}: {self:?}");
        let lines = |start: &str| -> Vec<&str> {
            self.stderr.lines().filter(|line| line.starts_with(start)).collect()
        };
        let (errors, hints) = (lines("error: "), lines("hint: "));
        ensure!(errors.len() == 1, "expected one error line: {self:?}");
        ensure!(hints.len() == 1, "expected one hint line: {self:?}");
        ensure!(self.stdout.is_empty(), "expected nothing on stdout: {self:?}");
        Ok(errors[0].to_owned())
    }
}
