//! Lets LLVM load words at any address, which the BPF machine allows: packet fields are read whole
//! instead of byte by byte.
fn main() {
    println!("cargo:rustc-link-arg-bins=--cpu-features=+allows-misaligned-mem-access");
    println!("cargo:rerun-if-changed=build.rs");
}
