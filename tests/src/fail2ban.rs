//! A real fail2ban in a namespace of a test, with one jail.
//!
//! It is unpacked, not installed (see [`crate::fetched`]), and is given a configuration, socket and
//! memory of its own: one that the machine runs anyway isn't met.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::answer::Answer;
use crate::case::Case;
use crate::netns::Netns;
use crate::{fetched, shell};

/// The jail's name.
const JAIL: &str = "login";
/// How long it may take until it answers, until it has ended, and until it has banned.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// What the jail does.
#[derive(Debug, Clone, Copy)]
pub struct Jail<'a> {
    /// The log that it reads, with lines of [`failed_login`].
    pub log: &'a Path,
    /// The action's file.
    pub action: &'a Path,
    /// Parameters of the action.
    pub parameters: &'a [(&'a str, &'a str)],
    /// How many failures are too many.
    pub failures: u32,
    /// How long a ban lasts, in seconds.
    pub ban: i64,
}

/// The line of a log that says that a login from `address` has failed, just now.
pub fn failed_login(address: IpAddr) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{} FAILED LOGIN from {address}\n", now.as_secs())
}

/// A running fail2ban; dropping it ends it.
#[derive(Debug)]
pub struct Fail2ban {
    child: Child,
    root: PathBuf,
    directory: PathBuf,
}

impl Fail2ban {
    /// Starts it in `ns` and waits until the jail runs.
    ///
    /// # Errors
    /// When the setup hasn't brought it, or it doesn't answer within 15 s; the error holds what it
    /// wrote.
    pub fn start(case: &Case, ns: &Netns, jail: &Jail<'_>) -> Result<Self> {
        let root = fetched::tree("PUBLISHER_FAIL2BAN", "fail2ban-1.0")?;
        let directory = case.directory().join("fail2ban");
        configure(&directory, jail)?;
        let output = File::create(directory.join("output"))?;
        let mut command = ns.command("/usr/bin/python3");
        invoke(&mut command, &root, &directory, "fail2ban-server").args(["-f", "start"]);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().context("start fail2ban-server")?;
        case.expect_ended(child.id());
        let running = Self { child, root, directory };
        let answers =
            || running.client(&["status", JAIL]).is_ok_and(|answer| answer.code == Some(0));
        ensure!(shell::wait_until(PATIENCE, answers), "no answer: {}", running.log());
        Ok(running)
    }

    /// `fail2ban-client ARGS…`
    ///
    /// # Errors
    /// When it can't be started; not when it fails.
    pub fn client(&self, args: &[&str]) -> Result<Answer> {
        let mut command = Command::new("/usr/bin/python3");
        Answer::of(invoke(&mut command, &self.root, &self.directory, "fail2ban-client").args(args))
    }

    /// Waits until `address` is banned.
    ///
    /// # Errors
    /// When it isn't within 15 s; the error holds what fail2ban wrote.
    pub fn has_banned(&self, address: IpAddr) -> Result<()> {
        let wanted = address.to_string();
        let banned = || {
            let answer = self.client(&["get", JAIL, "banip"]);
            answer.is_ok_and(|answer| answer.stdout.split_whitespace().any(|word| word == wanted))
        };
        ensure!(shell::wait_until(PATIENCE, banned), "{address} isn't banned: {}", self.log());
        Ok(())
    }

    /// Lifts the ban of `address`, as an administrator does.
    ///
    /// # Errors
    /// When it isn't banned.
    pub fn unban(&self, address: IpAddr) -> Result<()> {
        self.client(&["set", JAIL, "unbanip", &address.to_string()])?.ok()?;
        Ok(())
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.directory.join(name)).unwrap_or_default();
        read("output") + &read("log")
    }
}

impl Drop for Fail2ban {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if !shell::wait_until(PATIENCE, || !matches!(self.child.try_wait(), Ok(None))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The command line of one of its programs.
fn invoke<'a>(
    python: &'a mut Command,
    root: &Path,
    directory: &Path,
    program: &str,
) -> &'a mut Command {
    python
        .env("PYTHONPATH", root.join("usr/lib/python3/dist-packages"))
        // Nothing is written into the unpacked tree.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(root.join("usr/bin").join(program))
        .arg("-c")
        .arg(directory)
        .arg("-s")
        .arg(directory.join("socket"))
        .arg("-p")
        .arg(directory.join("pid"))
}

fn configure(directory: &Path, jail: &Jail<'_>) -> Result<()> {
    let Jail { log, action, parameters, failures, ban } = jail;
    for sub in ["action.d", "filter.d"] {
        fs::create_dir_all(directory.join(sub))?;
    }
    let name = action.file_name().context("the action is a file")?;
    fs::copy(action, directory.join("action.d").join(name))
        .with_context(|| format!("copy {}", action.display()))?;
    let action = Path::new(name).file_stem().and_then(|name| name.to_str()).context("action")?;
    let parameters: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let parameters = parameters.join(", ");
    let at = directory.display();
    let main = format!(
        "[Definition]\nloglevel = INFO\nlogtarget = {at}/log\nsyslogsocket = auto\nallowipv6 = auto\n\
         socket = {at}/socket\npidfile = {at}/pid\ndbfile = None\ndbpurgeage = 1d\n\
         dbmaxmatches = 10\n[Thread]\nstacksize = 0\n"
    );
    let filter = "[Definition]\nfailregex = ^\\s*FAILED LOGIN from <HOST>$\ndatepattern = ^EPOCH\n";
    let jails = format!(
        "[{JAIL}]\nenabled = true\nbackend = polling\nusedns = no\nignoreself = false\n\
         filter = {JAIL}\nlogpath = {}\nmaxretry = {failures}\nfindtime = 600\nbantime = {ban}\n\
         action = {action}[{parameters}]\n",
        log.display()
    );
    fs::write(directory.join("fail2ban.conf"), main)?;
    fs::write(directory.join("jail.conf"), jails)?;
    fs::write(directory.join(format!("filter.d/{JAIL}.conf")), filter)?;
    Ok(())
}
