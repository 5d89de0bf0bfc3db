//! Containers of real Docker engines that run without their userland proxy.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use publisher_tests::case::{self, Case};
use publisher_tests::daemon::Daemon;
use publisher_tests::docker::{Engine, Version};
use publisher_tests::netns::Netns;
use publisher_tests::shell;
use publisher_tests::topology::{HOST, Options, Topology, host};
use publisher_tests::traffic::tcp::{self, Outcome};
use publisher_tests::traffic::udp;

/// The page of the container, over IPv6.
fn page(client: &Netns) -> Result<String> {
    let url = format!("http://[{HOST}]:8080/");
    client.sh(&format!("timeout 5 busybox wget -q -O - {url}")).context("no page")
}

/// Packets that each DROP rule of the raw table has counted, for this container's address.
fn raw_drops(host: &Netns, address: &str) -> Result<Vec<u64>> {
    let rules = host.sh("iptables -t raw -vnxL PREROUTING")?;
    let drops = rules.lines().filter(|line| line.contains("DROP") && line.contains(address));
    drops
        .map(|line| {
            let packets = line.split_whitespace().next().unwrap_or_default();
            packets.parse().with_context(|| format!("packet counter in {line:?}"))
        })
        .collect()
}

fn tcp_and_udp_reach_a_container(case: &Case, version: Version) -> Result<()> {
    let net = Topology::build(Options { containers: 0, ..Options::default() })?;
    // The engine makes its own bridge, on the same network.
    net.host.ip("link del br0")?;
    let engine = Engine::start(version, &net.host, &["--userland-proxy=false"])?;
    let address = engine.web("web", &["-p", "8080:80"])?;
    // The image has no UDP server; one of ours runs in the container's namespace.
    let container = Netns::of_process(engine.pid("web")?)?;
    let echo = udp::Server::echo(&container, ([0, 0, 0, 0], 7))?;
    let mut daemon = Daemon::start(case, &net.host)?;

    // What users have today.
    let outcome = tcp::try_connect(net.client(), host(8080), Duration::from_secs(2));
    ensure!(matches!(outcome, Outcome::Refused), "{outcome:?}");

    daemon.add("8080", &format!("{address}:80"))?;
    daemon.add("7/udp", &format!("{address}:7"))?;
    let text = page(net.client())?;
    ensure!(text.contains("hello from the container; you are 198.1"), "{text}");
    let socket = udp::client(net.client(), 0)?;
    let to = SocketAddr::from((HOST, 7));
    let (reply, from) = udp::ask(&socket, to, b"over docker")?;
    assert_eq!((reply, from), (b"over docker".to_vec(), to));
    for publication in daemon.entries(&["ls"])? {
        assert_eq!(publication["path"], "peer", "{publication}");
    }
    let drops = raw_drops(&net.host, &address.to_string())?;
    if version == Version::V28_5 {
        ensure!(!drops.is_empty(), "the engine's DROP rule isn't there");
    }
    ensure!(drops.iter().all(|packets| *packets == 0), "the DROP rule counted {drops:?}");

    drop((echo, container));
    daemon.alter(|| engine.docker(&["restart", "-t", "0", "web"]))?;
    ensure!(engine.address("web")? == address, "the engine gave another address");
    // Tried anew each time: a SYN that is lost in between would come again after a second only.
    let start = Instant::now();
    let answers = || {
        let outcome = tcp::try_connect(net.client(), host(8080), Duration::from_millis(100));
        matches!(outcome, Outcome::Connected(_))
    };
    let reached = shell::wait_until(Duration::from_secs(1), answers);
    ensure!(reached, "not reached {:?} after the restart", start.elapsed());
    ensure!(page(net.client())?.contains("hello from the container"));
    Ok(())
}

#[test]
fn docker_20_10_without_its_proxy() {
    case::run(|case| tcp_and_udp_reach_a_container(case, Version::V20_10));
}

#[test]
fn docker_28_5_without_its_proxy_and_with_its_drop_rule() {
    case::run(|case| tcp_and_udp_reach_a_container(case, Version::V28_5));
}

/// A container in two networks, as compose makes them.
#[test]
fn a_container_in_two_networks_of_docker_28_5() {
    case::run(|case| {
        let net = Topology::build(Options { containers: 0, ..Options::default() })?;
        net.host.ip("link del br0")?;
        let engine = Engine::start(Version::V28_5, &net.host, &["--userland-proxy=false"])?;
        engine.docker(&["network", "create", "--subnet", "172.30.1.0/24", "front"])?;
        engine.docker(&["network", "create", "--subnet", "172.30.2.0/24", "back"])?;
        engine.web("web", &["--network", "front"])?;
        engine.docker(&["network", "connect", "back", "web"])?;
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
        let addresses = engine.docker(&["inspect", "-f", format, "web"])?;
        let addresses: Vec<&str> = addresses.split_whitespace().collect();
        ensure!(addresses.len() == 2, "{addresses:?}");
        let daemon = Daemon::start(case, &net.host)?;
        for (port, address) in [8080, 8081].into_iter().zip(addresses) {
            daemon.add(&port.to_string(), &format!("{address}:80"))?;
            let url = format!("http://[{HOST}]:{port}/");
            let fetch = format!("timeout 5 busybox wget -q -O - {url}");
            let mut text = net.client().sh(&fetch);
            if text.is_err() {
                // Where the container's routes can't be looked up, the first reply tells.
                text = net.client().sh(&fetch);
            }
            let text = text.with_context(|| format!("by way of {address}"))?;
            ensure!(text.contains("hello from the container"), "{text}");
        }
        let sources: Vec<_> =
            daemon.entries(&["ls"])?.iter().map(|p| p["source"]["used"].to_string()).collect();
        ensure!(sources.iter().any(|source| source.contains("gateway")), "{sources:?}");
        Ok(())
    });
}
