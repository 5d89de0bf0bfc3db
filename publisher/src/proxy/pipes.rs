//! Pipes to move data through without copying it (splice(2)). A connection borrows one only while its data
//! moves.

use super::budget::{Budget, Share};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a pipe holds, in bytes, where the kernel allows it.
pub(super) const SIZE: usize = 1 << 20;
/// Pipes that are kept for the next connection.
const KEPT: usize = 64;

/// A pipe: its reading and its writing end.
pub(super) struct Pipe {
    pub reads: OwnedFd,
    pub writes: OwnedFd,
    _descriptors: Share,
}

/// Pipes for connections to borrow.
pub(super) struct Pipes {
    idle: Mutex<Vec<Pipe>>,
    budget: Arc<Budget>,
}

impl Pipes {
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { idle: Mutex::default(), budget }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Pipe>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty pipe, if there are descriptors for one.
    pub fn borrow(&self) -> Option<Pipe> {
        if let Some(pipe) = self.idle().pop() {
            return Some(pipe);
        }
        let descriptors = self.budget.take(2)?;
        let (reads, writes) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // A smaller one does too.
        let _ = fcntl_setpipe_size(&writes, SIZE);
        Some(Pipe { reads, writes, _descriptors: descriptors })
    }

    /// Takes a pipe back, which must be empty.
    pub fn give_back(&self, pipe: Pipe) {
        let mut idle = self.idle();
        if idle.len() < KEPT {
            idle.push(pipe);
        }
    }
}
