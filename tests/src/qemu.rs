//! Debian's kernels, booted under QEMU's software emulation to run one shell script.
//!
//! The kernels come from [`crate::fetched`]. A guest has no disk and no network card: what it needs is in its initial
//! file system, and what it says on the serial console is the result. Nothing measured in it means anything for speed.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::initramfs::Initramfs;
use crate::{fetched, shell};

/// Stands in front of the script's exit status on the console.
const VERDICT: &str = "guest: the script ended with ";

/// Makes the guest usable, runs the script, says how it ended, and powers off.
const INIT: &str = "#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
for module in $(cat /modules/order); do
    insmod /modules/$module || echo \"guest: cannot load $module\"
done
sh -e /script
echo \"VERDICT$?\"
poweroff -f
";

/// The kernels that the tests know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Debian 11's: the oldest that Publisher supports.
    V5_10,
    /// Debian 12's: the last without tcx.
    V6_1,
}

impl fmt::Display for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
        })
    }
}

impl Kernel {
    fn root(self) -> Result<PathBuf> {
        match self {
            Self::V5_10 => fetched::tree("PUBLISHER_KERNEL_5_10", "kernel-5.10"),
            Self::V6_1 => fetched::tree("PUBLISHER_KERNEL_6_1", "kernel-6.1"),
        }
    }
}

/// A machine that is being put together.
#[derive(Debug)]
pub struct Guest {
    kernel: Kernel,
    image: PathBuf,
    modules_root: PathBuf,
    release: String,
    files: Initramfs,
    modules: Vec<String>,
}

impl Guest {
    /// A guest with busybox and all its applets.
    ///
    /// # Errors
    /// When the kernel isn't unpacked or busybox-static isn't installed.
    pub fn new(kernel: Kernel) -> Result<Self> {
        let root = kernel.root()?;
        let image = fs::read_dir(root.join("boot"))?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
            })
            .with_context(|| format!("no kernel in {}/boot", root.display()))?;
        let name = image.file_name().context("kernel image")?.to_string_lossy().into_owned();
        let release = name.trim_start_matches("vmlinuz-").to_owned();
        let usr = root.join("usr");
        let modules_root = if usr.join("lib/modules").is_dir() { usr } else { root };
        let mut files = Initramfs::default();
        for directory in ["/proc", "/sys", "/dev", "/run", "/tmp", "/var/lib"] {
            files.directory(directory);
        }
        let busybox = Path::new("/bin/busybox");
        let content =
            fs::read(busybox).context("can't read /bin/busybox: is busybox-static installed?")?;
        files.file("/bin/busybox", &content);
        for applet in shell::run(Command::new(busybox).arg("--list"))?.lines() {
            files.link(&format!("/bin/{applet}"), "busybox");
        }
        Ok(Self { kernel, image, modules_root, release, files, modules: Vec::new() })
    }

    /// Adds a module of the kernel, to be loaded before the script, and the modules it needs.
    ///
    /// # Errors
    /// When the kernel has no such module.
    pub fn module(&mut self, name: &str) -> Result<()> {
        let mut command = Command::new("/sbin/modprobe");
        command.arg("-d").arg(&self.modules_root).args(["-S", &self.release]);
        let said = shell::run(command.args(["--show-depends", name]))
            .with_context(|| format!("module {name} of kernel {}", self.kernel))?;
        for path in said.lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let path = Path::new(path.trim());
            let name = path.file_name().context("module")?.to_string_lossy().into_owned();
            if !self.modules.contains(&name) {
                self.files.file(&format!("/modules/{name}"), &fs::read(path)?);
                self.modules.push(name);
            }
        }
        Ok(())
    }

    /// Adds a program of this machine, with its libraries, as `/tools/NAME`. The script must call it by that path: busybox's
    /// shell prefers its own applets to what stands in the path.
    ///
    /// # Errors
    /// When it or one of its libraries isn't there.
    pub fn tool(&mut self, program: &Path) -> Result<()> {
        let name = program.file_name().context("program")?.to_string_lossy();
        self.files.program(&format!("/tools/{name}"), program)
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.files.file(path, content);
    }

    /// Boots, runs the script with `sh -e`, and returns the console's text.
    ///
    /// # Errors
    /// When qemu isn't installed, the guest doesn't end within `limit`, or the script's exit status isn't 0; the error
    /// holds the console's text.
    pub fn run(mut self, script: &str, limit: Duration) -> Result<String> {
        let directory = tempfile::tempdir()?;
        self.files.file("/script", script.as_bytes());
        self.files.file("/modules/order", self.modules.join("\n").as_bytes());
        self.files.file("/init", INIT.replace("VERDICT", VERDICT).as_bytes());
        let initramfs = directory.path().join("initramfs");
        fs::write(&initramfs, self.files.finish())?;
        let console = directory.path().join("console");
        let mut child = Command::new("qemu-system-x86_64")
            .args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024"])
            .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
            .args(["-nic", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(&self.image)
            .arg("-initrd")
            .arg(&initramfs)
            .args(["-append", "console=ttyS0 panic=-1 quiet"])
            .stdin(Stdio::null())
            .stdout(File::create(&console)?)
            .stderr(Stdio::inherit())
            .spawn()
            .context("can't run qemu-system-x86_64: is qemu-system-x86 installed?")?;
        let ended = shell::wait_until(limit, || !matches!(child.try_wait(), Ok(None)));
        if !ended {
            child.kill()?;
            child.wait()?;
        }
        let text = String::from_utf8_lossy(&fs::read(&console)?).replace('\r', "");
        let kernel = self.kernel;
        ensure!(ended, "kernel {kernel}: not done within {limit:?}; its console:\n{text}");
        match text.lines().find_map(|line| line.strip_prefix(VERDICT)) {
            Some("0") => Ok(text),
            Some(status) => bail!("kernel {kernel}: exit status {status}; its console:\n{text}"),
            None => bail!("kernel {kernel} didn't finish the script; its console:\n{text}"),
        }
    }
}
