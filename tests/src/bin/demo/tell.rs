//! How the story is told: headings, commands with the place they run in, and what they answer.

use std::fs;
use std::io::{IsTerminal, Write, stdout};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use publisher_tests::{interrupt, netns, shell};

/// A new step of the story, numbered. Ends it instead after Ctrl-C.
pub fn step(title: &str) -> Result<()> {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    interrupt::check()?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    line(&format!("\n{}", bold(&format!("{number}. {title}"))));
    Ok(())
}

/// A command as the reader would type it, with where it runs.
pub fn command(place: &str, typed: &str) {
    line(&format!("   {place}$ {}", bold(typed)));
}

/// What a command answered, indented.
pub fn answer(text: &str) {
    for text in text.trim_end().lines() {
        line(&format!("   {text}"));
    }
}

/// Runs a command and tells what it says on either output; it may fail. Returns whether it didn't, and its stdout.
pub fn run(command: &mut Command) -> Result<(bool, String)> {
    let output = shell::output(command)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    answer(&said);
    answer(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), said))
}

/// What this process has made and not removed, in words.
pub fn left_behind() -> Vec<String> {
    let pid = std::process::id();
    let ours = format!("{}{pid}-", netns::PREFIX);
    let mut left: Vec<String> =
        netns::existing(&ours).iter().map(|name| format!("namespace {name}")).collect();
    for directory in ["/sys/fs/bpf", "/sys/fs/cgroup", "/sys/fs/cgroup/memory"] {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        let paths =
            entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(&ours));
        left.extend(paths.map(|entry| entry.path().display().to_string()));
    }
    let children = fs::read_to_string(format!("/proc/self/task/{pid}/children"));
    for child in children.unwrap_or_default().split_whitespace() {
        left.push(format!("process {child}"));
    }
    left
}

/// The last line of the story.
pub fn cleaned_up(left: &[String]) {
    line("");
    if left.is_empty() {
        line("nothing left behind: no namespace, program, pin, control group or process");
    }
    for what in left {
        line(&format!("left behind: {what}"));
    }
}

fn line(text: &str) {
    // A reader who closes the pipe stops the story at its next step by SIGPIPE's error, not by a panic.
    let _ = writeln!(stdout().lock(), "{text}");
}

fn bold(text: &str) -> String {
    if stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[1m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
