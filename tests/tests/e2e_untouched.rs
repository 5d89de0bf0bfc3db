//! With the programs attached and port 8080 published, everything that isn't ours passes
//! byte-identical, and works.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use publisher_tests::case::{self, Case};
use publisher_tests::daemon::Daemon;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::netns::Netns;
use publisher_tests::shell;
use publisher_tests::topology::{
    BEHIND, FAR, HOST, HOST_FAR, Options, Topology, client_address, host,
};
use publisher_tests::traffic::frames::{self, Ends};
use publisher_tests::traffic::icmp::{self, RawSocket};
use publisher_tests::traffic::raw::{self, Capture};
use publisher_tests::traffic::tcp::{self, Outcome};
use publisher_tests::traffic::{bulk, udp};

const ANY: [u8; 4] = [0, 0, 0, 0];
const ANY6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

/// A network whose host has 8080 published over TCP and UDP, with proof that this works.
fn published<'a>(case: &'a Case, options: Options) -> Result<Lab<'a>> {
    let lab = Lab::with(case, options)?;
    publish(&lab)?;
    Ok(lab)
}

fn publish(lab: &Lab) -> Result<()> {
    lab.daemon.add("8080", TARGET)?;
    lab.daemon.add("8080/udp", TARGET)?;
    let _server = tcp::Server::page(lab.net.container(), (ANY, 80), "published")?;
    ensure!(tcp::fetch(lab.net.client(), host(8080))?.starts_with("published"));
    Ok(())
}

fn ends(lab: &Lab, to: Ipv6Addr) -> Result<Ends> {
    Ok(Ends {
        from_mac: lab.net.client().mac("eth0")?,
        to_mac: lab.net.host.mac("up0")?,
        from: client_address(0),
        to,
    })
}

#[test]
fn traffic_routed_through_the_host_to_8080_of_another_address() {
    case::run(|case| {
        let mut lab = published(case, Options { second_uplink: true, ..Options::default() })?;
        let far = lab.net.far.as_ref().context("far")?;
        lab.daemon.alter(|| lab.net.host.sysctl("ipv6/conf/all/forwarding", "1"))?;
        lab.net.client().ip(&format!("-6 route add default via {HOST}"))?;
        far.ip(&format!("-6 route add default via {HOST_FAR}"))?;
        let to = SocketAddr::from((FAR, 8080));
        let server = tcp::Server::echo(far, to)?;
        let datagrams = udp::Server::echo(far, to)?;
        let mut stream = tcp::connect(lab.net.client(), to)?;
        assert_eq!(tcp::ask(&mut stream, "routed")?, "routed");
        assert_eq!(server.last_peer()?.ip(), client_address(0));
        let socket = udp::client(lab.net.client(), 0)?;
        assert_eq!(udp::ask(&socket, to, b"routed")?, (b"routed".to_vec(), to));
        assert_eq!(datagrams.wait_for(b"routed")?.ip(), client_address(0));

        let mut ends = ends(&lab, FAR)?;
        ends.from = "2001:db8:1::c7".parse()?;
        let capture = Capture::start(far, "eth0")?;
        for (name, frame) in ends.zoo() {
            raw::inject(lab.net.client(), "eth0", &frame)?;
            // The router takes one hop; nothing else may differ.
            let mut expected = frame[14..].to_vec();
            expected[7] -= 1;
            let same = |seen: &raw::Frame| !seen.outgoing && seen.bytes[14..] == expected;
            capture.wait_for(Duration::from_secs(1), same).with_context(|| name.to_owned())?;
        }
        Ok(())
    });
}

#[test]
fn vlan_tagged_frames_pass_the_parent_device() {
    case::run(|case| {
        let net = Topology::simple()?;
        let daemon = Daemon::start_with(case, &net.host, &["--uplink", "up0"])?;
        let lab = Lab { daemon, net };
        publish(&lab)?;
        // What tc ingress lets through goes to a macvlan next, which takes it to a namespace
        // of its own; VLAN devices need a module that not every kernel has.
        let beyond = Netns::new("beyond")?;
        let link = format!("link add link up0 name mv0 netns {} type macvlan", beyond.name());
        lab.net.host.ip(&format!("{link} mode passthru"))?;
        beyond.ip("link set mv0 up")?;
        std::thread::sleep(Duration::from_millis(200));
        let capture = Capture::start(&beyond, "mv0")?;
        let inside = Capture::start(lab.net.container(), "eth0")?;
        let ends = ends(&lab, HOST)?;
        for (name, frame) in ends.zoo() {
            let frame = frames::tagged(&frame, 10);
            raw::inject(lab.net.client(), "eth0", &frame)?;
            let seen = capture.wait_for(Duration::from_secs(1), |seen| seen.bytes == frame);
            seen.with_context(|| format!("{name} with a tag"))?;
        }
        ensure!(!inside.frames().iter().any(|f| f.contains(b"an inner datagram")));
        // Without a tag the same datagram is ours.
        raw::inject(lab.net.client(), "eth0", &ends.udp(5000, 8080, b"untagged"))?;
        inside.wait_for(Duration::from_secs(1), |f| f.contains(b"untagged"))?;
        ensure!(!capture.frames().iter().any(|f| f.contains(b"untagged")));
        Ok(())
    });
}

/// Publishes the same without a socket that holds the ports.
fn in_kernel_only(lab: &Lab<'_>) -> Result<()> {
    for published in ["8080", "8080/udp"] {
        lab.daemon.ctl(&["add", published, TARGET, "--path", "kernel"])?.ok()?;
    }
    Ok(())
}

#[test]
fn frames_to_another_mac_address_are_not_ours() {
    case::run(|case| {
        let lab = published(case, Options::default())?;
        // A socket of the host would get what is sent to everybody, and that is the host's affair.
        in_kernel_only(&lab)?;
        let inside = Capture::start(lab.net.container(), "eth0")?;
        let ours = ends(&lab, HOST)?;
        let other = Ends { to_mac: [2, 0, 0, 0, 0, 9], ..ours };
        raw::inject(lab.net.client(), "eth0", &other.udp(5000, 8080, b"for somebody else"))?;
        let all = Ends { to_mac: [0xff; 6], ..ours };
        raw::inject(lab.net.client(), "eth0", &all.udp(5000, 8080, b"for everybody"))?;
        raw::inject(lab.net.client(), "eth0", &ours.udp(5000, 8080, b"for the host"))?;
        inside.wait_for(Duration::from_secs(1), |f| f.contains(b"for the host"))?;
        let wrong = inside
            .frames()
            .into_iter()
            .find(|f| f.contains(b"for somebody else") || f.contains(b"for everybody"));
        ensure!(wrong.is_none(), "{wrong:?}");
        Ok(())
    });
}

#[test]
fn i1_i7_neighbour_discovery_and_ping() {
    case::run(|case| {
        let lab = published(case, Options::default())?;
        let (client, server) = (lab.net.client(), &lab.net.host);
        for round in 0..3 {
            client.ip("neigh flush all")?;
            server.ip("neigh flush all")?;
            icmp::ping(client, HOST, 0, format!("to the host {round}").as_bytes())?;
            client.ip("neigh flush all")?;
            server.ip("neigh flush all")?;
            icmp::ping(server, client_address(0), 0, b"to the client")?;
        }
        let scope = client.ifindex("eth0")?;
        icmp::ping(client, server.link_local("up0")?, scope, b"link-local")?;
        // Fragmented, with 8080 where a port would stand in every fragment.
        let large: Vec<u8> = [0x1f, 0x90].repeat(2500);
        icmp::ping(client, HOST, 0, &large)?;
        icmp::ping(server, client_address(0), 0, &large)?;
        Ok(())
    });
}

#[test]
fn i7_duplicate_address_detection_both_ways() {
    case::run(|case| {
        let mut lab = published(case, Options::default())?;
        for (who, interface, address) in
            [(lab.net.client(), "eth0", HOST), (&*lab.net.host, "up0", client_address(0))]
        {
            lab.daemon.alter(|| {
                who.sysctl(&format!("ipv6/conf/{interface}/accept_dad"), "1")?;
                who.ip(&format!("addr add {address}/64 dev {interface}"))
            })?;
            let failed = || {
                let show = format!("-6 addr show dev {interface} to {address}");
                who.ip(&show).is_ok_and(|text| text.contains("dadfailed"))
            };
            ensure!(shell::wait_until(Duration::from_secs(4), failed), "{address} on {interface}");
        }
        Ok(())
    });
}

#[test]
fn i7_multicast_listener_discovery() {
    case::run(|case| {
        let lab = published(case, Options::default())?;
        let capture = Capture::start(lab.net.client(), "eth0")?;
        let group: Ipv6Addr = "ff02::1".parse()?;
        let ends = Ends {
            from_mac: lab.net.client().mac("eth0")?,
            to_mac: [0x33, 0x33, 0, 0, 0, 1],
            from: lab.net.client().link_local("eth0")?,
            to: group,
        };
        // A general query of MLDv2 (RFC 3810 §5.1) behind a router alert, answered within 100 ms.
        let mut query = vec![130, 0, 0, 0, 0, 100, 0, 0];
        query.extend([0; 16]);
        query.extend([2, 125, 0, 0]);
        let sum = frames::checksum(ends.from, ends.to, icmp::ICMPV6, &query);
        query[2..4].copy_from_slice(&sum.to_be_bytes());
        let content = [&[icmp::ICMPV6, 0, 5, 2, 0, 0, 1, 0], query.as_slice()].concat();
        let mut frame = ends.protocol(0, &content);
        frame[21] = 1; // the hop limit that RFC 3810 §5 asks for
        let reports = || {
            let frames = capture.frames();
            frames.iter().filter(|f| !f.outgoing && f.bytes.get(62) == Some(&143)).count()
        };
        let before = reports();
        raw::inject(lab.net.client(), "eth0", &frame)?;
        ensure!(shell::wait_until(Duration::from_secs(2), || reports() > before), "no report");
        Ok(())
    });
}

#[test]
fn h10_esp_and_gre_of_the_host() {
    case::run(|case| {
        let lab = published(case, Options::default())?;
        let inner = ends(&lab, HOST)?.udp(5000, 8080, b"looks like ours");
        for protocol in [icmp::ESP, icmp::GRE] {
            let client = RawSocket::open(lab.net.client(), protocol)?;
            let server = RawSocket::open(&lab.net.host, protocol)?;
            for payload in [&inner[54..], &inner[14..], &[0x5a; 1400]] {
                client.send(HOST, 0, payload)?;
                assert_eq!(server.receive()?, (payload.to_vec(), client_address(0)));
                server.send(client_address(0), 0, payload)?;
                // From whichever of its addresses the host takes.
                assert_eq!(client.receive()?.0, payload);
            }
        }
        Ok(())
    });
}

#[test]
fn services_of_the_host_on_other_ports() {
    case::run(|case| {
        let lab = published(case, Options::default())?;
        for port in [80, 8079, 8081, 18_080] {
            let at = SocketAddr::from((ANY6, port));
            let server = tcp::Server::start(&lab.net.host, at, bulk::serve)?;
            bulk::exchange(&mut tcp::connect(lab.net.client(), host(port))?, bulk::MIB)?;
            assert_eq!(server.last_peer()?.ip(), client_address(0));
            let _datagrams = udp::Server::echo(&lab.net.host, host(port))?;
            let socket = udp::client(lab.net.client(), 8080)?;
            for length in [1, 1452, 5000] {
                let content = vec![7; length];
                let reply = udp::ask(&socket, host(port), &content)?;
                assert_eq!(reply, (content, host(port)));
            }
        }
        Ok(())
    });
}

#[test]
fn i12_packet_too_big_of_the_hosts_own_connections() {
    case::run(|case| {
        let lab = published(case, Options { narrow: Some(1400), ..Options::default() })?;
        // Otherwise the host couldn't use the port itself.
        in_kernel_only(&lab)?;
        // A service of the host, and connections of the host to 8080 and from 8080.
        let own = tcp::Server::start(&lab.net.host, (ANY6, 9000), bulk::serve)?;
        bulk::exchange(&mut tcp::connect(lab.net.client(), host(9000))?, 2 * bulk::MIB)?;
        drop(own);
        for (local, port) in [(0, 8080), (8080, 9001)] {
            // The path's MTU has to be learned again.
            lab.net.host.ip("-6 route flush cache")?;
            let to = SocketAddr::from((BEHIND, port));
            let _server = tcp::Server::start(lab.net.client(), to, bulk::serve)?;
            let from = tcp::From { address: None, port: local };
            let limit = Duration::from_secs(3);
            let mut stream = tcp::try_connect_from(&lab.net.host, from, to, limit).connected()?;
            let exchanged = bulk::exchange(&mut stream, 2 * bulk::MIB);
            exchanged.with_context(|| format!("from port {local} to port {port}"))?;
        }
        Ok(())
    });
}

/// 200 connections of the host's own with an ephemeral range of four ports, one of them published.
fn own_connections(set_range_first: bool) {
    case::run(|case| {
        let net = Topology::simple()?;
        let range = || net.host.sysctl("ipv4/ip_local_port_range", "40000 40003");
        if set_range_first {
            range()?;
        }
        let mut daemon = Daemon::start(case, &net.host)?;
        if !set_range_first {
            daemon.alter(range)?;
        }
        daemon.add("40000", TARGET)?;
        daemon.add("40000/udp", TARGET)?;
        let to = SocketAddr::from((client_address(0), 443));
        let server = tcp::Server::echo(net.client(), to)?;
        let mut failed = Vec::new();
        for n in 0..200 {
            // Time for a SYN that overtakes the RST before it, and is sent once more.
            match tcp::try_connect(&net.host, to, Duration::from_secs(3)) {
                Outcome::Connected(mut stream) => {
                    let line = format!("connection {n}");
                    if tcp::ask(&mut stream, &line)? != line {
                        failed.push(format!("{n}: no echo"));
                    }
                    // Without TIME-WAIT, or four ports would be used up at once.
                    tcp::abort(stream)?;
                }
                other => failed.push(format!("{n}: {other:?}")),
            }
        }
        ensure!(failed.is_empty(), "{} of 200 failed: {failed:?}", failed.len());
        ensure!(server.peers().iter().all(|peer| (40_000..=40_003).contains(&peer.port())));
        let _datagrams = udp::Server::echo(net.client(), to)?;
        for n in 0..20u8 {
            let socket = udp::client(&net.host, 0)?;
            udp::ask(&socket, to, &[n]).with_context(|| format!("datagram {n}"))?;
        }
        daemon.uninstall()?;
        let reserved = net.host.read_sysctl("ipv4/ip_local_reserved_ports")?;
        ensure!(reserved.is_empty(), "left reserved: {reserved}");
        Ok(())
    });
}

#[test]
fn none_of_200_own_connections_fails_when_the_range_was_there_before() {
    own_connections(true);
}

#[test]
fn none_of_200_own_connections_fails_when_the_range_comes_later() {
    own_connections(false);
}

#[test]
fn ports_reserved_by_others_stay_reserved() {
    case::run(|case| {
        let net = Topology::simple()?;
        net.host.sysctl("ipv4/ip_local_reserved_ports", "40001,50000-50010")?;
        let mut daemon = Daemon::start(case, &net.host)?;
        daemon.add("40000", TARGET)?;
        daemon.add("40001", TARGET)?;
        daemon.ctl(&["rm", "40001"])?.ok()?;
        let with = net.host.read_sysctl("ipv4/ip_local_reserved_ports")?;
        ensure!(with.contains("50000-50010") && with.contains("4000"), "{with}");
        daemon.uninstall()?;
        let after = net.host.read_sysctl("ipv4/ip_local_reserved_ports")?;
        assert_eq!(after, "40001,50000-50010");
        Ok(())
    });
}
