//! The real `publisherd` in a host namespace of a test, and the real `publisherctl` against it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::answer::Answer;
use crate::case::Case;
use crate::netns::Netns;
use crate::residue::{HostState, Objects};
use crate::shell;

/// How long a daemon may take until it answers.
const READY: Duration = Duration::from_secs(10);
/// How long it may take to end.
const LONGEST_END: Duration = Duration::from_secs(10);

/// How long it may be at its tables.
const LONGEST_SWEEP: Duration = Duration::from_secs(30);

/// The directory with `publisherd` and `publisherctl`: `PUBLISHER_BIN_DIR`, else `release` or
/// `debug` of the target directory that this test was built in.
///
/// # Errors
/// When neither has them; the error says how to build them.
pub fn programs() -> Result<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let there = |directory: &PathBuf| {
            ["publisherd", "publisherctl"].iter().all(|name| directory.join(name).is_file())
        };
        if let Some(given) = std::env::var_os("PUBLISHER_BIN_DIR").map(PathBuf::from) {
            let missing = format!("no publisherd and publisherctl in {}", given.display());
            return Some(given).filter(there).ok_or(missing);
        }
        let test = std::env::current_exe().map_err(|error| error.to_string())?;
        let candidates = test
            .ancestors()
            .filter(|path| {
                path.file_name().is_some_and(|name| name == "debug" || name == "release")
            })
            .filter_map(Path::parent)
            .flat_map(|target| [target.join("release"), target.join("debug")]);
        candidates.into_iter().find(there).ok_or_else(|| {
            "publisherd and publisherctl aren't built: run `cargo build --release`, or name their \
             directory in PUBLISHER_BIN_DIR"
                .to_owned()
        })
    });
    match found {
        Ok(directory) => Ok(directory),
        Err(missing) => bail!("{missing}"),
    }
}

/// A daemon of a test. Dropping it uninstalls it, or, when it doesn't answer any more, ends it
/// and removes its pins; what isn't as before then is reported to the case.
#[derive(Debug)]
pub struct Daemon<'a> {
    case: &'a Case,
    host: Arc<Netns>,
    child: Option<Child>,
    directory: PathBuf,
    pin_dir: PathBuf,
    args: Vec<String>,
    before: HostState,
    starts: u32,
    files: Option<u64>,
}

impl<'a> Daemon<'a> {
    /// Starts a daemon in `host` and waits until it answers.
    ///
    /// # Errors
    /// As [`Daemon::start_with`].
    pub fn start(case: &'a Case, host: &Arc<Netns>) -> Result<Self> {
        Self::start_with(case, host, &[])
    }

    /// Starts a daemon with more arguments and waits until it answers.
    ///
    /// # Errors
    /// When the programs are missing or the daemon doesn't answer within 10 s; the error holds
    /// what it wrote.
    pub fn start_with(case: &'a Case, host: &Arc<Netns>, args: &[&str]) -> Result<Self> {
        let mut daemon = Self::prepare(case, host, args)?;
        daemon.launch()?;
        Ok(daemon)
    }

    /// Makes the directories of a daemon without starting it.
    ///
    /// # Errors
    /// When the BPF file system can't be mounted.
    pub fn prepare(case: &'a Case, host: &Arc<Netns>, args: &[&str]) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        mount_bpffs()?;
        let pin_dir = PathBuf::from(format!("/sys/fs/bpf/pubt-{}-{number}", std::process::id()));
        let directory = case.directory().join(format!("daemon{number}"));
        fs::create_dir(&directory)?;
        case.expect_removed(&pin_dir);
        Ok(Self {
            case,
            host: Arc::clone(host),
            child: None,
            directory,
            pin_dir,
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            before: HostState::of(host)?,
            starts: 0,
            files: None,
        })
    }

    /// Lets the daemon open `limit` files at most, from its next start on.
    pub fn limit_files(&mut self, limit: u64) {
        self.files = Some(limit);
    }

    /// Starts the program and waits until it answers. Call it again after [`Daemon::kill`] or
    /// [`Daemon::stop`].
    ///
    /// # Errors
    /// When it ends or doesn't answer within 10 s.
    pub fn launch(&mut self) -> Result<()> {
        self.starts += 1;
        let log = File::create(self.directory.join(format!("log{}", self.starts)))?;
        let mut command = self.command()?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("start publisherd")?;
        self.case.expect_ended(child.id());
        self.child = Some(child);
        let end = Instant::now() + READY;
        loop {
            let child = self.child.as_mut().context("daemon")?;
            if let Some(status) = child.try_wait()? {
                self.child = None;
                bail!("publisherd ended at once, {status}:\n{}", self.log());
            }
            if self.ctl(&["status"])?.code == Some(0) {
                return Ok(());
            }
            ensure!(Instant::now() < end, "publisherd doesn't answer:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The command line of the daemon, inside the host namespace.
    ///
    /// # Errors
    /// When the program isn't built.
    pub fn command(&self) -> Result<Command> {
        self.command_with_pins(&self.pin_dir)
    }

    /// The same with another directory for the pins.
    ///
    /// # Errors
    /// When the program isn't built.
    pub fn command_with_pins(&self, pin_dir: &Path) -> Result<Command> {
        let program = programs()?.join("publisherd");
        let mut command = match self.files {
            None => self.host.command(program),
            Some(limit) => {
                let mut command = self.host.command("prlimit");
                command.arg(format!("--nofile={limit}")).arg(program);
                command
            }
        };
        command.arg("--socket").arg(self.socket());
        command.arg("--state-dir").arg(self.state_dir());
        command.arg("--pin-dir").arg(pin_dir);
        command.args(&self.args);
        Ok(command)
    }

    /// `publisherctl -H unix:///SOCKET ARGS…` inside the host namespace.
    ///
    /// # Errors
    /// When the program isn't built or can't be started; not when it fails.
    pub fn ctl(&self, args: &[&str]) -> Result<Answer> {
        Answer::of(&mut self.ctl_command(args)?)
    }

    /// The command line of [`Daemon::ctl`].
    ///
    /// # Errors
    /// When the program isn't built.
    pub fn ctl_command(&self, args: &[&str]) -> Result<Command> {
        let mut command = self.host.command(programs()?.join("publisherctl"));
        command.arg("-H").arg(format!("unix://{}", self.socket().display())).args(args);
        Ok(command)
    }

    /// `publisherctl -o json ARGS…`, read.
    ///
    /// # Errors
    /// When it fails or doesn't print one JSON document.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let args: Vec<&str> = ["-o", "json"].iter().chain(args).copied().collect();
        let answer = self.ctl(&args)?.ok()?;
        serde_json::from_str(&answer.stdout).with_context(|| format!("not JSON: {answer:?}"))
    }

    /// `publisherctl add PORT TARGET`, which must succeed. Returns what it printed on stdout.
    ///
    /// # Errors
    /// When the exit code isn't 0.
    pub fn add(&self, port: &str, target: &str) -> Result<String> {
        Ok(self.ctl(&["add", port, target])?.ok()?.stdout)
    }

    /// The entries of a JSON document that lists something: `ls`, `sessions`, `whois`.
    ///
    /// # Errors
    /// As [`Daemon::json`], and when the document has no schema version or no list.
    pub fn entries(&self, args: &[&str]) -> Result<Vec<Value>> {
        let document = self.json(args)?;
        ensure!(document["schema"] == 1, "no schema version: {document}");
        let mut lists = document.as_object().into_iter().flat_map(|fields| fields.values());
        let list = lists.find_map(Value::as_array).cloned();
        list.with_context(|| format!("no list in {document}"))
    }

    /// The only entry of such a document.
    ///
    /// # Errors
    /// As [`Daemon::entries`], and when there are none or several.
    pub fn entry(&self, args: &[&str]) -> Result<Value> {
        let mut entries = self.entries(args)?;
        ensure!(entries.len() == 1, "expected one entry of {args:?}: {entries:?}");
        entries.pop().context("entry")
    }

    /// Makes a change to the host that is the test's own, so that it isn't taken for the daemon's.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn alter<T>(&mut self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let from = HostState::of(&self.host)?;
        let value = change()?;
        self.before.take_over(&from, &HostState::of(&self.host)?);
        Ok(value)
    }

    /// Ends the program with SIGKILL, as a crash does. Its pins stay.
    ///
    /// # Errors
    /// When it isn't running.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::KILL)
    }

    /// Ends the program with SIGTERM, as a service manager does. Its pins stay.
    ///
    /// # Errors
    /// When it isn't running.
    pub fn stop(&mut self) -> Result<()> {
        self.end(Signal::TERM)
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        self.remember_objects()?;
        let mut child = self.child.take().context("the daemon isn't running")?;
        kill_process(pid(&child)?, signal)?;
        wait(&mut child, LONGEST_END).context("publisherd after a signal")
    }

    /// Notes which BPF objects are the daemon's, for the check at the end of the case.
    fn remember_objects(&self) -> Result<()> {
        if let Some(child) = &self.child {
            self.case.expect_gone(Objects::of_process(child.id()));
        }
        self.case.expect_gone(Objects::pinned_below(&self.pin_dir)?);
        Ok(())
    }

    /// Everything that the daemon and its predecessors wrote.
    pub fn log(&self) -> String {
        let logs = (1..=self.starts).map(|n| self.directory.join(format!("log{n}")));
        logs.map(|path| fs::read_to_string(path).unwrap_or_default()).collect()
    }

    /// The process id.
    ///
    /// # Errors
    /// When it isn't running.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("the daemon isn't running")?.id())
    }

    /// How many entries a table has, as `publisherctl status` says. Waits for a daemon that says
    /// nothing about its tables because it is at them.
    ///
    /// # Errors
    /// When the daemon doesn't answer, or says nothing about such a table for 30 s.
    pub fn used(&self, table: &str) -> Result<u64> {
        let end = Instant::now() + LONGEST_SWEEP;
        loop {
            let status = self.json(&["status"])?;
            let tables = status["tables"].as_array().context("tables")?;
            let found = tables.iter().find(|entry| entry["name"] == table);
            if let Some(used) = found.and_then(|entry| entry["used"].as_u64()) {
                return Ok(used);
            }
            ensure!(Instant::now() < end, "nothing about {table}: {status}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// The state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// The directory of the pins.
    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// `publisherctl uninstall`: the daemon ends, its pins are gone, and the host's sysctls, links,
    /// queueing disciplines and routes are as before (what isn't is reported to the case). Without
    /// a running daemon it does nothing.
    ///
    /// # Errors
    /// When the command fails, the daemon doesn't end, or a pin is left.
    pub fn uninstall(&mut self) -> Result<()> {
        self.remember_objects()?;
        if self.child.is_some() {
            self.ctl(&["uninstall"])?.ok()?;
            let mut child = self.child.take().context("daemon")?;
            wait(&mut child, LONGEST_END).context("publisherd after uninstall")?;
            ensure!(!self.pin_dir.exists(), "uninstall left {}", self.pin_dir.display());
            let after = HostState::of(&self.host)?;
            for change in self.before.changes(&after) {
                self.case.found(format!("after uninstall: {change}"));
            }
        }
        Ok(())
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("harness: what publisherd wrote:\n{}", self.log());
        }
        if let Err(error) = self.uninstall() {
            self.case.found(format!("uninstall: {error:#}\n{}", self.log()));
        }
        if self.log().contains("panicked at") {
            self.case.found(format!("publisherd has panicked:\n{}", self.log()));
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // A daemon that a test has killed can't clean up; its pins are the test's to remove.
        if self.pin_dir.exists() {
            let _ = fs::remove_dir_all(&self.pin_dir);
        }
    }
}

fn pid(child: &Child) -> Result<Pid> {
    Pid::from_raw(child.id().cast_signed()).context("process id")
}

/// Waits for the end of a process; kills it after `limit`.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<()> {
    if shell::wait_until(limit, || !matches!(child.try_wait(), Ok(None))) {
        return Ok(());
    }
    child.kill()?;
    child.wait()?;
    bail!("didn't end within {limit:?}")
}

fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    if !mounts.lines().any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf")) {
        shell::run(Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]))?;
    }
    Ok(())
}
