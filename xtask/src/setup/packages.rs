//! The machine's own packages: the compiler that builds BPF objects, and the tools of the tests.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result};

use super::Step;
use crate::{paths, run};

/// Debian's compiler with the library sources that match it, and the LLVM that bpf-linker links.
/// No nightly is needed: the sources of `core` are what a stable toolchain lacks.
const BPF: [&str; 7] = [
    "rustc-web",
    "rust-web-src",
    "cargo-web",
    "llvm-22-dev",
    "libpolly-22-dev",
    "libzstd-dev",
    "zlib1g-dev",
];

/// What the demo, the tests and the benchmark run. The libraries are those of the Docker engines, which are
/// unpacked and not installed.
const TOOLS: [&str; 16] = [
    "bpftool",
    "busybox-static",
    "ethtool",
    "g++",
    "iperf3",
    "iproute2",
    "iptables",
    "kmod",
    "libdevmapper1.02.1",
    "libseccomp2",
    "libsystemd0",
    "nftables",
    "procps",
    "python3",
    "qemu-system-x86",
    "util-linux",
];

pub struct Packages;

impl Packages {
    fn absent() -> Result<Vec<&'static str>> {
        if paths::which("dpkg-query").is_none() || paths::which("apt-get").is_none() {
            return Err(run::hinted(
                "this machine has no apt: setup knows Debian 12 only",
                "elsewhere: a rustup nightly with rust-src, `cargo install bpf-linker`, then `cargo build --release`",
            ));
        }
        let output = Command::new("dpkg-query")
            .args(["-W", "-f", "${db:Status-Status} ${Package}\n"])
            .output()
            .context("cannot ask dpkg-query which packages are installed")?;
        let listing = String::from_utf8_lossy(&output.stdout).into_owned();
        let installed: BTreeSet<&str> =
            listing.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
        Ok(BPF.into_iter().chain(TOOLS).filter(|name| !installed.contains(name)).collect())
    }
}

impl Step for Packages {
    fn missing(&self) -> Result<Option<String>> {
        let absent = Self::absent()?;
        Ok((!absent.is_empty()).then(|| format!("packages {}", absent.join(" "))))
    }

    fn fix(&self) -> Result<String> {
        let absent = Self::absent()?;
        if !run::is_root() {
            return Err(run::hinted(
                format!("installing packages needs root ({} missing)", absent.len()),
                format!("as root: apt-get install --no-install-recommends {}", absent.join(" ")),
            ));
        }
        run::quiet(apt_get().args(["update", "-q"]))?;
        run::quiet(
            apt_get().args(["install", "-q", "-y", "--no-install-recommends"]).args(&absent),
        )?;
        Ok(format!("installed {} packages with apt-get", absent.len()))
    }
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    // dpkg's lock may be held by the machine's own timer.
    command.args(["-o", "DPkg::Lock::Timeout=300"]);
    command
}
