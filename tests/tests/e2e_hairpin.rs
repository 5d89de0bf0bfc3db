//! Containers as clients: by the host's IPv6 addresses, where their network has IPv6.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use publisher_tests::case;
use publisher_tests::lab::Lab;
use publisher_tests::netns::Netns;
use publisher_tests::topology::{HOST, HOST_2, Options, container_address};
use publisher_tests::traffic::bulk::{self, MIB};
use publisher_tests::traffic::{tcp, udp};

const ANY: [u8; 4] = [0, 0, 0, 0];
/// The bridge's own address.
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfd17, 0, 0, 0, 0, 0, 0, 1);

/// Gives the containers' network IPv6, as engines do.
fn with_ipv6(lab: &mut Lab<'_>) -> Result<()> {
    let net = &lab.net;
    lab.daemon.alter(|| {
        net.host.ip(&format!("addr add {GATEWAY}/64 dev br0 nodad"))?;
        for (index, container) in net.containers.iter().enumerate() {
            for interface in ["all", "eth0"] {
                container.ns.sysctl(&format!("ipv6/conf/{interface}/disable_ipv6"), "0")?;
            }
            container.ns.ip(&format!("addr add fd17::{}/64 dev eth0 nodad", index + 2))?;
            container.ns.ip(&format!("-6 route add default via {GATEWAY}"))?;
        }
        Ok(())
    })
}

/// Port 8080 leads to container 0, port 8081 to container 1.
fn publish(lab: &Lab<'_>, protocol: &str) -> Result<()> {
    for index in 0..2u8 {
        let target = format!("{}:80", container_address(index));
        lab.daemon.add(&format!("{}{protocol}", 8_080 + u16::from(index)), &target)?;
    }
    Ok(())
}

fn is_alias(address: SocketAddr) -> bool {
    let SocketAddr::V4(address) = address else { return false };
    let pool = u32::from(Ipv4Addr::new(198, 18, 0, 0));
    u32::from(*address.ip()) >> 17 == pool >> 17
}

/// All pairs of client and server, a container and itself among them.
fn pairs<'a>(lab: &'a Lab<'_>) -> impl Iterator<Item = (usize, &'a Netns, usize)> {
    let clients = lab.net.containers.iter().enumerate();
    clients
        .flat_map(|(client, container)| (0..2).map(move |server| (client, &container.ns, server)))
}

#[test]
fn s15_containers_reach_each_other_and_themselves_by_tcp() {
    case::run(|case| {
        let mut lab = Lab::with(case, Options { containers: 2, ..Options::default() })?;
        with_ipv6(&mut lab)?;
        let start = |index: usize| {
            tcp::Server::start(&lab.net.containers[index].ns, (ANY, 80), bulk::serve)
        };
        let servers = [start(0)?, start(1)?];
        publish(&lab, "")?;
        let mut aliases = Vec::new();
        for (client, ns, server) in pairs(&lab) {
            for host in [HOST, HOST_2, GATEWAY] {
                let to = SocketAddr::from((host, 8_080 + server as u16));
                let about = || format!("container {client} to {server} by {to}");
                let mut stream = tcp::connect(ns, to).with_context(about)?;
                bulk::exchange(&mut stream, 4 * MIB).with_context(about)?;
                let peer = servers[server].last_peer()?;
                ensure!(is_alias(peer), "{}: seen as {peer}", about());
                aliases.push((client, peer.ip()));
            }
        }
        aliases.sort_unstable();
        aliases.dedup();
        ensure!(aliases.len() == 2 && aliases[0].1 != aliases[1].1, "{aliases:?}");
        Ok(())
    });
}

#[test]
fn s15_containers_reach_each_other_and_themselves_by_udp() {
    case::run(|case| {
        let mut lab = Lab::with(case, Options { containers: 2, ..Options::default() })?;
        with_ipv6(&mut lab)?;
        let start = |index: usize| udp::Server::echo(&lab.net.containers[index].ns, (ANY, 80));
        let servers = [start(0)?, start(1)?];
        publish(&lab, "/udp")?;
        for (client, ns, server) in pairs(&lab) {
            for host in [HOST, GATEWAY] {
                let to = SocketAddr::from((host, 8_080 + server as u16));
                let about = || format!("container {client} to {server} by {to}");
                let socket = udp::client(ns, 0)?;
                for length in [1, 1_400, 5_000] {
                    let sent = vec![length as u8; length];
                    let (received, from) = udp::ask(&socket, to, &sent)
                        .or_else(|_| udp::ask(&socket, to, &sent))
                        .with_context(about)?;
                    ensure!(received == sent && from == to, "{}: {from}", about());
                }
                let all_aliases = servers[server].seen().iter().all(|(peer, _)| is_alias(*peer));
                ensure!(all_aliases, "{}", about());
            }
        }
        Ok(())
    });
}

/// A container of a network that has nothing to do with the target's.
#[test]
fn s15_containers_of_another_network_reach_them_too() {
    case::run(|case| {
        // It goes after the daemon.
        let other;
        let mut lab = Lab::with(case, Options::default())?;
        let own = Ipv6Addr::new(0xfd18, 0, 0, 0, 0, 0, 0, 1);
        let net = &lab.net;
        other = lab.daemon.alter(|| {
            let other = net.add_other_network()?;
            net.host.ip(&format!("addr add {own}/64 dev br1 nodad"))?;
            for interface in ["all", "eth0"] {
                other.sysctl(&format!("ipv6/conf/{interface}/disable_ipv6"), "0")?;
            }
            other.ip("addr add fd18::2/64 dev eth0 nodad")?;
            other.ip(&format!("-6 route add default via {own}"))?;
            Ok(other)
        })?;
        let server = tcp::Server::start(net.container(), (ANY, 80), bulk::serve)?;
        let echo = udp::Server::echo(net.container(), (ANY, 80))?;
        for published in ["8080", "8080/udp"] {
            lab.daemon.add(published, &format!("{}:80", container_address(0)))?;
        }
        for host in [HOST, HOST_2, own] {
            let to = SocketAddr::from((host, 8_080));
            let mut stream = tcp::connect(&other, to).with_context(|| to.to_string())?;
            bulk::exchange(&mut stream, 4 * MIB).with_context(|| to.to_string())?;
            ensure!(is_alias(server.last_peer()?));
            let socket = udp::client(&other, 0)?;
            let (answer, from) = udp::ask(&socket, to, b"from elsewhere")?;
            ensure!(answer == b"from elsewhere" && from == to, "{from}");
        }
        ensure!(echo.seen().iter().all(|(peer, _)| is_alias(*peer)));
        Ok(())
    });
}

/// What isn't published stays as it was: the host's own, and closed.
#[test]
fn s15_nothing_else_is_reached() {
    case::run(|case| {
        let mut lab = Lab::with(case, Options { containers: 2, ..Options::default() })?;
        with_ipv6(&mut lab)?;
        let _server = tcp::Server::echo(&lab.net.containers[0].ns, (ANY, 81))?;
        publish(&lab, "")?;
        for (_, ns, _) in pairs(&lab) {
            let to = SocketAddr::from((HOST, 81));
            ensure!(tcp::connect(ns, to).is_err(), "port 81 answers");
        }
        Ok(())
    });
}
