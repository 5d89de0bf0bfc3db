//! What an engine leaves on the machine, also one that was killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::mount::{UnmountFlags, unmount};

use crate::shell;

/// Paths that an engine writes to whatever it is told; the inner ones first.
const SHARED: [&str; 7] = [
    "/etc/docker/key.json",
    "/etc/docker",
    "/run/containerd/s",
    "/run/containerd",
    "/run/docker/plugins",
    "/run/docker",
    "/opt/containerd",
];

/// Those of the paths that aren't there yet.
pub fn shared_to_be_made() -> Vec<PathBuf> {
    SHARED.iter().map(PathBuf::from).filter(|path| !path.exists()).collect()
}

/// Removes them again.
pub fn remove_shared(made: &[PathBuf]) {
    for path in made {
        // Another engine may be using it by now: then it isn't empty, and stays.
        let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
    }
}

/// Takes away the mounts of containers that the engine didn't get to remove, the inner ones first.
///
/// # Errors
/// When the kernel refuses one.
pub fn unmount_below(directory: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    for point in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(point).starts_with(directory) {
            unmount(point, UnmountFlags::DETACH).with_context(|| format!("unmount {point}"))?;
        }
    }
    Ok(())
}

/// Removes the control group of this name in the one hierarchy of version 2, or in those of version 1.
///
/// # Errors
/// When a process is still in one of them after two seconds.
pub fn remove_cgroup(name: &str) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        if let (Some(point), Some("cgroup" | "cgroup2")) = (fields.next(), fields.next()) {
            remove_tree(&Path::new(point).join(name))?;
        }
    }
    Ok(())
}

fn remove_tree(directory: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    // The last process of a container may still be on its way out.
    let gone = shell::wait_until(Duration::from_secs(2), || fs::remove_dir(directory).is_ok());
    ensure!(gone, "control group {} is in use", directory.display());
    Ok(())
}
