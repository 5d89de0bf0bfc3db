//! Running other programs, and errors that say what to do next.

use std::fmt;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// An error with the next command to run.
#[derive(Debug)]
pub struct Hinted {
    message: String,
    hint: String,
}

impl fmt::Display for Hinted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Hinted {}

/// An error whose hint is printed on a line of its own.
pub fn hinted(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted { message: message.into(), hint: hint.into() }.into()
}

/// The error's chain in one line, and the hint of the link that has one.
pub fn message_and_hint(error: &anyhow::Error) -> (String, Option<&str>) {
    let hint = error.chain().find_map(|link| link.downcast_ref::<Hinted>());
    (format!("{error:#}"), hint.map(|hinted| hinted.hint.as_str()))
}

/// Whether this process may install packages, make namespaces and load programs.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Refuses a verb that can't work for an ordinary user.
pub fn need_root(verb: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    Err(hinted(
        format!(
            "`cargo xtask {verb}` makes network namespaces and loads BPF programs: it needs root"
        ),
        format!("run it as root, for instance with: sudo -E env PATH=\"$PATH\" cargo xtask {verb}"),
    ))
}

/// One line of progress on stderr. The verb stands in front, in bold on a terminal.
pub fn say(verb: &str, text: impl fmt::Display) {
    let stderr = io::stderr();
    let bold = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (on, off) = if bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    // A closed stderr is no reason to stop.
    let _ = writeln!(stderr.lock(), "{on}{verb:>8}{off}  {text}");
}

/// The command as one would type it.
pub fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// As [`shown`], with the program's name in place of its path.
pub fn shown_short(command: &Command) -> String {
    let line = shown(command);
    let name = Path::new(command.get_program()).file_name().unwrap_or_default();
    line.replacen(&*command.get_program().to_string_lossy(), &name.to_string_lossy(), 1)
}

/// Runs a command with its output kept back; shows the end of it if the command fails.
pub fn quiet(command: &mut Command) -> Result<String> {
    let line = shown(command);
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = said.lines().collect();
    for tail in &lines[lines.len().saturating_sub(20)..] {
        eprintln!("    {tail}");
    }
    bail!("`{line}` failed ({})", output.status)
}

/// Runs a command with this terminal as its own.
pub fn loud(command: &mut Command) -> Result<()> {
    let line = shown(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Cargo, as this process was started by it, at the top of the checkout.
pub fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(crate::paths::workspace());
    command
}
