//! Network namespaces that go away with the test, and commands inside them.

use std::{
    fs::File,
    net::Ipv4Addr,
    os::fd::AsFd,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::topology::{ResolvedTarget, Topology, Unresolved};

/// An address of the default alias pool.
pub const ALIAS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 9);

/// A named network namespace, deleted when the value is dropped, also by a panic.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes network namespaces and needs root"
        );
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("pubtopo-{}-{number}", std::process::id());
        command("ip", &["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `ip` in the namespace; the arguments are split at blanks.
    pub fn ip(&self, arguments: &str) {
        self.tool("ip", arguments);
    }

    /// Runs `tc` in the namespace.
    pub fn tc(&self, arguments: &str) {
        self.tool("tc", arguments);
    }

    /// Adds a filter that lets everything pass, at `ingress` or `egress` of a clsact.
    pub fn tc_filter(&self, device: &str, hook: &str) {
        let mut arguments = vec!["-n", &self.name, "filter", "add", "dev", device, hook];
        arguments.extend(["bpf", "da", "bytecode", "1,6 0 0 0,"]);
        command("tc", &arguments);
    }

    /// Runs `bridge` in the namespace.
    pub fn bridge(&self, arguments: &str) {
        self.tool("bridge", arguments);
    }

    fn tool(&self, program: &str, arguments: &str) {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split_whitespace());
        command(program, &all);
    }

    /// Runs a program in the namespace with the given standard input.
    pub fn feed(&self, program: &[&str], input: &str) {
        use std::io::Write as _;
        let net = format!("--net=/run/netns/{}", self.name);
        let mut child = Command::new("nsenter")
            .arg(net)
            .args(program)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("nsenter: {error}"));
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{program:?} failed on:\n{input}");
    }

    /// Runs `work` on a thread in the namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::scope(|scope| {
            let inside = || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            };
            match scope.spawn(inside).join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs async `work` with a topology of the namespace.
    pub fn with_topology<T: Send>(&self, work: impl AsyncFnOnce(Topology) -> T + Send) -> T {
        self.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async { work(Topology::connect().unwrap()).await })
        })
    }

    /// Resolves a target as seen from the namespace.
    pub fn resolve(&self, target: &str) -> Result<ResolvedTarget, Unresolved> {
        let target = target.parse().unwrap();
        self.with_topology(async |topology| topology.resolve(target, ALIAS).await)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let deleted = Command::new("ip").args(["netns", "del", &self.name]).status();
        if !deleted.is_ok_and(|status| status.success()) {
            eprintln!("network namespace {} is left over", self.name);
        }
    }
}

fn command(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
}

/// A host namespace with the bridge `br0`, 172.30.0.1/24.
pub fn bridge_host() -> Namespace {
    let host = Namespace::new();
    host.ip("link add br0 type bridge");
    host.ip("addr add 172.30.0.1/24 dev br0");
    host.ip("link set br0 up");
    host
}

/// Adds a container to the host's `br0`: host side `veth`, container side `eth0` with `address`
/// and hardware address `02:00:00:00:00:NN`. It has no default route yet.
pub fn bridge_container(host: &Namespace, veth: &str, address: &str, mac: u8) -> Namespace {
    let container = Namespace::new();
    plug(host, &container, "br0", veth, "eth0", &format!("{address}/24"), mac);
    container
}

/// Adds a veth pair between a bridge of the host and a container.
pub fn plug(
    host: &Namespace,
    container: &Namespace,
    bridge: &str,
    veth: &str,
    inside: &str,
    address: &str,
    mac: u8,
) {
    let name = &container.name;
    host.ip(&format!(
        "link add {veth} type veth peer name {inside} netns {name} address 02:00:00:00:00:{mac:02x}"
    ));
    host.ip(&format!("link set {veth} master {bridge} up"));
    container.ip(&format!("addr add {address} dev {inside}"));
    container.ip(&format!("link set {inside} up"));
}
