//! What can go wrong with the kernel's side, each with what to do about it.

use std::{io, path::PathBuf};

/// The datapath can't be opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The pin directory isn't on a bpffs.
    #[error("{} is not on a BPF file system", .0.display())]
    NoBpffs(PathBuf),
    /// The process may not use BPF.
    #[error("no permission to use BPF: {0}")]
    Permission(String),
    /// Pins of a layout that this version can't read.
    #[error("{} holds a datapath of another version ({found}; this is v{ours})", directory.display())]
    OtherLayout {
        /// The pin directory.
        directory: PathBuf,
        /// The version directories that were found.
        found: String,
        /// The version of this program's layout.
        ours: u32,
    },
    /// A pinned map differs from what this version makes.
    #[error("the pinned map {} does not match this version: {difference}", path.display())]
    PinMismatch {
        /// The pin.
        path: PathBuf,
        /// What differs, in words.
        difference: String,
    },
    /// The kernel refused the object or a program.
    #[error("the kernel does not take program {program}: {reason}")]
    Load {
        /// The program, or "object".
        program: String,
        /// The last lines of what the kernel said.
        reason: String,
    },
    /// The object lacks something; a fault of this program.
    #[error("the BPF object has no {0}")]
    Missing(String),
    /// A program can't be attached.
    #[error("can't attach {program} to {interface}: {reason}")]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface's name.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// A map can't be read or written.
    #[error("map {name}: {reason}")]
    Map {
        /// The map's name.
        name: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// Something with the pin directory.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was accessed.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl DatapathError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoBpffs(_) => Some("mount -t bpf bpf /sys/fs/bpf".into()),
            Self::Permission(_) => Some(
                "run publisherd as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON".into(),
            ),
            Self::OtherLayout { directory, .. } => Some(format!(
                "run `publisherctl uninstall` with that version, or remove {} to end its sessions",
                directory.display()
            )),
            Self::PinMismatch { path, .. } => Some(format!(
                "remove {} to start with empty tables; its sessions end",
                path.parent().and_then(std::path::Path::parent).unwrap_or(path).display()
            )),
            Self::Load { .. } => Some(
                "Publisher needs Linux 5.10 or newer with CONFIG_BPF_SYSCALL, CONFIG_BPF_JIT and \
                 CONFIG_NET_CLS_BPF"
                    .into(),
            ),
            Self::Attach { .. } | Self::Missing(_) | Self::Map { .. } | Self::Io { .. } => None,
        }
    }

    /// An error about `path`.
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// An error with its causes, in one line: aya keeps the errno in the last one.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
