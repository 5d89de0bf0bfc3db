//! Where things are: the checkout, cargo's and rustup's homes, and the cache outside the checkout.

use std::env;
use std::path::{Path, PathBuf};

/// The top of the checkout.
pub fn workspace() -> PathBuf {
    // Set by `cargo run`; the built-in value serves a binary that is started by hand.
    let manifest =
        env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let manifest = PathBuf::from(manifest);
    manifest.parent().map_or(manifest.clone(), Path::to_path_buf)
}

/// Cargo's output directory for release builds.
pub fn release_dir() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    workspace().join(target).join("release")
}

/// Downloads and what is unpacked from them, kept between checkouts: `$XDG_CACHE_HOME/publisher`.
pub fn cache() -> PathBuf {
    env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| home().join(".cache"))
        .join("publisher")
}

/// Cargo's home, whose `bin` is on the path of everything that cargo starts.
pub fn cargo_home() -> PathBuf {
    env::var_os("CARGO_HOME").map_or_else(|| home().join(".cargo"), PathBuf::from)
}

/// Rustup's toolchains, each a directory or a link.
pub fn toolchains() -> PathBuf {
    let rustup = env::var_os("RUSTUP_HOME").map_or_else(|| home().join(".rustup"), PathBuf::from);
    rustup.join("toolchains")
}

/// The first `program` on `PATH`.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn home() -> PathBuf {
    env::home_dir().unwrap_or_else(|| "/root".into())
}
