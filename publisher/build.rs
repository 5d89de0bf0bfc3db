//! Builds the BPF object that the library carries.
//!
//! BPF needs `core` built for its target: from a nightly toolchain with rust-src, or else from the
//! distribution's own compiler and library sources, which `cargo xtask setup` links as the toolchain
//! `distro`. `PUBLISHER_BPF_TOOLCHAIN` names another one.

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};
use std::{env, path::PathBuf, process::Command};

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed=PUBLISHER_BPF_TOOLCHAIN");
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../publisher-ebpf");
    println!("cargo:rerun-if-changed=../publisher-common/src");
    let toolchain = toolchain();
    // SAFETY: the build script has one thread. A compiler of a stable channel builds `core` too if
    // it is told that it may.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    let package = Package {
        name: "publisher-ebpf",
        root_dir: root.to_str().context("the checkout's path isn't UTF-8")?,
        ..Package::default()
    };
    aya_build::build_ebpf([package], Toolchain::Custom(&toolchain))
        .context("can't build the BPF object; hint: run `cargo xtask setup` first")
}

fn toolchain() -> String {
    if let Ok(name) = env::var("PUBLISHER_BPF_TOOLCHAIN") {
        return name;
    }
    let nightly =
        Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]).output();
    let has_sources = nightly.is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout);
        output.status.success()
            && PathBuf::from(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir()
    });
    if has_sources { "nightly".into() } else { "distro".into() }
}
