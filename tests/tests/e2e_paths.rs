//! The ways into a container: the fast one through its veth, the other where that would skip
//! something that the host's owner put there, and containers that hang on no bridge.

use std::time::Duration;

use anyhow::{Result, ensure};
use publisher_tests::case;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::netns::{self, Netns};
use publisher_tests::shell;
use publisher_tests::topology::{Options, host};
use publisher_tests::traffic::bulk::{self, MIB};
use publisher_tests::traffic::raw::{self, Capture};
use publisher_tests::traffic::{tcp, udp};

const ANY: [u8; 4] = [0, 0, 0, 0];

/// Waits until the only publication of 8080/tcp takes this path.
fn path_becomes(lab: &Lab, path: &str) -> Result<()> {
    let mut last = String::new();
    let reached = shell::wait_until(Duration::from_secs(3), || {
        let publications = lab.daemon.entries(&["ls"]).unwrap_or_default();
        let tcp = publications.into_iter().find(|p| p["protocol"] == "tcp");
        last = tcp.as_ref().map(ToString::to_string).unwrap_or_default();
        tcp.is_some_and(|p| p["path"] == path)
    });
    ensure!(reached, "not on path {path}: {last}");
    Ok(())
}

/// A queueing discipline of the host's owner on the container's veth is obeyed.
fn by_the_neighbour_table(offloads: bool) {
    case::run(|case| {
        let mut lab = Lab::with(case, Options { offloads, ..Options::default() })?;
        let sums = tcp::Server::start(lab.net.container(), (ANY, 80), bulk::serve)?;
        let _datagrams = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.add("8080/udp", TARGET)?;
        path_becomes(&lab, "peer")?;
        bulk::exchange(&mut tcp::connect(lab.net.client(), host(8080))?, MIB)?;
        let alias = sums.last_peer()?.ip();

        let shaper = "tc qdisc add dev vc0 root tbf rate 2gbit burst 2mb latency 100ms";
        lab.daemon.alter(|| lab.net.host.sh(shaper))?;
        path_becomes(&lab, "neigh")?;
        let publication = &lab.daemon.entries(&["ls"])?[0];
        ensure!(publication["path_reason"].is_string(), "no reason: {publication}");
        bulk::exchange(&mut tcp::connect(lab.net.client(), host(8080))?, 32 * MIB)?;
        assert_eq!(sums.last_peer()?.ip(), alias);
        let socket = udp::client(lab.net.client(), 0)?;
        for length in [1, 700, 1452] {
            let content = vec![9; length];
            assert_eq!(udp::ask(&socket, host(8080), &content)?, (content, host(8080)));
        }
        let sent = lab.net.host.sh("tc -s qdisc show dev vc0 root")?;
        let bytes = sent.split_whitespace().skip_while(|word| *word != "Sent").nth(1);
        let bytes: u64 = bytes.unwrap_or_default().parse()?;
        ensure!(bytes > 32 * MIB, "the shaper saw only {bytes} bytes");

        lab.daemon.alter(|| lab.net.host.sh("tc qdisc del dev vc0 root"))?;
        path_becomes(&lab, "peer")?;
        bulk::exchange(&mut tcp::connect(lab.net.client(), host(8080))?, MIB)?;
        Ok(())
    });
}

#[test]
fn a_shaper_on_the_veth_is_not_skipped_with_offloads_on() {
    by_the_neighbour_table(true);
}

#[test]
fn a_shaper_on_the_veth_is_not_skipped_with_offloads_off() {
    by_the_neighbour_table(false);
}

#[test]
fn a_connection_lives_through_a_change_of_path() {
    case::run(|case| {
        let mut lab = Lab::simple(case)?;
        let _server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        path_becomes(&lab, "peer")?;
        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        assert_eq!(tcp::ask(&mut stream, "peer")?, "peer");
        let shaper = "tc qdisc add dev vc0 root tbf rate 2gbit burst 2mb latency 100ms";
        lab.daemon.alter(|| lab.net.host.sh(shaper))?;
        path_becomes(&lab, "neigh")?;
        assert_eq!(tcp::ask(&mut stream, "neigh")?, "neigh");
        lab.daemon.alter(|| lab.net.host.sh("tc qdisc del dev vc0 root"))?;
        path_becomes(&lab, "peer")?;
        assert_eq!(tcp::ask(&mut stream, "peer again")?, "peer again");
        Ok(())
    });
}

#[test]
fn a_container_on_a_veth_without_a_bridge() {
    case::run(|case| {
        // Dropped last: its end of the veth pair must not go before the daemon has.
        let container = Netns::new("routed")?;
        let mut lab = Lab::with(case, Options { containers: 0, ..Options::default() })?;
        lab.daemon.alter(|| {
            netns::veth(&lab.net.host, "routed0", &container, "eth0", 1500)?;
            lab.net.host.ip("addr add 169.254.1.1/32 dev routed0")?;
            lab.net.host.ip("route add 10.77.0.5/32 dev routed0")
        })?;
        container.ip("addr add 10.77.0.5/32 dev eth0")?;
        container.ip("route add 169.254.1.1/32 dev eth0")?;
        container.ip("route add default via 169.254.1.1")?;
        let server = tcp::Server::start(&container, (ANY, 80), bulk::serve)?;
        lab.daemon.add("8080", "10.77.0.5:80")?;
        bulk::exchange(&mut tcp::connect(lab.net.client(), host(8080))?, 4 * MIB)?;
        ensure!(server.last_peer()?.ip().to_string().starts_with("198.1"));
        path_becomes(&lab, "peer")?;
        Ok(())
    });
}

#[test]
fn aliases_dont_leak_into_the_hosts_stack() {
    case::run(|case| {
        let mut lab = Lab::with(case, Options { second_uplink: true, ..Options::default() })?;
        // A host that routes IPv4, with a default route that would take them away.
        lab.daemon.alter(|| {
            lab.net.host.sysctl("ipv4/ip_forward", "1")?;
            lab.net.host.ip("addr add 192.0.2.1/24 dev up1")?;
            lab.net.host.ip("route add default via 192.0.2.2 dev up1")
        })?;
        let far = lab.net.far.as_ref().expect("far");
        far.ip("addr add 192.0.2.2/24 dev eth0")?;
        let server = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let socket = udp::client(lab.net.client(), 0)?;
        udp::ask(&socket, host(8080), b"hello")?;
        let mut alias = server.seen()[0].0;
        let outside = Capture::start(far, "eth0")?;
        // Control: what isn't an alias is forwarded.
        server.reply(([192, 0, 2, 2], 9).into(), b"forwarded")?;
        outside.wait_for(Duration::from_secs(2), |f: &raw::Frame| f.contains(b"forwarded"))?;
        alias.set_port(alias.port() ^ 1);
        server.reply(alias, b"leaked")?;
        server.reply(([198, 19, 200, 200], 9).into(), b"leaked")?;
        std::thread::sleep(Duration::from_millis(300));
        ensure!(!outside.frames().iter().any(|f| f.contains(b"leaked")), "an alias leaked");
        Ok(())
    });
}
