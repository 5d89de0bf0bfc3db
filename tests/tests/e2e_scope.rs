//! Who is answered, on which address, by which container: and who isn't.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use publisher_tests::case;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::netns::Netns;
use publisher_tests::topology::{HOST, HOST_2, Options, client_address, host};
use publisher_tests::traffic::frames::Ends;
use publisher_tests::traffic::raw::{self, Capture};
use publisher_tests::traffic::tcp::{self, Outcome};
use publisher_tests::traffic::udp;
use serde_json::json;

const ANY: [u8; 4] = [0, 0, 0, 0];

#[test]
fn a_publication_on_one_address_answers_on_no_other() {
    case::run(|case| {
        let lab = Lab::with(case, Options { containers: 2, ..Options::default() })?;
        let _one = tcp::Server::page(lab.net.container(), (ANY, 80), "one")?;
        let _two = tcp::Server::page(&lab.net.containers[1].ns, (ANY, 80), "two")?;
        let datagrams = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        let first = format!("[{HOST}]:8080");
        let added = lab.daemon.add(&first, TARGET)?;
        assert_eq!(added, format!("[{HOST}]:8080/tcp -> 172.17.0.2:80\n"));
        lab.daemon.add(&format!("[{HOST}]:8080/udp"), TARGET)?;
        let client = lab.net.client();
        ensure!(tcp::fetch(client, host(8080))?.starts_with("one"));
        udp::ask(&udp::client(client, 0)?, host(8080), b"asked")?;
        let scope = client.ifindex("eth0")?;
        let local = std::net::SocketAddrV6::new(lab.net.host.link_local("up0")?, 8080, 0, scope);
        for other in [SocketAddr::from((HOST_2, 8080)), local.into()] {
            let outcome = tcp::try_connect(client, other, Duration::from_secs(1));
            ensure!(matches!(outcome, Outcome::Refused), "{other}: {outcome:?}");
            let socket = udp::client(client, 0)?;
            socket.set_read_timeout(Some(Duration::from_millis(300)))?;
            ensure!(udp::ask(&socket, other, b"other").is_err(), "udp to {other} was answered");
        }
        assert_eq!(datagrams.seen().len(), 1);
        // Another container may have the same port of another address, and of all the others:
        // the exact address wins.
        lab.daemon.add(&format!("[{HOST_2}]:8080"), "172.17.0.3:80")?;
        ensure!(tcp::fetch(client, (HOST_2, 8080))?.starts_with("two"));
        ensure!(tcp::fetch(client, host(8080))?.starts_with("one"));
        Ok(())
    });
}

#[test]
fn loopback_publications_never_answer_an_uplink() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let _server = tcp::Server::page(lab.net.container(), (ANY, 80), "inside")?;
        lab.daemon.ctl(&["add", "[::1]:8080", TARGET])?.ok()?;
        lab.daemon.ctl(&["add", "[::1]:8080/udp", TARGET])?.ok()?;
        let inside = Capture::start(lab.net.container(), "eth0")?;
        for address in [HOST, HOST_2] {
            let to = (address, 8080);
            let outcome = tcp::try_connect(lab.net.client(), to, Duration::from_secs(1));
            ensure!(matches!(outcome, Outcome::Refused), "{outcome:?}");
        }
        let ends = |to| -> Result<Ends> {
            Ok(Ends {
                from_mac: lab.net.client().mac("eth0")?,
                to_mac: lab.net.host.mac("up0")?,
                from: client_address(0),
                to,
            })
        };
        // A neighbour may put anything on the wire.
        let local = ends(Ipv6Addr::LOCALHOST)?;
        raw::inject(lab.net.client(), "eth0", &local.udp(5000, 8080, b"to loopback"))?;
        raw::inject(lab.net.client(), "eth0", &local.tcp(5000, 8080, true, b""))?;
        // And with a wildcard publication too, from an address that no client can have.
        lab.daemon.add("8081/udp", TARGET)?;
        raw::inject(lab.net.client(), "eth0", &local.udp(5000, 8081, b"to loopback"))?;
        let mut forged = ends(HOST)?;
        for from in ["::1", "::", "ff02::1", "2001:db8:1::1"] {
            forged.from = from.parse()?;
            let frame = forged.udp(5000, 8081, b"from nowhere");
            raw::inject(lab.net.client(), "eth0", &frame)?;
        }
        raw::inject(lab.net.client(), "eth0", &ends(HOST)?.udp(5000, 8081, b"honest"))?;
        inside.wait_for(Duration::from_secs(1), |f| f.contains(b"honest"))?;
        for frame in inside.frames().iter().filter(|f| !f.outgoing) {
            ensure!(!frame.contains(b"to loopback"), "[::1] was reached from an uplink");
            ensure!(!frame.contains(b"from nowhere"), "a forged source was let in");
            ensure!(frame.tcp_over_ipv4().is_none(), "[::1] was reached from an uplink by TCP");
        }
        Ok(())
    });
}

/// A datagram inside IPv4 and Ethernet.
fn datagram(macs: [[u8; 6]; 2], from: SocketAddr, to: SocketAddr, content: &[u8]) -> Vec<u8> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { unreachable!("IPv4") };
    let builder = PacketBuilder::ethernet2(macs[0], macs[1])
        .ipv4(from.ip().octets(), to.ip().octets(), 64)
        .udp(from.port(), to.port());
    let mut frame = Vec::new();
    builder.write(&mut frame, content).expect("writing to memory");
    frame
}

#[test]
fn a_neighbour_container_cannot_forge_a_reply() {
    case::run(|case| {
        let lab = Lab::with(case, Options { containers: 2, ..Options::default() })?;
        let server = udp::Server::sink(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let socket = udp::client(lab.net.client(), 0)?;
        socket.send_to(b"question", host(8080))?;
        let alias = server.wait_for(b"question")?;
        let neighbour: &Netns = &lab.net.containers[1].ns;
        let gateway = lab.net.host.mac("br0")?;
        let victim = lab.net.container().mac("eth0")?;
        let outside = Capture::start(lab.net.client(), "eth0")?;
        let forge = |mac: [u8; 6]| -> Result<()> {
            for to_mac in [gateway, [0xff; 6]] {
                let forged = datagram([mac, to_mac], lab.net.target(80), alias, b"forged");
                raw::inject(neighbour, "eth0", &forged)?;
            }
            std::thread::sleep(Duration::from_millis(200));
            ensure!(!outside.frames().iter().any(|f| f.contains(b"forged")), "it arrived");
            Ok(())
        };
        forge(neighbour.mac("eth0")?).context("from its own hardware address")?;
        server.reply(alias, b"true")?;
        let mut content = [0; 64];
        let (length, from) = socket.recv_from(&mut content).context("the true reply")?;
        assert_eq!((&content[..length], from), (&b"true"[..], host(8080)));

        // With the victim's hardware address it makes the bridge believe that the victim moved,
        // and the bridge sends it what is the victim's. Old sessions aren't among that.
        forge(victim).context("from the victim's hardware address")?;
        forge(victim).context("once more")?;
        socket.send_to(b"question of an old session", host(8080))?;
        std::thread::sleep(Duration::from_millis(100));
        // The next packet of the victim puts things right, for new sessions.
        server.reply(([172, 17, 0, 1], 9).into(), b"here I am")?;
        let fresh = udp::client(lab.net.client(), 0)?;
        fresh.set_read_timeout(Some(Duration::from_millis(300)))?;
        let answered = publisher_tests::shell::wait_until(Duration::from_secs(8), || {
            let _ = server.reply(([172, 17, 0, 1], 9).into(), b"here I am");
            let before = server.seen().len();
            fresh.send_to(b"new", host(8080)).is_ok_and(|_| {
                std::thread::sleep(Duration::from_millis(200));
                server.seen().len() > before
            })
        });
        ensure!(answered, "the victim stays unreachable");
        Ok(())
    });
}

#[test]
fn a_container_opens_no_session_to_an_alias() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let server = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let socket = udp::client(lab.net.client(), 45_000)?;
        udp::ask(&socket, host(8080), b"hello")?;
        let alias = server.seen()[0].0;
        // From another port, to another port, and to an alias that nobody has.
        let outside = Capture::start(lab.net.client(), "eth0")?;
        let other = lab.net.container().run(|| std::net::UdpSocket::bind(("0.0.0.0", 81)))?;
        other.send_to(b"unasked", alias)?;
        server.reply((alias.ip(), 45_001).into(), b"unasked")?;
        server.reply((Ipv4Addr::new(198, 19, 77, 77), 45_000).into(), b"unasked")?;
        ensure!(udp::silent(&socket, Duration::from_millis(300))?);
        ensure!(!outside.frames().iter().any(|f| f.contains(b"unasked")));
        Ok(())
    });
}

#[test]
fn a_target_with_its_default_route_on_another_network_is_reached() {
    case::run(|case| {
        let lab = Lab::with(case, Options { second_network: true, ..Options::default() })?;
        let server = tcp::Server::page(lab.net.container(), (ANY, 80), "two networks")?;
        let datagrams = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.add("8080/udp", TARGET)?;
        // Where the container's routes can't be looked up, the first replies tell.
        let mut fetched = tcp::fetch(lab.net.client(), host(8080));
        if fetched.is_err() {
            fetched = tcp::fetch(lab.net.client(), host(8080));
        }
        ensure!(fetched?.starts_with("two networks"));
        assert_eq!(server.last_peer()?.ip(), Ipv4Addr::new(172, 17, 0, 1));
        let socket = udp::client(lab.net.client(), 0)?;
        let answered = (0..2).any(|_| udp::ask(&socket, host(8080), b"hello").is_ok());
        ensure!(answered, "no datagram was answered");
        assert_eq!(datagrams.seen().last().context("seen")?.0.ip(), Ipv4Addr::new(172, 17, 0, 1));
        for publication in lab.daemon.entries(&["ls"])? {
            assert_eq!(publication["source"]["used"], json!("gateway"), "{publication}");
            ensure!(publication["source"]["reason"].is_string(), "{publication}");
        }
        let table = lab.daemon.ctl(&["ls"])?.ok()?.stdout;
        ensure!(table.contains("gateway"), "{table}");
        Ok(())
    });
}

#[test]
fn the_gateway_can_be_asked_for_and_serves_many_clients() {
    case::run(|case| {
        let lab = Lab::with(case, Options { clients: 2, ..Options::default() })?;
        let server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.ctl(&["add", "8080", TARGET, "--source", "gateway"])?.ok()?;
        let from = tcp::From { address: None, port: 50_000 };
        let mut streams = Vec::new();
        for client in &lab.net.clients {
            let limit = Duration::from_secs(3);
            streams.push(tcp::try_connect_from(client, from, host(8080), limit).connected()?);
        }
        for (n, stream) in streams.iter_mut().enumerate() {
            let line = format!("client {n}");
            assert_eq!(tcp::ask(stream, &line)?, line);
        }
        let peers = server.peers();
        let gateway = Ipv4Addr::new(172, 17, 0, 1);
        ensure!(peers.iter().all(|peer| peer.ip() == gateway), "{peers:?}");
        ensure!(peers[0].port() != peers[1].port(), "{peers:?}");
        // The host's own connections to the container go on beside it.
        let own = tcp::Server::echo(lab.net.container(), (ANY, 81))?;
        for n in 0..50 {
            let line = format!("own {n}");
            let mut stream = tcp::connect(&lab.net.host, lab.net.target(81))?;
            assert_eq!(tcp::ask(&mut stream, &line)?, line);
        }
        assert_eq!(own.peers().len(), 50);
        Ok(())
    });
}

#[test]
fn status_warns_of_a_firewall_that_would_have_blocked_a_publication() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let _server = tcp::Server::page(lab.net.container(), (ANY, 80), "inside")?;
        lab.daemon.add("8080", TARGET)?;
        let warnings = || -> Result<String> {
            let status = lab.daemon.json(&["status"])?;
            Ok(status["warnings"].to_string().to_lowercase())
        };
        ensure!(!warnings()?.contains("firewall"), "{}", warnings()?);
        lab.net.host.sh("ip6tables -A INPUT -p tcp --dport 8080 -j DROP")?;
        let said = || warnings().is_ok_and(|text| text.contains("firewall"));
        // The rules are looked at every 10 s; nothing tells of a change.
        let limit = Duration::from_secs(13);
        ensure!(publisher_tests::shell::wait_until(limit, said), "{}", warnings()?);
        lab.net.host.sh("ip6tables -F INPUT")?;
        let quiet = || warnings().is_ok_and(|text| !text.contains("firewall"));
        ensure!(publisher_tests::shell::wait_until(limit, quiet), "{}", warnings()?);
        Ok(())
    });
}
