//! Ctrl-C: the demo and the benchmark stop at their next step, and their guards clean up as after
//! an error.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};

static HAPPENED: AtomicBool = AtomicBool::new(false);

extern "C" fn remember(_signal: libc::c_int) {
    HAPPENED.store(true, Ordering::Relaxed);
}

/// From now on SIGINT, SIGTERM and SIGHUP are remembered instead of ending the program.
pub fn watch() {
    let handler: extern "C" fn(libc::c_int) = remember;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe. Programs started later don't
        // inherit it.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Whether one of them came.
pub fn happened() -> bool {
    HAPPENED.load(Ordering::Relaxed)
}

/// Ends what is going on here if one came.
///
/// # Errors
/// When one came.
pub fn check() -> Result<()> {
    if happened() {
        bail!("interrupted");
    }
    Ok(())
}
