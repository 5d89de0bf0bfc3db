//! What the tests need and the machine must not run by itself: two Docker engines, two old kernels, fail2ban, nginx and ufw,
//! unpacked into the cache.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Step;
use super::archive::Suite;
use crate::{paths, run};

/// A directory of the cache that is filled from Debian packages.
pub struct Tree {
    /// Below the cache directory.
    dir: &'static str,
    /// The variable that tells the tests where it is.
    variable: &'static str,
    /// In words, for messages.
    what: &'static str,
    /// The beginning of the version that the first package must have.
    version: &'static str,
    parts: &'static [(&'static str, &'static [&'static str])],
}

pub const TREES: [Tree; 7] = [
    Tree {
        dir: "docker-20.10",
        variable: "PUBLISHER_DOCKER_20_10",
        what: "Docker 20.10",
        version: "20.10.",
        parts: &[("bookworm", &["docker.io", "containerd", "runc"])],
    },
    Tree {
        dir: "docker-28.5",
        variable: "PUBLISHER_DOCKER_28_5",
        what: "Docker 28.5",
        version: "28.5.",
        // The newer runc wants a newer libc than Debian 12 has; the rest of the engine doesn't.
        parts: &[("forky", &["docker.io", "docker-cli", "containerd"]), ("bookworm", &["runc"])],
    },
    Tree {
        dir: "kernel-5.10",
        variable: "PUBLISHER_KERNEL_5_10",
        what: "kernel 5.10",
        version: "5.10.",
        parts: &[("bullseye", &["linux-image-cloud-amd64"])],
    },
    Tree {
        dir: "kernel-6.1",
        variable: "PUBLISHER_KERNEL_6_1",
        what: "kernel 6.1",
        version: "6.1.",
        parts: &[("bookworm", &["linux-image-cloud-amd64"])],
    },
    Tree {
        dir: "fail2ban-1.0",
        variable: "PUBLISHER_FAIL2BAN",
        what: "fail2ban 1.0",
        version: "1.0.",
        // Debian 12's own Python runs it. Installed, it would start and watch the machine's logs.
        parts: &[("bookworm", &["fail2ban"])],
    },
    Tree {
        dir: "nginx-1.22",
        variable: "PUBLISHER_NGINX",
        what: "nginx 1.22",
        version: "1.22.",
        // Installed, it would start and take the machine's port 80.
        parts: &[("bookworm", &["nginx"])],
    },
    Tree {
        dir: "ufw-0.36",
        variable: "PUBLISHER_UFW",
        what: "ufw 0.36",
        version: "0.36",
        // Debian 12's own Python runs it. Installed, it would be started with the machine.
        parts: &[("bookworm", &["ufw"])],
    },
];

/// Written last: a tree that has it is complete. It lists the packages with their versions.
const COMPLETE: &str = "PACKAGES";

/// The variables for the programs that use the trees.
pub fn environment() -> impl Iterator<Item = (&'static str, PathBuf)> {
    TREES.iter().map(|tree| (tree.variable, tree.path()))
}

impl Tree {
    /// Where it is, or will be: the variable wins, so that a tree can be brought by hand.
    fn path(&self) -> PathBuf {
        self.by_hand().map_or_else(|| paths::cache().join(self.dir), PathBuf::from)
    }

    fn by_hand(&self) -> Option<OsString> {
        env::var_os(self.variable).filter(|path| !path.is_empty())
    }

    fn fill(&self, root: &Path, scratch: &Path) -> Result<Vec<String>> {
        let mut packages = Vec::new();
        for (suite, names) in self.parts {
            let suite = Suite::open(suite, scratch)?;
            for name in *names {
                let name = match name.strip_prefix("linux-image-cloud-") {
                    Some(_) => suite.meant_by(name)?,
                    None => (*name).to_owned(),
                };
                let version = suite.unpack(&name, root)?;
                packages.push(format!("{name} {version}"));
            }
        }
        Ok(packages)
    }
}

impl Step for &Tree {
    fn missing(&self) -> Result<Option<String>> {
        if let Some(path) = self.by_hand() {
            if !Path::new(&path).is_dir() {
                bail!("{} names {}, which is no directory", self.variable, path.display());
            }
            return Ok(None);
        }
        let complete = self.path().join(COMPLETE).is_file();
        Ok((!complete).then(|| self.what.to_owned()))
    }

    fn fix(&self) -> Result<String> {
        let root = self.path();
        let cache = paths::cache();
        let scratch = cache.join(format!("{}.new", self.dir));
        let fresh = scratch.join("root");
        remove(&scratch)?;
        remove(&root)?;
        let packages = self.fill(&fresh, &scratch)?;
        if fresh.join("boot").is_dir() {
            index_modules(&fresh)?;
        }
        let list = packages.join("\n");
        fs::write(fresh.join(COMPLETE), format!("{list}\n"))?;
        fs::rename(&fresh, &root)
            .with_context(|| format!("cannot move {} to {}", fresh.display(), root.display()))?;
        remove(&scratch)?;
        let first = packages.first().map_or("", String::as_str);
        let version = first.split_once(' ').map_or("", |(_, version)| version);
        if !version.starts_with(self.version) {
            // Debian's testing moves on; a newer engine is better than none.
            run::say("setup", format!("note: wanted {}, the archive now has {version}", self.what));
        }
        Ok(format!("unpacked {} into {}", packages.join(", "), root.display()))
    }
}

/// Debian's kernel packages leave `modules.dep` to their installation script.
fn index_modules(root: &Path) -> Result<()> {
    // A package of Debian 11 has `lib`, a newer one may have `usr/lib`.
    for lib in ["lib/modules", "usr/lib/modules"] {
        let Ok(releases) = fs::read_dir(root.join(lib)) else { continue };
        let base = root.join(lib.trim_end_matches("lib/modules"));
        for release in releases {
            let release = release?.file_name();
            run::quiet(Command::new("/sbin/depmod").arg("-b").arg(&base).arg(release))?;
        }
    }
    Ok(())
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
