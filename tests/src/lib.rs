//! The harness of the end-to-end tests: real namespaces, real sockets, the real daemon.
//!
//! A test is a closure given to [`case::run`]. It builds a [`topology::Topology`] of network
//! namespaces, starts a [`daemon::Daemon`] in the host's, and sends traffic with the tools of
//! [`traffic`]. When the closure is left, in whatever way, everything it made is taken down and
//! [`residue`] looks for what was left behind: a finding fails the test.
//!
//! Nothing here is simulated and nothing is skipped: what is missing on the machine (root, a tool,
//! the programs) is named in the failure.

pub mod answer;
pub mod bench;
pub mod case;
pub mod confine;
pub mod daemon;
pub mod docker;
pub mod docker_proxy;
pub mod drops;
pub mod fail2ban;
pub mod fetched;
pub mod initramfs;
pub mod interrupt;
pub mod lab;
pub mod load;
pub mod mirror;
pub mod netns;
pub mod older;
pub mod oracle;
pub mod qemu;
pub mod residue;
pub mod shell;
pub mod test_run;
pub mod topology;
pub mod traffic;
pub mod tun;
pub mod ufw;
