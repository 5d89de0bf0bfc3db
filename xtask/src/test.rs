//! `test`: every check of the project, in the order in which a mistake is cheapest to find.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::residue::Traces;
use crate::rules::{Coverage, RULES, Runner};
use crate::run::{self, say};
use crate::setup;

/// Every crate but that of the BPF programs. All steps name all of them, so that they agree on the features of
/// what they depend on, and nothing is built twice.
const CRATES: [&str; 8] =
    ["-p", "publisher-common", "-p", "publisher", "-p", "publisher-tests", "-p", "xtask"];
/// Tests that need no namespaces: they run side by side.
const UNIT: [&str; 2] = ["--lib", "--bins"];
/// The end-to-end tests, one after the other: they share the machine's BPF file system and its two cores.
const END_TO_END: [&str; 2] = ["--test", "*"];
/// Tells the end-to-end tests to do the long runs too.
const FULL: &str = "PUBLISHER_TEST_FULL";
/// How long a flood lasts then, in seconds; otherwise the tests know.
const FULL_FLOOD: (&str, &str) = ("PUBLISHER_FLOOD_SECONDS", "60");

/// What the run has come to so far.
#[derive(Default)]
struct Report {
    closing: Vec<String>,
    ran: Vec<String>,
    failed: Vec<String>,
}

/// Runs all of it, even after a failure, and fails at the end if anything did.
pub fn run(full: bool, filter: Option<&str>) -> Result<()> {
    let start = Instant::now();
    let before = Traces::now()?;
    let mut report = Report::default();
    if filter.is_none() {
        report.check(run::cargo().args(["fmt", "--all", "--check"]));
        // The BPF crate is built for its own target, by publisher's build script, warnings included.
        report.check(run::cargo().args(["clippy", "--quiet", "--release", "--workspace"]).args([
            "--exclude",
            "publisher-ebpf",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]));
    }
    report.check(run::cargo().args(["build", "--quiet", "--release"]).args(CRATES));
    if !report.failed.is_empty() {
        return report.finish(start);
    }
    report.test(cargo_test(full).args(UNIT).args(filter));
    let one_by_one = ["--", "--test-threads=1"];
    report.test(cargo_test(full).args(END_TO_END).args(filter).args(one_by_one));
    if report.closing.is_empty() {
        report.failed.push("no test ran at all".to_owned());
    }
    // With a filter most rules have no test that ran.
    if filter.is_none() {
        report.check_rules();
    }
    for trace in Traces::now()?.left_since(&before) {
        report.failed.push(format!("left behind: {trace}"));
    }
    report.finish(start)
}

fn cargo_test(full: bool) -> Command {
    let mut command = run::cargo();
    command.args(["test", "--release", "--no-fail-fast"]).args(CRATES);
    command.envs(setup::environment());
    if full {
        command.env(FULL, "1").env(FULL_FLOOD.0, FULL_FLOOD.1);
    }
    command
}

impl Report {
    fn check(&mut self, command: &mut Command) {
        let line = run::shown_short(command);
        say("check", &line);
        if let Err(error) = run::loud(command) {
            self.failed.push(format!("{error:#}"));
        }
    }

    fn test(&mut self, command: &mut Command) {
        let line = run::shown_short(command);
        say("test", &line);
        match run_and_collect(command) {
            Ok((Output { closing, ran }, success)) => {
                self.closing.extend(closing.into_iter().filter(|line| ran_something(line)));
                self.ran.extend(ran);
                if !success {
                    self.failed.push(format!("`{line}` failed"));
                }
            }
            Err(error) => self.failed.push(format!("{error:#}")),
        }
    }

    /// Prints which tests show which rule, and notes what isn't as the table of rules says.
    fn check_rules(&mut self) {
        let coverage = Coverage::new(RULES, &self.ran);
        println!("\nrules of translation, and the tests that show them:\n{coverage}");
        self.failed.extend(coverage.mistakes());
    }

    fn finish(&self, start: Instant) -> Result<()> {
        let seconds = start.elapsed().as_secs();
        println!();
        for line in &self.closing {
            println!("{line}");
        }
        let count =
            |what: &str| -> u64 { self.closing.iter().map(|line| number(line, what)).sum() };
        println!(
            "{} passed, {} failed, {} ignored, in {} min {} s",
            count("passed"),
            count("failed"),
            count("ignored"),
            seconds / 60,
            seconds % 60
        );
        if count("ignored") > 0 {
            bail!("{} tests were ignored: a test that can't run must fail", count("ignored"));
        }
        if !self.failed.is_empty() {
            for line in &self.failed {
                println!("FAILED: {line}");
            }
            bail!("{} of the steps failed", self.failed.len());
        }
        println!("nothing left behind: no pin, namespace, interface, mount or process");
        Ok(())
    }
}

/// What is read off the runners' output.
struct Output {
    /// The closing line of each.
    closing: Vec<String>,
    /// Names of the tests that ran.
    ran: Vec<String>,
}

/// Passes the runner's output on as it comes, and keeps its closing lines and the names of tests.
fn run_and_collect(command: &mut Command) -> Result<(Output, bool)> {
    let line = run::shown(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{line}`"))?;
    let stdout = child.stdout.take().context("the child's output was asked for")?;
    let (mut closing, mut runner) = (Vec::new(), Runner::default());
    let mut reader = BufReader::new(stdout);
    let mut bytes = Vec::new();
    // Bytes, not lines of text: a failing test may print anything.
    while reader.read_until(b'\n', &mut bytes)? > 0 {
        std::io::stdout().write_all(&bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        if text.starts_with("test result: ") {
            closing.push(text.trim_end().to_owned());
        }
        runner.line(&text);
        bytes.clear();
    }
    Ok((Output { closing, ran: runner.into_tests() }, child.wait()?.success()))
}

/// Whether the runner had a test that the filter left.
fn ran_something(line: &str) -> bool {
    ["passed", "failed", "ignored"].iter().any(|what| number(line, what) > 0)
}

/// `number("test result: ok. 12 passed; 0 failed; …", "passed")` is 12.
fn number(line: &str, what: &str) -> u64 {
    let words: Vec<&str> = line.split([' ', ';']).filter(|word| !word.is_empty()).collect();
    words.windows(2).find(|pair| pair[1] == what).and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn counts_are_read_off_the_closing_line() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.02s";
        assert_eq!(number(line, "passed"), 12);
        assert_eq!(number(line, "failed"), 3);
        assert_eq!(number(line, "ignored"), 1);
        assert_eq!(number("", "passed"), 0);
    }
}
