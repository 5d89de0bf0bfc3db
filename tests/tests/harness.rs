//! The harness itself, on networks without a daemon: a tool that can't see a fault would let the
//! product's pass.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use publisher_tests::case::{self, Case};
use publisher_tests::docker_proxy::DockerProxy;
use publisher_tests::netns::{self, Netns};
use publisher_tests::residue::HostState;
use publisher_tests::topology::{
    FAR, HOST, HOST_2, HOST_FAR, HOST_TUNNEL, Options, TUNNEL, Topology, client_address, host,
};
use publisher_tests::traffic::frames::{self, Ends};
use publisher_tests::traffic::pulse::Pulse;
use publisher_tests::traffic::tcp::{self, Outcome};
use publisher_tests::traffic::{bulk, icmp, raw, udp};

/// A case that must fail; returns the message.
fn failure(body: impl FnOnce(&Case) -> Result<()>) -> String {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case::run(body)));
    let panic = panic.expect_err("the case must fail");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn namespaces_are_gone_after_a_case_that_panicked() {
    let message = failure(|_| {
        let _net = Topology::simple()?;
        panic!("{}", "on purpose");
    });
    assert_eq!(message, "on purpose");
    assert_eq!(netns::existing(&format!("{}{}-", netns::PREFIX, std::process::id())), [""; 0]);
}

#[test]
fn what_a_case_leaves_behind_fails_it() {
    let message = failure(|case| {
        std::mem::forget(Netns::new("forgotten")?);
        case.expect_removed(Path::new("/"));
        case.expect_ended(std::process::id());
        Ok(())
    });
    for expected in ["-forgotten", "path /", &format!("process {}", std::process::id())] {
        assert!(message.contains(expected), "{expected} isn't in {message}");
    }
    for name in netns::existing(&format!("{}{}-", netns::PREFIX, std::process::id())) {
        std::process::Command::new("ip").args(["netns", "del", &name]).status().unwrap();
    }
}

#[test]
fn host_state_notices_sysctls_qdiscs_links_and_routes() {
    case::run(|_| {
        let net = Topology::simple()?;
        let before = HostState::of(&net.host)?;
        ensure!(before.changes(&HostState::of(&net.host)?).is_empty(), "nothing changed");
        net.host.sysctl("ipv4/ip_local_reserved_ports", "40000")?;
        net.host.sh("tc qdisc add dev up0 clsact")?;
        net.host.ip("link add leftover type veth peer name leftover2")?;
        net.host.ip("route add 198.18.0.0/15 dev br0")?;
        let changes = before.changes(&HostState::of(&net.host)?).join("\n");
        for expected in ["ip_local_reserved_ports", "clsact", "link left: leftover", "198.18"] {
            ensure!(changes.contains(expected), "{expected} isn't in {changes}");
        }
        // Changes of the test's own are taken over, and only they.
        let (mut start, from) = (before, HostState::of(&net.host)?);
        net.host.ip("link del leftover")?;
        net.host.sysctl("ipv6/conf/all/forwarding", "1")?;
        start.take_over(&from, &HostState::of(&net.host)?);
        let changes = start.changes(&HostState::of(&net.host)?).join("\n");
        ensure!(!changes.contains("leftover") && !changes.contains("forwarding"), "{changes}");
        ensure!(changes.contains("ip_local_reserved_ports"), "{changes}");
        Ok(())
    });
}

#[test]
fn every_kind_of_uplink_carries_traffic_to_the_host() {
    case::run(|_| {
        let net = Topology::build(Options {
            clients: 2,
            second_uplink: true,
            tun: true,
            ..Options::default()
        })?;
        let server = tcp::Server::echo(&net.host, (Ipv6Addr::UNSPECIFIED, 9000))?;
        for (client, address, from) in [
            (&net.clients[0], HOST, client_address(0)),
            (&net.clients[1], HOST_2, client_address(1)),
            (net.far.as_ref().unwrap(), HOST_FAR, FAR),
            (net.tunnel.as_ref().unwrap(), HOST_TUNNEL, TUNNEL),
        ] {
            let mut stream = tcp::connect(client, (address, 9000))?;
            assert_eq!(tcp::ask(&mut stream, "hello")?, "hello");
            assert_eq!(server.last_peer()?.ip(), from);
            icmp::ping(client, address, 0, b"ping")?;
        }
        let scope = net.client().ifindex("eth0")?;
        let address = SocketAddrV6::new(net.host.link_local("up0")?, 9000, 0, scope);
        tcp::connect(net.client(), address)?;
        Ok(())
    });
}

#[test]
fn containers_are_reached_from_the_host_and_after_a_restart() {
    case::run(|_| {
        let mut net = Topology::build(Options { containers: 2, ..Options::default() })?;
        for container in &net.containers {
            let _server = tcp::Server::page(&container.ns, ([0, 0, 0, 0], 80), "hello")?;
            let page = tcp::fetch(&net.host, (container.address, 80))?;
            ensure!(page.starts_with("hello for 172.17.0.1:"), "{page}");
        }
        let mac = net.container().mac("eth0")?;
        net.restart_container(0)?;
        assert_ne!(mac, net.container().mac("eth0")?);
        let _server = tcp::Server::page(net.container(), ([0, 0, 0, 0], 80), "again")?;
        ensure!(tcp::fetch(&net.host, net.target(80))?.starts_with("again"));
        Ok(())
    });
}

#[test]
fn outcomes_of_a_connection_are_told_apart() {
    case::run(|_| {
        let net = Topology::simple()?;
        let limit = Duration::from_millis(300);
        let refused = tcp::try_connect(net.client(), host(9), limit);
        ensure!(matches!(refused, Outcome::Refused), "{refused:?}");
        let lost = tcp::try_connect(net.client(), (client_address(7), 9), limit);
        ensure!(matches!(lost, Outcome::TimedOut), "{lost:?}");
        let nowhere = tcp::try_connect(net.client(), (FAR, 9), limit);
        ensure!(matches!(nowhere, Outcome::Failed(_)), "{nowhere:?}");
        Ok(())
    });
}

#[test]
fn bulk_notices_a_changed_byte_and_routers_narrow_the_path() {
    case::run(|_| {
        let net =
            Topology::build(Options { narrow: Some(1400), offloads: false, ..Options::default() })?;
        let _server = tcp::Server::start(&net.host, (Ipv6Addr::UNSPECIFIED, 9000), bulk::serve)?;
        let capture = raw::Capture::start(net.client(), "eth0")?;
        bulk::exchange(&mut tcp::connect(net.client(), host(9000))?, 4 * bulk::MIB)?;
        // The router before the narrow link tells the client of it.
        capture.wait_for(Duration::from_secs(1), |f| {
            !f.outgoing && f.bytes.get(20) == Some(&icmp::ICMPV6) && f.bytes[54] == 2
        })?;
        assert_ne!(bulk::sum_of(1, 1 << 20)?, bulk::sum_of(2, 1 << 20)?);
        assert_ne!(bulk::sum_of(1, 1 << 20)?, bulk::sum_of(1, (1 << 20) - 1)?);
        Ok(())
    });
}

#[test]
fn udp_tools_see_contents_senders_and_silence() {
    case::run(|_| {
        let net = Topology::simple()?;
        let server = udp::Server::echo(&net.host, (HOST_2, 5353))?;
        let client = udp::client(net.client(), 5000)?;
        let to = SocketAddr::from((HOST_2, 5353));
        assert_eq!(udp::ask(&client, to, b"ping")?, (b"ping".to_vec(), to));
        assert_eq!(server.wait_for(b"ping")?, (client_address(0), 5000).into());
        ensure!(udp::silent(&client, Duration::from_millis(100))?);
        server.reply((client_address(0), 5000).into(), b"more")?;
        ensure!(!udp::silent(&client, Duration::from_secs(1))?);
        Ok(())
    });
}

#[test]
fn captures_return_injected_frames_unchanged_with_their_vlan_tag() {
    case::run(|_| {
        let net = Topology::simple()?;
        let capture = raw::Capture::start(&net.host, "up0")?;
        let mut frame = [net.host.mac("up0")?, net.client().mac("eth0")?].concat();
        frame.extend([0x81, 0x00, 0x00, 0x0a, 0x86, 0xdd]);
        frame.extend((0..100).map(|n: u8| n));
        raw::inject(net.client(), "eth0", &frame)?;
        let limit = Duration::from_secs(1);
        capture.wait_for(limit, |seen| seen.bytes == frame && !seen.outgoing)?;
        ensure!(capture.wait_for(Duration::from_millis(50), |f| f.bytes == [1]).is_err());
        Ok(())
    });
}

#[test]
fn routers_pass_every_kind_of_frame_unchanged() {
    case::run(|_| {
        let net = Topology::build(Options { second_uplink: true, ..Options::default() })?;
        net.host.sysctl("ipv6/conf/all/forwarding", "1")?;
        let far = net.far.as_ref().unwrap();
        far.ip("-6 route add default via 2001:db8:2::1")?;
        let ends = Ends {
            from_mac: net.client().mac("eth0")?,
            to_mac: net.host.mac("up0")?,
            from: client_address(7),
            to: FAR,
        };
        let capture = raw::Capture::start(far, "eth0")?;
        for (name, frame) in ends.zoo() {
            raw::inject(net.client(), "eth0", &frame)?;
            let mut expected = frame[14..].to_vec();
            expected[7] -= 1;
            let same = |seen: &raw::Frame| !seen.outgoing && seen.bytes[14..] == expected;
            let seen = capture.wait_for(Duration::from_secs(1), same);
            ensure!(seen.is_ok(), "{name}: {seen:?}");
        }
        Ok(())
    });
}

#[test]
fn a_macvlan_sees_tagged_frames_of_its_parent() {
    case::run(|_| {
        let net = Topology::simple()?;
        let beyond = Netns::new("beyond")?;
        let link = format!("link add link up0 name mv0 netns {} type macvlan", beyond.name());
        net.host.ip(&format!("{link} mode passthru"))?;
        beyond.ip("link set mv0 up")?;
        let ends = Ends {
            from_mac: net.client().mac("eth0")?,
            to_mac: net.host.mac("up0")?,
            from: client_address(0),
            to: HOST,
        };
        let capture = raw::Capture::start(&beyond, "mv0")?;
        for (name, frame) in ends.zoo() {
            let frame = frames::tagged(&frame, 10);
            raw::inject(net.client(), "eth0", &frame)?;
            let seen = capture.wait_for(Duration::from_secs(1), |seen| seen.bytes == frame);
            ensure!(seen.is_ok(), "{name}: {seen:?}");
        }
        Ok(())
    });
}

#[test]
fn a_pulse_notices_a_pause() {
    case::run(|_| {
        let net = Topology::simple()?;
        let at = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 9000));
        let _server = tcp::Server::echo(&net.host, at)?;
        let _datagrams = udp::Server::echo(&net.host, host(9000))?;
        let transfer = Pulse::tcp(tcp::connect(net.client(), host(9000))?);
        let datagrams = Pulse::udp(net.client(), host(9000))?;
        transfer.goes_on(10)?;
        datagrams.goes_on(10)?;
        net.host.sh("ip6tables -I INPUT -j DROP")?;
        std::thread::sleep(Duration::from_millis(700));
        net.host.sh("ip6tables -F INPUT")?;
        transfer.goes_on(10)?;
        datagrams.goes_on(10)?;
        let (transfer, datagrams) = (transfer.end()?, datagrams.end()?);
        ensure!(transfer.longest >= Duration::from_millis(600), "{transfer:?}");
        ensure!(datagrams.lost > 0, "{datagrams:?}");
        Ok(())
    });
}

#[test]
fn docker_proxy_serves_a_client_behind_routers() {
    case::run(|_| {
        let net = Topology::build(Options { narrow: Some(1400), ..Options::default() })?;
        let server = tcp::Server::start(net.container(), ([0, 0, 0, 0], 80), bulk::serve_rush)?;
        let _proxy = DockerProxy::start(&net.host, 8081, net.target(80))?;
        let mut stream = tcp::connect(net.client(), host(8081))?;
        let [up, down] = bulk::rush(&mut stream, 128 * bulk::MIB)?;
        println!("128 MiB up in {up:?}, down in {down:?}");
        assert_eq!(server.last_peer()?.ip(), std::net::Ipv4Addr::new(172, 17, 0, 1));
        Ok(())
    });
}
