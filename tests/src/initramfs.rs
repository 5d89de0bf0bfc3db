//! An initial file system for a kernel: a cpio archive in the `newc` format, written in order.
//!
//! Format: `Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// Type bits of the mode, as in `stat(2)`.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// The archive so far.
#[derive(Debug, Default)]
pub struct Initramfs {
    bytes: Vec<u8>,
    directories: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
    inodes: u32,
}

impl Initramfs {
    /// Adds a file that everyone may run, and the directories above it. A second file of the same name is left out.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        if self.files.insert(path.into()) {
            self.parents(Path::new(path));
            self.entry(path, REGULAR | 0o755, content);
        }
    }

    /// Adds a directory and those above it.
    pub fn directory(&mut self, path: &str) {
        self.parents(&Path::new(path).join("inside"));
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        if self.files.insert(path.into()) {
            self.parents(Path::new(path));
            self.entry(path, LINK | 0o777, target.as_bytes());
        }
    }

    /// Adds a program of this machine as `path`, without its debugging information, and the shared libraries it asks
    /// for, at their places here.
    ///
    /// # Errors
    /// When it can't be read, or a library of it isn't here.
    pub fn program(&mut self, path: &str, program: &Path) -> Result<()> {
        self.file(path, &stripped(program)?);
        for library in libraries(program)? {
            let content = fs::read(&library).with_context(|| format!("read {library}"))?;
            self.file(&library, &content);
        }
        Ok(())
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn parents(&mut self, path: &Path) {
        let above: Vec<&Path> = path.ancestors().skip(1).collect();
        for directory in above.into_iter().rev() {
            if directory != Path::new("/") && self.directories.insert(directory.to_owned()) {
                self.entry(&directory.to_string_lossy(), DIRECTORY | 0o755, &[]);
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let name = path.trim_start_matches('/');
        self.inodes += 1;
        let size = u32::try_from(content.len()).expect("a file of less than 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("a short name");
        // inode, mode, uid, gid, links, time, size, device (2), device number (2), name's size, checksum
        let fields = [self.inodes, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The program without debugging information: under emulation every megabyte is loaded slowly.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    let directory = tempfile::tempdir()?;
    let copy = directory.path().join("stripped");
    shell::run(Command::new("strip").arg("-o").arg(&copy).arg(program))?;
    fs::read(copy).with_context(|| format!("read what strip made of {}", program.display()))
}

/// The files that the dynamic linker maps for a program; none for a static one.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = shell::output(Command::new("ldd").arg(program))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.contains("not found") {
        anyhow::bail!("{} misses libraries:\n{text}", program.display());
    }
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(|path| path.trim_end_matches(':').to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::Initramfs;
    use crate::shell;
    use std::process::Command;

    /// busybox's cpio is the reader to agree with.
    #[test]
    fn another_cpio_reads_it_back() {
        let mut archive = Initramfs::default();
        archive.file("/deep/er/file", b"12345");
        archive.link("/deep/link", "er/file");
        archive.directory("/empty");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("archive");
        std::fs::write(&path, archive.finish()).unwrap();
        let script = format!("cd {0} && busybox cpio -id < archive", directory.path().display());
        shell::run(Command::new("sh").args(["-c", &script])).unwrap();
        assert_eq!(std::fs::read(directory.path().join("deep/link")).unwrap(), b"12345");
        assert!(directory.path().join("empty").is_dir());
    }
}
