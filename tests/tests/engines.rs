//! The Docker engines as they are without Publisher: what the other cases stand on.

use anyhow::{Result, ensure};
use publisher_tests::case;
use publisher_tests::docker::{Engine, Version};
use publisher_tests::shell;
use publisher_tests::topology::{HOST, Options, Topology};

/// An engine whose userland proxy is off publishes on IPv4 and leaves IPv6 clients out.
fn ipv6_is_refused_without_the_proxy(version: Version) -> Result<()> {
    let net = Topology::build(Options { containers: 0, ..Options::default() })?;
    // The engine makes its own bridge, on the same network.
    net.host.ip("link del br0")?;
    let engine = Engine::start(version, &net.host, &["--userland-proxy=false"])?;
    let address = engine.web("web", &["-p", "8080:80"])?;
    let running = engine.docker(&["version", "-f", "{{.Server.Version}}"])?;
    ensure!(running.starts_with(&version.to_string()), "asked for {version}, got {running}");

    let page = net.host.sh(&format!("busybox wget -q -O - http://{address}/"))?;
    ensure!(page.contains("hello from the container; you are 172.17.0.1 "), "page: {page:?}");

    let client = net.client();
    client.sh(&format!("busybox ping -c 1 -W 2 {HOST}"))?;
    // Not wget's own -T: Debian 12's static busybox crashes on it.
    let fetch = format!("timeout 3 busybox wget -O - http://[{HOST}]:8080/");
    let answer = shell::output(client.command("busybox").args(fetch.split(' ')))?;
    let said = String::from_utf8_lossy(&answer.stderr).into_owned();
    ensure!(!answer.status.success() && said.contains("refused"), "expected a refusal: {answer:?}");

    let raw = net.host.sh("iptables -t raw -S PREROUTING")?;
    let guarded = raw.contains(&format!("-d {address}/32 ! -i docker0 -j DROP"));
    ensure!(guarded == (version == Version::V28_5), "raw table of {version}: {raw}");
    Ok(())
}

#[test]
fn docker_20_10_refuses_ipv6_without_the_proxy() {
    case::run(|_| ipv6_is_refused_without_the_proxy(Version::V20_10));
}

#[test]
fn docker_28_5_refuses_ipv6_without_the_proxy() {
    case::run(|_| ipv6_is_refused_without_the_proxy(Version::V28_5));
}
