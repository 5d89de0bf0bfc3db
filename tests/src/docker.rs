//! A real Docker engine inside a network namespace of a test.
//!
//! The engine is unpacked, not installed (see [`crate::fetched`]). It has its own data, sockets and control groups, so
//! that several engines, and one that the machine runs anyway, don't meet. Dropping it removes all of it.
//!
//! `dockerd` starts its own `containerd`; both come from the same unpacked tree, which stands first in `PATH`. Newer
//! engines get Debian 12's runc, as theirs wants a newer libc.

mod leftovers;

use std::fmt;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use crate::netns::{self, Netns};
use crate::{fetched, shell};

/// The image that [`Engine::start`] makes: busybox, and what [`Engine::web`] serves.
pub const IMAGE: &str = "publisher/busybox:test";

/// How long an engine may take until it answers, and until it has ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells the client which address it came from, as the server saw it.
const WHOAMI: &str = "#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo \"hello from the container; you are $REMOTE_ADDR port $REMOTE_PORT\"
";

/// The engines that the tests know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Debian 12's own `docker.io`.
    V20_10,
    /// The newest: with DROP rules in the raw table for what doesn't come in by the bridge.
    V28_5,
}

impl Version {
    /// Every engine, the oldest first.
    pub const ALL: [Self; 2] = [Self::V20_10, Self::V28_5];

    /// Where it is unpacked.
    ///
    /// # Errors
    /// When the setup hasn't brought it.
    pub fn root(self) -> Result<PathBuf> {
        match self {
            Self::V20_10 => fetched::tree("PUBLISHER_DOCKER_20_10", "docker-20.10"),
            Self::V28_5 => fetched::tree("PUBLISHER_DOCKER_28_5", "docker-28.5"),
        }
    }

    /// The engine's own `docker-proxy`, to be compared with.
    ///
    /// # Errors
    /// When the setup hasn't brought the engine.
    pub fn proxy(self) -> Result<PathBuf> {
        Ok(self.root()?.join("usr/sbin/docker-proxy"))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V20_10 => "20.10",
            Self::V28_5 => "28.5",
        })
    }
}

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    root: PathBuf,
    directory: TempDir,
    /// The name of its control group and of nothing else.
    name: String,
    child: Child,
    /// Shared directories that exist only because of this engine.
    made: Vec<PathBuf>,
}

impl Engine {
    /// Starts an engine in `host` with these further flags of `dockerd`, waits until it answers, and makes [`IMAGE`].
    ///
    /// # Errors
    /// When the engine isn't unpacked, or doesn't answer; the error holds the end of what it wrote.
    pub fn start(version: Version, host: &Netns, flags: &[&str]) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let root = version.root()?;
        let directory = tempfile::Builder::new().prefix("pubt-docker-").tempdir()?;
        let name = format!("{}{}-{number}-docker", netns::PREFIX, std::process::id());
        let made = leftovers::shared_to_be_made();
        let log = File::create(directory.path().join("log"))?;
        let child = host
            .command(root.join("usr/sbin/dockerd"))
            .env("PATH", search_path(&root))
            .arg("--data-root")
            .arg(directory.path().join("data"))
            .arg("--exec-root")
            .arg(directory.path().join("exec"))
            .arg("--pidfile")
            .arg(directory.path().join("pid"))
            .arg("-H")
            .arg(format!("unix://{}", directory.path().join("socket").display()))
            .args(["--storage-driver", "vfs", "--exec-opt", "native.cgroupdriver=cgroupfs"])
            .args(["--cgroup-parent", &format!("/{name}")])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C on the terminal must not end it before its containers are removed.
            .process_group(0)
            .spawn()
            .context("start dockerd")?;
        let mut engine = Self { root, directory, name, child, made };
        engine.wait_until_ready()?;
        engine.make_image()?;
        Ok(engine)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let socket = self.directory.path().join("socket");
        let mut ended = None;
        let ready = shell::wait_until(PATIENCE, || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some() || (socket.exists() && self.docker(&["version"]).is_ok())
        });
        if let Some(status) = ended {
            bail!("dockerd ended at once, {status}:\n{}", self.log_end());
        }
        ensure!(ready, "dockerd doesn't answer:\n{}", self.log_end());
        Ok(())
    }

    fn make_image(&self) -> Result<()> {
        let image = self.directory.path().join("image");
        for directory in ["bin", "tmp", "www/cgi-bin"] {
            fs::create_dir_all(image.join(directory))?;
        }
        busybox_into(&image.join("bin"))?;
        whoami_into(&image.join("www"))?;
        let archive = self.directory.path().join("image.tar");
        shell::run(Command::new("tar").arg("-C").arg(&image).arg("-cf").arg(&archive).arg("."))?;
        self.docker(&["import", &archive.display().to_string(), IMAGE])?;
        fs::remove_dir_all(image)?;
        fs::remove_file(archive)?;
        Ok(())
    }

    /// `docker ARGS…` against this engine; returns its stdout.
    ///
    /// # Errors
    /// What `docker` says.
    pub fn docker(&self, args: &[&str]) -> Result<String> {
        shell::run(self.docker_command().args(args)).map(|said| said.trim().to_owned())
    }

    /// The engine's own `docker`, which will talk to it.
    pub fn docker_command(&self) -> Command {
        let mut command = Command::new(self.root.join("usr/bin/docker"));
        command
            .env(
                "DOCKER_HOST",
                format!("unix://{}", self.directory.path().join("socket").display()),
            )
            .env("DOCKER_CONFIG", self.directory.path())
            .env_remove("DOCKER_CONTEXT");
        command
    }

    /// Runs a container in the background: `docker run -d --name NAME FLAGS… IMAGE COMMAND…`.
    ///
    /// # Errors
    /// What `docker` says.
    pub fn run(&self, name: &str, flags: &[&str], command: &[&str]) -> Result<Ipv4Addr> {
        let args = [&["run", "-d", "--name", name], flags, &[IMAGE], command].concat();
        self.docker(&args)?;
        self.address(name)
    }

    /// Runs a web server on the container's port 80, which answers with the address the client came from.
    ///
    /// # Errors
    /// What `docker` says.
    pub fn web(&self, name: &str, flags: &[&str]) -> Result<Ipv4Addr> {
        self.run(name, flags, &["httpd", "-f", "-p", "0.0.0.0:80", "-h", "/www"])
    }

    /// The container's address in the first of its networks.
    ///
    /// # Errors
    /// When there is no such container, or it has no address (it may have ended at once).
    pub fn address(&self, name: &str) -> Result<Ipv4Addr> {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
        let said = self.docker(&["inspect", "-f", format, name])?;
        let first = said.split_whitespace().next();
        let first = first.with_context(|| format!("container {name} has no address"))?;
        first.parse().with_context(|| format!("address of container {name}: {first:?}"))
    }

    /// The process id of the container's first process, whose `/proc/PID/ns/net` is its namespace.
    ///
    /// # Errors
    /// When there is no such container, or it isn't running.
    pub fn pid(&self, name: &str) -> Result<u32> {
        let said = self.docker(&["inspect", "-f", "{{.State.Pid}}", name])?;
        let pid = said.parse().with_context(|| format!("process id of container {name}"))?;
        ensure!(pid != 0, "container {name} is not running");
        Ok(pid)
    }

    /// The process id of `dockerd`.
    pub fn dockerd(&self) -> u32 {
        self.child.id()
    }

    /// What `dockerd` and its `containerd` wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn remove_containers(&self) -> Result<()> {
        let all = self.docker(&["ps", "-aq"])?;
        let ids: Vec<&str> = all.split_whitespace().collect();
        if !ids.is_empty() {
            self.docker(&[&["rm", "-f", "-v"], ids.as_slice()].concat())?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("process id")?;
        kill_process(pid, Signal::TERM)?;
        if !shell::wait_until(PATIENCE, || !matches!(self.child.try_wait(), Ok(None))) {
            // containerd is in the same process group.
            kill_process_group(pid, Signal::KILL)?;
            self.child.wait()?;
            bail!("dockerd didn't end within {PATIENCE:?}:\n{}", self.log_end());
        }
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Cleaning up goes on after a failure, and each failure is said.
        if matches!(self.child.try_wait(), Ok(None)) {
            complain(self.remove_containers());
            complain(self.end());
        }
        complain(leftovers::unmount_below(self.directory.path()));
        complain(leftovers::remove_cgroup(&self.name));
        leftovers::remove_shared(&self.made);
    }
}

/// Copies busybox into `directory`, with a link for each of its applets.
///
/// # Errors
/// When busybox-static isn't installed.
pub fn busybox_into(directory: &Path) -> Result<()> {
    let busybox = directory.join("busybox");
    fs::copy("/bin/busybox", &busybox)
        .context("can't copy /bin/busybox: is busybox-static installed?")?;
    for applet in shell::run(Command::new(&busybox).arg("--list"))?.lines() {
        if applet != "busybox" {
            std::os::unix::fs::symlink("busybox", directory.join(applet))?;
        }
    }
    Ok(())
}

/// Writes the page of [`Engine::web`] into a document root of busybox's httpd.
///
/// # Errors
/// When it can't be written.
pub fn whoami_into(root: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let script = root.join("cgi-bin/index.cgi");
    fs::create_dir_all(root.join("cgi-bin"))?;
    fs::write(&script, WHOAMI)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn search_path(root: &Path) -> String {
    let root = root.display();
    format!("{root}/usr/sbin:{root}/usr/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
}

fn complain(outcome: Result<()>) {
    if let Err(error) = outcome {
        eprintln!("harness: docker: {error:#}");
    }
}
