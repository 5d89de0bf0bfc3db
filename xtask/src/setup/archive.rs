//! Packages of other Debian suites, unpacked and never installed.
//!
//! Apt's own client does the work, on a state of its own in a scratch directory, so that the machine's package lists and
//! dpkg database are not touched. The archive's address is the one that the machine's apt uses for its own suite.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One suite, with the apt state that knows it.
pub struct Suite {
    name: &'static str,
    dir: PathBuf,
}

impl Suite {
    /// Downloads the suite's package list into `scratch`.
    pub fn open(name: &'static str, scratch: &Path) -> Result<Self> {
        let dir = scratch.join(name);
        for sub in ["lists/partial", "cache/archives/partial", "debs"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        let keyring = if Path::new(KEYRING).exists() {
            format!("[signed-by={KEYRING}] ")
        } else {
            String::new()
        };
        let source = format!("deb {keyring}{} {name} main\n", archive()?);
        fs::write(dir.join("sources.list"), source)?;
        fs::write(dir.join("status"), "")?;
        let suite = Self { name, dir };
        run::quiet(&mut suite.apt("apt-get", &["update", "-q"])).map_err(|_| {
            run::hinted(
                format!("apt cannot read Debian's suite `{name}` from the machine's archive"),
                "point apt's sources at a full Debian archive, then run `cargo xtask setup` again",
            )
        })?;
        Ok(suite)
    }

    /// Downloads a package and unpacks it into `root`. Returns its version.
    pub fn unpack(&self, package: &str, root: &Path) -> Result<String> {
        let version = self.version(package)?;
        let wanted = format!("{package}={version}");
        let mut command = self.apt("apt-get", &["download", "-q", &wanted]);
        run::quiet(command.current_dir(self.dir.join("debs")))?;
        let file = self.downloaded(package)?;
        fs::create_dir_all(root)?;
        run::quiet(Command::new("dpkg").arg("-x").arg(&file).arg(root))?;
        fs::remove_file(file)?;
        Ok(version)
    }

    /// The package that a metapackage such as `linux-image-cloud-amd64` stands for.
    pub fn meant_by(&self, metapackage: &str) -> Result<String> {
        let listing = run::quiet(&mut self.apt("apt-cache", &["depends", metapackage]))?;
        listing
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with("linux-image-"))
            .map(str::to_owned)
            .with_context(|| format!("{metapackage} of {} depends on no kernel image", self.name))
    }

    fn version(&self, package: &str) -> Result<String> {
        let policy = run::quiet(&mut self.apt("apt-cache", &["policy", package]))?;
        policy
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Candidate: "))
            .find(|version| *version != "(none)")
            .map(str::to_owned)
            .with_context(|| format!("Debian's {} has no package {package}", self.name))
    }

    fn downloaded(&self, package: &str) -> Result<PathBuf> {
        let prefix = format!("{package}_");
        for entry in fs::read_dir(self.dir.join("debs"))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                return Ok(entry.path());
            }
        }
        bail!("apt-get downloaded no file for {package}")
    }

    fn apt(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let at = |name: &str| self.dir.join(name).display().to_string();
        let options = [
            format!("Dir::State={}", at("")),
            format!("Dir::State::Lists={}", at("lists")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::Cache::archives={}", at("cache/archives")),
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::Etc::preferences=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            // A mirror or snapshot may lag behind the days that a testing suite's signature is meant for. The
            // signature itself is checked.
            "Acquire::Check-Valid-Until=false".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            // The scratch directory may be one that the user `_apt` can't reach.
            "APT::Sandbox::User=root".to_owned(),
        ];
        for option in options {
            command.arg("-o").arg(option);
        }
        command.args(arguments).env("LC_ALL", "C.UTF-8");
        command
    }
}

/// Where the machine's apt has its own release from: one-line and deb822 sources alike, as apt itself reads them.
fn archive() -> Result<String> {
    let os_release =
        fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .context("/etc/os-release names no VERSION_CODENAME")?;
    let targets = run::quiet(Command::new("apt-get").args([
        "indextargets",
        "--no-release-info",
        "--format",
        "$(RELEASE) $(COMPONENT) $(REPO_URI)",
    ]))?;
    address_of(&codename, &targets).ok_or_else(|| {
        run::hinted(
            format!(
                "apt has no source with `{codename} main`: no Debian archive to take packages from"
            ),
            "add it to /etc/apt/sources.list",
        )
    })
}

/// The archive of `codename main` in what `apt-get indextargets` lists. `codename-security` and others have archives of
/// their own, which don't carry other suites.
fn address_of(codename: &str, targets: &str) -> Option<String> {
    let wanted = format!("{codename} main ");
    targets
        .lines()
        .find_map(|line| line.strip_prefix(&wanted))
        .map(|address| address.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::address_of;

    #[test]
    fn the_archive_is_the_one_of_the_release_itself() {
        let targets = "bookworm-security main http://security.example/debian-security/\n\
                       nodistro main https://other.example/\n\
                       bookworm contrib http://contrib.example/debian/\n\
                       bookworm main http://archive.example/debian/\n\
                       bookworm main http://second.example/debian/\n";
        assert_eq!(
            address_of("bookworm", targets).as_deref(),
            Some("http://archive.example/debian")
        );
        assert_eq!(address_of("trixie", targets), None);
    }
}
