//! What `cargo xtask setup` unpacked for the tests: Docker engines, kernels and more.

use std::env;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};

/// Written last by the setup: a tree with it is complete.
const COMPLETE: &str = "PACKAGES";

/// The directory that `variable` names, else `directory` in the cache (`$XDG_CACHE_HOME/publisher`).
///
/// # Errors
/// When it isn't there or isn't complete; the error says how to bring it.
pub fn tree(variable: &str, directory: &str) -> Result<PathBuf> {
    if let Some(given) = env::var_os(variable).filter(|path| !path.is_empty()) {
        let given = PathBuf::from(given);
        ensure!(given.is_dir(), "{variable} names {}, which is no directory", given.display());
        return Ok(given);
    }
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(env::home_dir()?.join(".cache")));
    let Some(path) = cache.map(|cache| cache.join("publisher").join(directory)) else {
        bail!("neither {variable} nor a home directory says where {directory} is")
    };
    ensure!(
        path.join(COMPLETE).is_file(),
        "{directory} is not in {}: run `cargo xtask setup`",
        path.display()
    );
    Ok(path)
}
