//! The netfilter rules of a host that runs Docker: what every packet through its stack has to pass.
//!
//! They are those that Docker 28.5 writes for published TCP ports of one container, read off a real
//! engine with `iptables-save` and `ip6tables-save`. With them comes connection tracking, in both
//! families: docker-proxy's own connections go through it on every Docker host.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::Result;

use crate::netns::Netns;
use crate::shell;

/// Chains that Docker makes in the filter tables of both families, and how they hang together.
const CHAINS: &str = "\
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
-A DOCKER-FORWARD -j DOCKER-BRIDGE
";

/// Writes them into `host`, whose docker0 is called `bridge`, for `ports` of the host that lead to
/// ports of `target`.
///
/// # Errors
/// What `iptables-restore` says.
pub fn write(host: &Netns, bridge: &str, target: Ipv4Addr, ports: &[(u16, u16)]) -> Result<()> {
    restore(host, "iptables-restore", &ipv4(bridge, target, ports))?;
    restore(host, "ip6tables-restore", &ipv6())
}

fn ipv4(bridge: &str, target: Ipv4Addr, ports: &[(u16, u16)]) -> String {
    let (mut accepted, mut translated) = (String::new(), String::new());
    for (port, inside) in ports {
        let _ = writeln!(
            accepted,
            "-A DOCKER -d {target}/32 ! -i {bridge} -o {bridge} -p tcp -m tcp --dport {inside} -j ACCEPT"
        );
        let _ = writeln!(
            translated,
            "-A DOCKER ! -i {bridge} -p tcp -m tcp --dport {port} -j DNAT --to-destination {target}:{inside}"
        );
    }
    format!(
        "*raw
-A PREROUTING -d {target}/32 ! -i {bridge} -j DROP
COMMIT
*filter
:FORWARD DROP [0:0]
{CHAINS}{accepted}-A DOCKER ! -i {bridge} -o {bridge} -j DROP
-A DOCKER-BRIDGE -o {bridge} -j DOCKER
-A DOCKER-CT -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -i {bridge} -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i {bridge} ! -o {bridge} -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o {bridge} -j DROP
COMMIT
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o {bridge} -j MASQUERADE
{translated}COMMIT
"
    )
}

/// The container has no IPv6, so nothing is published in this family: docker-proxy answers.
fn ipv6() -> String {
    format!(
        "*filter
{CHAINS}COMMIT
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d ::1/128 -m addrtype --dst-type LOCAL -j DOCKER
COMMIT
"
    )
}

fn restore(host: &Netns, program: &str, rules: &str) -> Result<()> {
    let mut command: Command = host.command(program);
    shell::run_with_input(command.arg("-w"), rules.as_bytes()).map(drop)
}
