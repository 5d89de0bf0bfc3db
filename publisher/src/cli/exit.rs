//! Exit codes, as documented for scripts.

use std::process::{ExitCode, Termination};

use crate::api::ErrorCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// It was tried and failed.
    Failed = 1,
    /// The command line, or a value on it, makes no sense.
    Usage = 2,
    /// No daemon answers on the socket.
    Unreachable = 3,
    /// What was named isn't there.
    NotFound = 4,
    /// Something else is in the way.
    Conflict = 5,
    /// Not allowed.
    Permission = 6,
}

impl From<ErrorCode> for Exit {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::Failed => Self::Failed,
            ErrorCode::Usage => Self::Usage,
            ErrorCode::NotFound => Self::NotFound,
            ErrorCode::Conflict => Self::Conflict,
            ErrorCode::Permission => Self::Permission,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        self.into()
    }
}
