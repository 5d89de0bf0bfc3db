//! Pipes to move data through without copying it (splice(2)). A connection borrows one only while its data
//! moves.

use super::budget::{Budget, Share};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a pipe holds, in bytes, where the kernel allows it.
pub(super) const SIZE: usize = 1 << 20;
/// Pipes that are lent at once: what slow readers leave in them is memory. Others copy.
const LENT: usize = 128;
/// Pipes that are kept for the next connection.
const KEPT: usize = 64;

/// A pipe: its reading and its writing end.
pub(super) struct Pipe {
    pub reads: OwnedFd,
    pub writes: OwnedFd,
    descriptors: Share,
    loan: Loan,
}

/// Counts a pipe that is lent.
struct Loan(Arc<AtomicUsize>);

impl Drop for Loan {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A pipe that nobody has.
struct Idle {
    reads: OwnedFd,
    writes: OwnedFd,
    descriptors: Share,
}

/// Pipes for connections to borrow.
pub(super) struct Pipes {
    idle: Mutex<Vec<Idle>>,
    lent: Arc<AtomicUsize>,
    budget: Arc<Budget>,
}

impl Pipes {
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { idle: Mutex::default(), lent: Arc::default(), budget }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty pipe, if not too many are lent and there are descriptors for one.
    pub fn borrow(&self) -> Option<Pipe> {
        let lent = self.lent.fetch_add(1, Ordering::Relaxed);
        let loan = Loan(Arc::clone(&self.lent));
        if lent >= LENT {
            return None;
        }
        let idle = self.idle().pop();
        if let Some(Idle { reads, writes, descriptors }) = idle {
            return Some(Pipe { reads, writes, descriptors, loan });
        }
        let descriptors = self.budget.take(2)?;
        let (reads, writes) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // A smaller one does too.
        let _ = fcntl_setpipe_size(&writes, SIZE);
        Some(Pipe { reads, writes, descriptors, loan })
    }

    /// Takes a pipe back, which must be empty.
    pub fn give_back(&self, pipe: Pipe) {
        let Pipe { reads, writes, descriptors, loan: _loan } = pipe;
        let mut idle = self.idle();
        if idle.len() < KEPT {
            idle.push(Idle { reads, writes, descriptors });
        }
    }
}
