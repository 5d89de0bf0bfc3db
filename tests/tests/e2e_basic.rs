//! The main job: IPv6 clients of every kind reach an IPv4-only container, and can be told apart.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use publisher_tests::case;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::netns::Netns;
use publisher_tests::topology::{
    HOST, HOST_2, HOST_FAR, HOST_TUNNEL, Options, client_address, host,
};
use publisher_tests::traffic::tcp::{self, From};
use publisher_tests::traffic::udp;
use serde_json::json;

const ANY: [u8; 4] = [0, 0, 0, 0];

/// Whether an address is of the default alias pool, 198.18.0.0/15.
fn is_alias(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 198 && v4.octets()[1] & !1 == 18)
}

fn tcp_and_udp_echo(client: &Netns, to: SocketAddr) -> Result<()> {
    let mut stream = tcp::connect(client, to)?;
    ensure!(tcp::ask(&mut stream, "over tcp")? == "over tcp", "tcp echo of {to}");
    let socket = udp::client(client, 0)?;
    let (content, from) = udp::ask(&socket, to, b"over udp")?;
    ensure!(content == b"over udp" && from == to, "udp echo of {to} came from {from}");
    Ok(())
}

/// Starts TCP and UDP echo servers on port 80 of the container and publishes both on 8080.
fn echo_lab(lab: &Lab) -> Result<(tcp::Server, udp::Server)> {
    let servers = (
        tcp::Server::echo(lab.net.container(), (ANY, 80))?,
        udp::Server::echo(lab.net.container(), (ANY, 80))?,
    );
    lab.daemon.add("8080", TARGET)?;
    lab.daemon.add("8080/udp", TARGET)?;
    Ok(servers)
}

#[test]
fn a_page_over_tcp_with_ls_sessions_and_whois() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let server = tcp::Server::page(lab.net.container(), (ANY, 80), "hello")?;
        assert_eq!(lab.daemon.add("8080", TARGET)?, "8080/tcp -> 172.17.0.2:80\n");
        // The same once more isn't an error.
        assert_eq!(lab.daemon.add("8080", TARGET)?, "8080/tcp -> 172.17.0.2:80\n");

        let from = From { address: None, port: 33_333 };
        let limit = Duration::from_secs(3);
        let mut stream =
            tcp::try_connect_from(lab.net.client(), from, host(8080), limit).connected()?;
        let page = tcp::ask(&mut stream, "GET /")?;
        let seen = server.last_peer()?;
        ensure!(is_alias(seen.ip()), "the container saw {seen}");
        assert_eq!(page, format!("hello for {seen}"));
        assert_eq!(seen.port(), 33_333, "a free port is kept");

        let publication = lab.daemon.entry(&["ls"])?;
        assert_eq!(publication["ports"], json!({"first": 8080, "last": 8080}));
        assert_eq!(publication["protocol"], json!("tcp"));
        assert_eq!(publication["target"], json!("172.17.0.2"));
        assert_eq!(publication["path"], json!("peer"), "{publication}");
        assert_eq!(publication["source"]["used"], json!("alias"), "{publication}");
        let session = lab.daemon.entry(&["sessions"])?;
        assert_eq!(session["client"], json!(client_address(0)));
        assert_eq!(session["client_port"], json!(33_333));
        assert_eq!(session["host"], json!(HOST));
        assert_eq!(session["alias"], json!(seen.ip()));
        assert_eq!(session["uplink"], json!("up0"));
        ensure!(session["packets_in"].as_u64() >= Some(3), "{session}");
        ensure!(session["packets_out"].as_u64() >= Some(2), "{session}");
        for alias in [seen.ip().to_string(), seen.to_string()] {
            let whois = lab.daemon.entry(&["whois", &alias])?;
            assert_eq!(whois["client"], json!(client_address(0)), "{whois}");
        }
        lab.daemon.ctl(&["whois", "198.19.255.254"])?.failed_with(4)?;
        Ok(())
    });
}

#[test]
fn udp_reaches_the_container_and_comes_back_from_the_published_port() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let server = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        let added = lab.daemon.add("8080/udp", TARGET)?;
        assert_eq!(added, "8080/udp -> 172.17.0.2:80\n");
        let socket = udp::client(lab.net.client(), 40_404)?;
        for length in [0, 1, 3, 64, 1200, 1452] {
            let content = vec![b'x'; length];
            let (reply, from) = udp::ask(&socket, host(8080), &content)
                .with_context(|| format!("{length} bytes"))?;
            ensure!(reply == content && from == host(8080), "{length} bytes from {from}");
        }
        for (from, _) in server.seen() {
            ensure!(is_alias(from.ip()) && from.port() == 40_404, "the container saw {from}");
        }
        let session = lab.daemon.entry(&["sessions"])?;
        assert_eq!(session["protocol"], json!("udp"));
        assert_eq!(session["state"], json!("established"), "{session}");
        // TCP on the same port isn't published.
        let outcome = tcp::try_connect(lab.net.client(), host(8080), Duration::from_secs(1));
        ensure!(matches!(outcome, tcp::Outcome::Refused), "{outcome:?}");
        Ok(())
    });
}

#[test]
fn five_hundred_connections_at_once() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        let mut streams = Vec::new();
        for n in 0..500 {
            let stream = tcp::connect(lab.net.client(), host(8080));
            streams.push(stream.with_context(|| format!("connection {n}"))?);
        }
        for (n, stream) in streams.iter_mut().enumerate() {
            stream.write_all(format!("this is {n:04}").as_bytes())?;
        }
        for (n, stream) in streams.iter_mut().enumerate() {
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).with_context(|| format!("connection {n}"))?;
            assert_eq!(answer, format!("this is {n:04}").as_bytes());
        }
        let mut peers = server.peers();
        peers.sort();
        peers.dedup();
        assert_eq!(peers.len(), 500, "every connection has a tuple of its own");
        let sessions = lab.daemon.entries(&["sessions"])?;
        let established = sessions.iter().filter(|s| s["state"] == "established").count();
        assert_eq!(established, 500);
        Ok(())
    });
}

#[test]
fn two_clients_with_the_same_source_port_at_once() {
    case::run(|case| {
        let lab = Lab::with(case, Options { clients: 2, ..Options::default() })?;
        let (server, datagrams) = echo_lab(&lab)?;
        let from = From { address: None, port: 50_000 };
        let mut streams = Vec::new();
        let mut sockets = Vec::new();
        for client in &lab.net.clients {
            let limit = Duration::from_secs(3);
            streams.push(tcp::try_connect_from(client, from, host(8080), limit).connected()?);
            sockets.push(udp::client(client, 50_000)?);
        }
        for round in 0..3 {
            for (n, (stream, socket)) in streams.iter_mut().zip(&sockets).enumerate() {
                let line = format!("client {n} round {round}");
                assert_eq!(tcp::ask(stream, &line)?, line);
                let (reply, _) = udp::ask(socket, host(8080), line.as_bytes())?;
                assert_eq!(reply, line.as_bytes());
            }
        }
        let peers = server.peers();
        assert_eq!(peers.len(), 2);
        ensure!(peers[0].ip() != peers[1].ip(), "each client has its own alias: {peers:?}");
        for peer in peers {
            ensure!(is_alias(peer.ip()) && peer.port() == 50_000, "{peer}");
            let told = datagrams.seen().iter().filter(|(from, _)| *from == peer).count();
            assert_eq!(told, 3, "the alias is the client's, whatever the protocol");
        }
        Ok(())
    });
}

#[test]
fn one_udp_socket_gets_each_reply_from_the_address_it_asked() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let _server = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let socket = udp::client(lab.net.client(), 0)?;
        for round in 0..3 {
            for address in [HOST, HOST_2] {
                let to = SocketAddr::from((address, 8080));
                let content = format!("{round} to {address}");
                let reply = udp::ask(&socket, to, content.as_bytes())?;
                assert_eq!(reply, (content.into_bytes(), to));
            }
        }
        Ok(())
    });
}

#[test]
fn a_link_local_client_of_a_link_local_address() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let (server, _datagrams) = echo_lab(&lab)?;
        let scope = lab.net.client().ifindex("eth0")?;
        let address = lab.net.host.link_local("up0")?;
        let to = SocketAddr::V6(SocketAddrV6::new(address, 8080, 0, scope));
        let mut stream = tcp::connect(lab.net.client(), to)?;
        assert_eq!(tcp::ask(&mut stream, "near")?, "near");
        let socket = udp::client(lab.net.client(), 0)?;
        assert_eq!(udp::ask(&socket, to, b"near")?, (b"near".to_vec(), to));
        let alias = server.last_peer()?.ip();
        ensure!(is_alias(alias), "{alias}");
        let whois = lab.daemon.entry(&["whois", &alias.to_string()])?;
        assert_eq!(whois["client"], json!(lab.net.client().link_local("eth0")?));
        assert_eq!(whois["scope"], json!("up0"), "{whois}");
        Ok(())
    });
}

#[test]
fn a_tun_uplink_without_ethernet_headers() {
    case::run(|case| {
        let lab = Lab::with(case, Options { tun: true, ..Options::default() })?;
        let _servers = echo_lab(&lab)?;
        let tunnel = lab.net.tunnel.as_ref().context("tunnel")?;
        tcp_and_udp_echo(tunnel, (HOST_TUNNEL, 8080).into())?;
        // More than one segment, both ways.
        let mut stream = tcp::connect(tunnel, (HOST_TUNNEL, 8080))?;
        let line = "x".repeat(9000);
        assert_eq!(tcp::ask(&mut stream, &line)?, line);
        tcp_and_udp_echo(lab.net.client(), host(8080))?;
        Ok(())
    });
}

#[test]
fn several_uplinks_each_answer_their_own_clients() {
    case::run(|case| {
        let lab = Lab::with(case, Options { second_uplink: true, ..Options::default() })?;
        let _servers = echo_lab(&lab)?;
        let far = lab.net.far.as_ref().context("far client")?;
        tcp_and_udp_echo(far, (HOST_FAR, 8080).into())?;
        tcp_and_udp_echo(lab.net.client(), host(8080))?;
        // The far client asks the first uplink's address: the reply leaves where it came in.
        far.ip(&format!("-6 route add {HOST} via {HOST_FAR}"))?;
        tcp_and_udp_echo(far, host(8080))?;
        Ok(())
    });
}

#[test]
fn an_uplink_and_addresses_that_come_later() {
    case::run(|case| {
        // Dropped last: its end of the veth pair must not go before the daemon has.
        let newcomer = Netns::new("newcomer")?;
        let mut lab = Lab::simple(case)?;
        let _servers = echo_lab(&lab)?;
        let later: Ipv6Addr = "2001:db8:1::7".parse()?;
        let add = format!("addr add {later}/64 dev up0 nodad");
        lab.daemon.alter(|| lab.net.host.ip(&add))?;
        std::thread::sleep(Duration::from_millis(300));
        tcp_and_udp_echo(lab.net.client(), (later, 8080).into())?;

        lab.daemon.alter(|| {
            publisher_tests::netns::veth(&lab.net.host, "up9", &newcomer, "eth0", 1500)?;
            lab.net.host.ip("addr add 2001:db8:9::1/64 dev up9 nodad")
        })?;
        newcomer.ip("addr add 2001:db8:9::c0/64 dev eth0 nodad")?;
        std::thread::sleep(Duration::from_millis(500));
        let to: SocketAddr = "[2001:db8:9::1]:8080".parse()?;
        tcp_and_udp_echo(&newcomer, to)?;
        // And an address that goes is no longer answered for.
        lab.daemon.alter(|| lab.net.host.ip(&format!("addr del {later}/64 dev up0")))?;
        std::thread::sleep(Duration::from_millis(300));
        let outcome = tcp::try_connect(lab.net.client(), (later, 8080), Duration::from_millis(500));
        ensure!(!matches!(outcome, tcp::Outcome::Connected(_)), "answered for a foreign address");
        Ok(())
    });
}

#[test]
fn clients_have_different_aliases_and_keep_them() {
    case::run(|case| {
        let mut lab = Lab::with(case, Options { clients: 3, ..Options::default() })?;
        let server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        let aliases = |lab: &Lab| -> Result<Vec<IpAddr>> {
            let visit = |client| {
                tcp::ask(&mut tcp::connect(client, host(8080))?, "hello")?;
                Ok(server.last_peer()?.ip())
            };
            lab.net.clients.iter().map(visit).collect()
        };
        let first = aliases(&lab)?;
        let mut different = first.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), 3, "{first:?}");
        assert_eq!(aliases(&lab)?, first, "on the next connection");
        lab.daemon.stop()?;
        lab.daemon.launch()?;
        assert_eq!(aliases(&lab)?, first, "after a restart of the daemon");
        // Uninstalled, with nothing left in the kernel: the key in the state directory remains.
        lab.daemon.uninstall()?;
        lab.daemon.launch()?;
        lab.daemon.add("8080", TARGET)?;
        assert_eq!(aliases(&lab)?, first, "after uninstall and a new start");
        Ok(())
    });
}

#[test]
fn a_range_leads_each_port_to_its_own() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let container = lab.net.container();
        let _first = tcp::Server::page(container, (ANY, 8100), "first")?;
        let _middle = tcp::Server::page(container, (ANY, 8107), "middle")?;
        let _last = tcp::Server::page(container, (ANY, 8110), "last")?;
        let _beyond = tcp::Server::page(container, (ANY, 8111), "beyond")?;
        let added = lab.daemon.add("8000-8010", "172.17.0.2:8100-8110")?;
        assert_eq!(added, "8000-8010/tcp -> 172.17.0.2:8100-8110\n");
        for (port, page) in [(8000, "first"), (8007, "middle"), (8010, "last")] {
            let fetched = tcp::fetch(lab.net.client(), host(port))?;
            ensure!(fetched.starts_with(page), "{port}: {fetched}");
        }
        let outcome = tcp::try_connect(lab.net.client(), host(8011), Duration::from_secs(1));
        ensure!(matches!(outcome, tcp::Outcome::Refused), "{outcome:?}");
        assert_eq!(lab.daemon.entries(&["ls"])?.len(), 1, "a range is one publication");
        lab.daemon.ctl(&["rm", "8000-8010"])?.ok()?;
        assert_eq!(lab.daemon.entries(&["ls"])?.len(), 0);
        Ok(())
    });
}

#[test]
fn the_alias_pool_can_be_chosen() {
    case::run(|case| {
        let net = publisher_tests::topology::Topology::simple()?;
        let daemon = publisher_tests::daemon::Daemon::start_with(
            case,
            &net.host,
            &["--alias-pool", "100.64.7.0/24"],
        )?;
        let server = tcp::Server::echo(net.container(), (ANY, 80))?;
        daemon.add("8080", TARGET)?;
        tcp::ask(&mut tcp::connect(net.client(), host(8080))?, "hello")?;
        let seen = server.last_peer()?;
        let IpAddr::V4(alias) = seen.ip() else { anyhow::bail!("the container saw {seen}") };
        assert_eq!(alias.octets()[..3], Ipv4Addr::new(100, 64, 7, 0).octets()[..3], "{seen}");
        Ok(())
    });
}
