//! Tests against the running kernel, in network namespaces of their own. They need root, and
//! fail without it.

mod bpf;
mod firewall;
mod harness;
mod host;
mod obstacles;
mod targets;
mod watching;
