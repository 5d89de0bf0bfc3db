//! `setup`: installs what the machine lacks, step by step, and nothing that it has.
//!
//! Looking costs a fraction of a second, so every verb does it first.

mod archive;
mod fetched;
mod packages;
mod toolchain;

use std::fs::{self, File};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::paths;
use crate::run::say;

pub use fetched::environment;

/// One thing the machine must have.
trait Step {
    /// What is missing, in words; `None` when nothing is.
    fn missing(&self) -> Result<Option<String>>;
    /// Brings it, and says in one line what was done.
    fn fix(&self) -> Result<String>;
}

/// In the order in which they need each other.
fn steps() -> Vec<Box<dyn Step>> {
    let mut steps: Vec<Box<dyn Step>> = vec![
        Box::new(packages::Packages),
        Box::new(toolchain::BpfToolchain),
        Box::new(toolchain::BpfLinker),
    ];
    for tree in &fetched::TREES {
        steps.push(Box::new(tree));
    }
    steps
}

/// The verb: as [`ensure`], but it also says so when nothing was missing.
pub fn run() -> Result<()> {
    if ensure()? == 0 {
        say("setup", format!("nothing is missing (BPF toolchain: {})", toolchain::chosen().name));
    }
    Ok(())
}

/// Installs what is missing. Returns the number of steps that had something to do.
pub fn ensure() -> Result<usize> {
    let mut done = 0;
    let mut lock = None;
    for step in steps() {
        if step.missing()?.is_none() {
            continue;
        }
        if lock.is_none() {
            lock = Some(lock_cache()?);
        }
        // Another run may have brought it while this one waited for the lock.
        let Some(missing) = step.missing()? else { continue };
        say("setup", format!("missing: {missing}"));
        let start = Instant::now();
        let did = step.fix()?;
        say("setup", format!("{did} ({:.0} s)", start.elapsed().as_secs_f64()));
        done += 1;
    }
    Ok(done)
}

/// Two runs at once would unpack into the same place.
fn lock_cache() -> Result<File> {
    let cache = paths::cache();
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let path = cache.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    if file.try_lock().is_err() {
        say("setup", "waiting for another `cargo xtask` that is at it");
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}
