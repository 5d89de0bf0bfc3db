//! The compiler and the linker for the BPF object.
//!
//! The object needs `core` built for a target that rustup ships no library for, hence the library's sources: a nightly
//! with its rust-src component, or Debian's compiler and sources linked into rustup as `distro`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Step;
use crate::{paths, run};

/// As `publisher/build.rs` reads it: the name of a toolchain, chosen by hand.
const CHOSEN_BY_HAND: &str = "PUBLISHER_BPF_TOOLCHAIN";
const DISTRO: &str = "distro";
const CORE: &str = "lib/rustlib/src/rust/library/core";
const LINKER_VERSION: &str = "0.13.0";
const LLVM: &str = "/usr/lib/llvm-22";

pub struct Toolchain {
    pub name: String,
    by_hand: bool,
}

/// The toolchain that builds the BPF object, by the same rule as `publisher/build.rs`.
pub fn chosen() -> Toolchain {
    if let Ok(name) = env::var(CHOSEN_BY_HAND)
        && !name.is_empty()
    {
        return Toolchain { name, by_hand: true };
    }
    let name = nightly_with_sources().unwrap_or_else(|| DISTRO.to_owned());
    Toolchain { name, by_hand: false }
}

fn nightly_with_sources() -> Option<String> {
    let entries = fs::read_dir(paths::toolchains()).ok()?;
    let found = entries.filter_map(|entry| entry.ok()).any(|entry| {
        let name = entry.file_name();
        // Not a dated nightly: `rustup run nightly` would not find it.
        let plain = name.to_str().is_some_and(|name| {
            name.strip_prefix("nightly").is_some_and(|rest| !rest.starts_with("-2"))
        });
        plain && entry.path().join(CORE).is_dir()
    });
    found.then(|| "nightly".to_owned())
}

pub struct BpfToolchain;

impl Step for BpfToolchain {
    fn missing(&self) -> Result<Option<String>> {
        let toolchain = chosen();
        if toolchain.by_hand || toolchain.name != DISTRO {
            return Ok(None);
        }
        let linked = paths::toolchains().join(DISTRO).join(CORE).is_dir();
        Ok((!linked).then(|| "a toolchain with the sources of core".to_owned()))
    }

    fn fix(&self) -> Result<String> {
        if paths::which("rustup").is_none() {
            return Err(run::hinted(
                "rustup is not on the path: it is what chooses the compiler of the BPF object",
                "install Rust with rustup (https://rustup.rs), then run this again",
            ));
        }
        run::quiet(Command::new("rustup").args(["toolchain", "link", DISTRO, "/usr"]))?;
        Ok("linked Debian's Rust into rustup as `distro` (no nightly with rust-src here)"
            .to_owned())
    }
}

pub struct BpfLinker;

impl BpfLinker {
    fn cached() -> PathBuf {
        paths::cache().join("tools/bin/bpf-linker")
    }

    fn installed() -> PathBuf {
        paths::cargo_home().join("bin/bpf-linker")
    }
}

impl Step for BpfLinker {
    fn missing(&self) -> Result<Option<String>> {
        let there = Self::installed().is_file() || paths::which("bpf-linker").is_some();
        Ok((!there).then(|| format!("bpf-linker {LINKER_VERSION}")))
    }

    fn fix(&self) -> Result<String> {
        let cached = Self::cached();
        let found = cached.is_file();
        if !found {
            build(&paths::cache().join("tools"))?;
        }
        let installed = Self::installed();
        if let Some(dir) = installed.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::copy(&cached, &installed)
            .with_context(|| format!("cannot copy bpf-linker to {}", installed.display()))?;
        let how = if found { "took bpf-linker from the cache" } else { "built bpf-linker" };
        Ok(format!("{how} and put it into {}", installed.display()))
    }
}

fn build(root: &Path) -> Result<()> {
    run::quiet(
        Command::new("cargo")
            .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked"])
            .args(["--no-default-features", "--features", "llvm-22", "--root"])
            .arg(root)
            .env("LLVM_PREFIX", LLVM)
            // The target directory of the checkout must not be used for someone else's crate.
            .env_remove("CARGO_TARGET_DIR")
            .current_dir("/"),
    )?;
    Ok(())
}
