//! One end-to-end case: its scratch directory, its order with other cases, and the check that
//! nothing is left after it.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::residue::{Left, Objects};

/// What a running case knows about itself.
#[derive(Debug)]
pub struct Case {
    directory: TempDir,
    left: RefCell<Left>,
}

impl Case {
    fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("pubt-").tempdir();
        Ok(Self {
            directory: directory.context("scratch directory")?,
            left: RefCell::new(Left::default()),
        })
    }

    /// A directory of this case, gone after it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Remembers BPF objects that must be gone when the case is over.
    pub fn expect_gone(&self, objects: Objects) {
        self.left.borrow_mut().objects.merge(objects);
    }

    /// Remembers a process that must be gone when the case is over.
    pub fn expect_ended(&self, pid: u32) {
        self.left.borrow_mut().processes.push(pid);
    }

    /// Remembers a path (a pin directory, a socket) that must be gone when the case is over.
    pub fn expect_removed(&self, path: &Path) {
        self.left.borrow_mut().paths.push(path.to_owned());
    }

    /// Records something that was found left behind; it fails the case when it is over.
    pub fn found(&self, what: String) {
        self.left.borrow_mut().findings.push(what);
    }
}

/// Runs one case. Cases of a test program run one after the other: they share two cores, the BPF
/// file system and the clock.
///
/// # Panics
/// When the case fails or panics, and when it succeeded but left something behind.
pub fn run(body: impl FnOnce(&Case) -> Result<()>) {
    static ORDER: Mutex<()> = Mutex::new(());
    let _turn = ORDER.lock().unwrap_or_else(PoisonError::into_inner);
    let case = Case::new().unwrap();
    let outcome = catch_unwind(AssertUnwindSafe(|| body(&case)));
    let residue = case.left.borrow_mut().check();
    match outcome {
        Err(panic) => {
            report_residue(&residue);
            resume_unwind(panic)
        }
        Ok(Err(error)) => {
            report_residue(&residue);
            panic!("{error:#}")
        }
        Ok(Ok(())) => assert!(residue.is_empty(), "left behind:\n  {}", residue.join("\n  ")),
    }
}

/// As [`run`], for a program that isn't a test: what went wrong or was left behind is an error.
///
/// # Errors
/// What `body` fails with, otherwise what it left behind.
pub fn attempt(body: impl FnOnce(&Case) -> Result<()>) -> Result<()> {
    let case = Case::new()?;
    let outcome = body(&case);
    let residue = case.left.borrow_mut().check();
    outcome?;
    ensure!(residue.is_empty(), "left behind:\n  {}", residue.join("\n  "));
    Ok(())
}

fn report_residue(residue: &[String]) {
    if !residue.is_empty() {
        eprintln!("harness: left behind by the failed case:\n  {}", residue.join("\n  "));
    }
}
