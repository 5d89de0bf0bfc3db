//! What a test run may leave on the machine, seen from outside the tests.
//!
//! The harness looks after every case for the objects it knows of. This looks once, at the end, for everything that
//! wasn't there before, whoever made it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::paths;

const BPFFS: &str = "/sys/fs/bpf";

/// Pins, namespaces, interfaces, mounts and processes, in words.
pub struct Traces(BTreeSet<String>);

impl Traces {
    /// What is on the machine at this moment.
    pub fn now() -> Result<Self> {
        let mut traces = BTreeSet::new();
        entries(Path::new(BPFFS), "pin", &mut traces);
        entries(Path::new("/run/netns"), "namespace", &mut traces);
        entries(Path::new("/sys/class/net"), "interface", &mut traces);
        for cgroup in ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"] {
            entries(Path::new(cgroup), "control group", &mut traces);
        }
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
        traces.extend(mounts.lines().filter_map(|line| {
            // A bpffs that a daemon found absent and mounted stays: it is the machine's.
            let point = line.split(' ').nth(1)?;
            (point != BPFFS).then(|| format!("mount {point}"))
        }));
        processes(&mut traces);
        Ok(Self(traces))
    }

    /// What is there now and wasn't before.
    pub fn left_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a String> {
        self.0.difference(&before.0)
    }
}

fn entries(dir: &Path, what: &str, into: &mut BTreeSet<String>) {
    let Ok(found) = fs::read_dir(dir) else { return };
    for entry in found.flatten() {
        into.insert(format!("{what} {}", entry.path().display()));
    }
}

/// Processes whose program was built here or unpacked into the cache.
fn processes(into: &mut BTreeSet<String>) {
    let ours: [PathBuf; 2] = [paths::release_dir(), paths::cache()];
    let Ok(found) = fs::read_dir("/proc") else { return };
    for entry in found.flatten() {
        let Ok(program) = fs::read_link(entry.path().join("exe")) else { continue };
        if ours.iter().any(|dir| program.starts_with(dir)) {
            let pid = entry.file_name();
            into.insert(format!("process {} ({})", pid.to_string_lossy(), program.display()));
        }
    }
}
