//! Mistakes in the configuration, with their place in the file.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is no configuration. One line each.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file says something that can't be.
    #[error("{}:{line}:{column}: {message}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
}

impl ConfigError {
    pub(super) fn invalid(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        // The parser's messages may have several lines; an error is one.
        let message: Vec<_> = error.message().lines().map(str::trim).collect();
        Self::Invalid {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.join(", "),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run publisherd as root".into())
            }
            Self::Read { .. } => {
                Some("name another file; publisherd takes it with --config".into())
            }
            Self::Invalid { path, .. } => Some(format!(
                "`publisherctl config check {}` looks again once it is corrected",
                path.display()
            )),
        }
    }
}
