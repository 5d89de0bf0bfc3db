//! Why the state directory can't be used.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of the state directory.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds it.
    #[error("state directory {} is in use by {}", .dir.display(), holder(*.pid))]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The process that holds it, where its lock file says so.
        pid: Option<u32>,
    },
    /// The operating system refused.
    #[error("can't {doing} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// All 4,294,967,295 ids have been given out.
    #[error("no publication id is left in the state directory")]
    IdsExhausted,
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("another publisherd (pid {pid})"),
        None => "another publisherd".to_owned(),
    }
}

impl StoreError {
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Locked { .. } => {
                Some("stop the other daemon, or give this one its own --state-dir".into())
            }
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    Some("run publisherd as root, or choose another --state-dir".into())
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Some("free some space on that file system".into())
                }
                io::ErrorKind::ReadOnlyFilesystem => {
                    Some("choose a --state-dir that can be written".into())
                }
                _ => None,
            },
            Self::IdsExhausted => Some("remove publications.json and add them anew".into()),
        }
    }
}
