//! Network namespaces with a name, ended by their guard.
//!
//! Commands enter with `nsenter --net=…`, never with `ip netns exec`: that one mounts a fresh
//! `/sys` and so hides the BPF file system. Sockets are made by a thread that enters
//! ([`Netns::run`]); a socket stays in its namespace whichever thread uses it later.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::shell;

/// Every namespace of the harness is called `pubt-<pid>-<number>-<label>`.
pub const PREFIX: &str = "pubt-";

/// A network namespace; dropping it deletes its name, and with the last user the namespace.
#[derive(Debug)]
pub struct Netns {
    name: String,
    path: PathBuf,
    file: File,
    /// Whether the harness made it, and has to delete it.
    made: bool,
}

impl Netns {
    /// Makes a namespace with loopback up, a congestion control that doesn't pace, and IPv6 addresses that are
    /// usable at once (no duplicate address detection, no router advertisements).
    ///
    /// # Errors
    /// When the test doesn't run as root, or iproute2 is missing.
    pub fn new(label: &str) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        ensure!(
            rustix::process::geteuid().is_root(),
            "end-to-end tests make network namespaces and load BPF programs: run them as root"
        );
        SWEEP.call_once(sweep_dead_owners);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{label}", std::process::id());
        shell::run(Command::new("ip").args(["netns", "add", &name]))?;
        let path = PathBuf::from("/run/netns").join(&name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let ns = Self { name, path, file, made: true };
        ns.ip("link set lo up")?;
        // Where cubic is neither the kernel's default nor allowed to everybody, a namespace may
        // not have it; reno is allowed everywhere. Both send as the path allows, unlike bbr.
        ns.sysctl("ipv4/tcp_congestion_control", "cubic")
            .or_else(|_| ns.sysctl("ipv4/tcp_congestion_control", "reno"))?;
        for interface in ["all", "default"] {
            ns.sysctl(&format!("ipv6/conf/{interface}/accept_dad"), "0")?;
            ns.sysctl(&format!("ipv6/conf/{interface}/accept_ra"), "0")?;
        }
        Ok(ns)
    }

    /// The namespace of a process, such as a container's first one. It stays when this is dropped.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of_process(pid: u32) -> Result<Self> {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self { name: format!("process {pid}"), path, file, made: false })
    }

    /// The name under `/run/netns`, where it has one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `f` on a thread inside the namespace and returns its value; a panic in `f` goes on in
    /// the caller.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                f()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn enter(&self) {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .unwrap_or_else(|error| panic!("setns to {}: {error}", self.name));
    }

    /// A command that will run inside the namespace, with the caller's mounts. Its process id is
    /// the program's own: nsenter replaces itself.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs `ip ARGS…` inside; the arguments are split at blanks.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn ip(&self, args: &str) -> Result<String> {
        shell::run(self.command("ip").args(args.split_whitespace()))
    }

    /// Runs a whole command line inside; the arguments are split at blanks.
    ///
    /// # Errors
    /// What the program says, when its exit status isn't 0.
    pub fn sh(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().context("empty command line")?;
        shell::run(self.command(program).args(words))
    }

    /// Writes `/proc/sys/net/KEY` inside.
    ///
    /// # Errors
    /// When the kernel refuses the value or has no such key.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run(|| std::fs::write(format!("/proc/sys/net/{key}"), value))
            .with_context(|| format!("set net/{key} = {value} in {}", self.name))
    }

    /// Reads `/proc/sys/net/KEY` inside, without the newline.
    ///
    /// # Errors
    /// When the kernel has no such key.
    pub fn read_sysctl(&self, key: &str) -> Result<String> {
        let text = self
            .run(|| std::fs::read_to_string(format!("/proc/sys/net/{key}")))
            .with_context(|| format!("read net/{key} in {}", self.name))?;
        Ok(text.trim().to_owned())
    }

    /// The MAC address of an interface inside.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn mac(&self, interface: &str) -> Result<[u8; 6]> {
        let text = self.ip(&format!("-o link show dev {interface}"))?;
        let word = text.split_whitespace().skip_while(|w| *w != "link/ether").nth(1);
        let word = word.with_context(|| format!("{interface} has no Ethernet address: {text}"))?;
        let mut mac = [0; 6];
        for (byte, part) in mac.iter_mut().zip(word.split(':')) {
            *byte = u8::from_str_radix(part, 16).context("MAC address")?;
        }
        Ok(mac)
    }

    /// The index of an interface inside.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn ifindex(&self, interface: &str) -> Result<u32> {
        let text = self.ip(&format!("-o link show dev {interface}"))?;
        let number = text.split(':').next().unwrap_or_default().trim();
        number.parse().with_context(|| format!("interface index in {text:?}"))
    }

    /// The link-local IPv6 address of an interface inside.
    ///
    /// # Errors
    /// When it has none.
    pub fn link_local(&self, interface: &str) -> Result<std::net::Ipv6Addr> {
        let text = self.ip(&format!("-6 -o addr show dev {interface} scope link"))?;
        let word = text.split_whitespace().skip_while(|w| *w != "inet6").nth(1);
        let word = word.with_context(|| format!("{interface} has no link-local address"))?;
        word.split('/').next().unwrap_or(word).parse().context("link-local address")
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if !self.made {
            return;
        }
        if let Err(error) = shell::run(Command::new("ip").args(["netns", "del", &self.name])) {
            eprintln!("harness: {error:#}");
        }
    }
}

/// Joins two namespaces with a veth pair: `a_name` in `a`, `b_name` in `b`, both up with this MTU.
///
/// # Errors
/// What `ip` says.
pub fn veth(a: &Netns, a_name: &str, b: &Netns, b_name: &str, mtu: u32) -> Result<()> {
    a.ip(&format!(
        "link add {a_name} mtu {mtu} type veth peer name {b_name} mtu {mtu} netns {}",
        b.name()
    ))?;
    a.ip(&format!("link set {a_name} up"))?;
    b.ip(&format!("link set {b_name} up"))?;
    Ok(())
}

/// The names of existing namespaces that start with `prefix`.
pub fn existing(prefix: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// Deletes namespaces of test processes that were killed before their guards could run.
fn sweep_dead_owners() {
    for name in existing(PREFIX) {
        let owner = name[PREFIX.len()..].split('-').next().unwrap_or_default();
        if owner.parse::<u32>().is_ok() && !PathBuf::from("/proc").join(owner).exists() {
            let _ = shell::run(Command::new("ip").args(["netns", "del", &name]));
        }
    }
}
