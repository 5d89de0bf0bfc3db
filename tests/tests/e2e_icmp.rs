//! What each side learns of the other by ICMP.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use publisher_tests::case;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::shell;
use publisher_tests::topology::{HOST, HOST_TUNNEL, Options, TUNNEL, client_address, host};
use publisher_tests::traffic::frames;
use publisher_tests::traffic::raw::{Capture, Frame};
use publisher_tests::traffic::udp;
use socket2::SockRef;

const ANY: [u8; 4] = [0, 0, 0, 0];
/// How long a frame may take.
const SOON: Duration = Duration::from_secs(1);

/// A received ICMP error of this type and code.
fn is_icmp(frame: &Frame, kind: u8, code: u8) -> bool {
    !frame.outgoing
        && frame.bytes.get(23) == Some(&1)
        && frame.bytes.get(34..36) == Some(&[kind, code])
}

fn a_closed_port_refuses(offloads: bool) {
    case::run(|case| {
        let lab = Lab::with(case, Options { offloads, ..Options::default() })?;
        lab.daemon.add("8080/udp", TARGET)?;
        let socket = udp::client(lab.net.client(), 0)?;
        socket.connect(host(8080))?;
        for _ in 0..2 {
            socket.send(&[7; 300])?;
            // Only an error about the socket's own packet makes the kernel say so.
            let refused = socket.recv(&mut [0; 64]).map_err(|error| error.kind());
            ensure!(refused == Err(ErrorKind::ConnectionRefused), "{refused:?}");
        }
        // The session is still there for who listens later.
        let _server = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        socket.send(b"now")?;
        let mut content = [0; 64];
        let length = socket.recv(&mut content).context("an answer")?;
        assert_eq!(&content[..length], b"now");
        Ok(())
    });
}

#[test]
fn i5_a_closed_port_of_the_container_refuses_the_client() {
    a_closed_port_refuses(true);
}

#[test]
fn i5_a_closed_port_of_the_container_refuses_the_client_with_offloads_off() {
    a_closed_port_refuses(false);
}

/// Runs `body` with a network whose path to the client narrows to 1400 bytes, a server that got one
/// datagram, and whom it got it from.
fn with_half_open(
    offloads: bool,
    body: impl FnOnce(&Lab<'_>, &udp::Server, SocketAddr) -> Result<()>,
) {
    case::run(|case| {
        let options = Options { narrow: Some(1400), offloads, ..Options::default() };
        let lab = Lab::with(case, options)?;
        let server = udp::Server::sink(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let socket = udp::client(lab.net.client(), 0)?;
        socket.send_to(b"hello", host(8080))?;
        let alias = server.wait_for(b"hello")?;
        body(&lab, &server, alias)?;
        // The first answer that fits arrives.
        server.reply(alias, &[2; 1352])?;
        let mut content = [0; 2000];
        let (length, from) = socket.recv_from(&mut content).context("an answer that fits")?;
        assert_eq!((length, from), (1352, host(8080)));
        Ok(())
    });
}

fn too_big_about_a_half_open_session(offloads: bool) {
    with_half_open(offloads, |lab, server, alias| {
        let inside = Capture::start(lab.net.container(), "eth0")?;
        // The very first answer fills the uplink, and not the link behind the router.
        server.reply(alias, &[1; 1452])?;
        let told = inside.wait_for(SOON, |frame| is_icmp(frame, 3, 4)).context("no 3/4 inside")?;
        assert_eq!(told.bytes[40..42], 1380u16.to_be_bytes());
        // From the bridge's address, with 576 bytes of which most are the datagram.
        assert_eq!(told.bytes[26..30], [172, 17, 0, 1]);
        assert_eq!(told.bytes.len(), 14 + 576);
        ensure!(told.contains(&[1; 500]), "the datagram isn't in it");
        let route = lab.net.container().ip(&format!("route get {}", alias.ip()))?;
        ensure!(route.contains("mtu 1380"), "the container doesn't know the path's MTU: {route}");
        Ok(())
    });
}

#[test]
fn i3_too_big_about_a_half_open_session_reaches_the_container() {
    too_big_about_a_half_open_session(true);
}

#[test]
fn i3_too_big_about_a_half_open_session_reaches_the_container_with_offloads_off() {
    too_big_about_a_half_open_session(false);
}

/// A received ICMPv6 error of this type and code, from the host, with its right checksum.
fn is_icmpv6_of_host(frame: &Frame, kind: u8, code: u8) -> bool {
    let bytes = &frame.bytes;
    !frame.outgoing
        && bytes.get(20) == Some(&58)
        && bytes.get(54..56) == Some(&[kind, code])
        && bytes[22..38] == HOST.octets()
        && frames::checksum(HOST, client_address(0), 58, &bytes[54..]) == 0
}

fn used_up_hops_are_told(offloads: bool) {
    case::run(|case| {
        let lab = Lab::with(case, Options { offloads, ..Options::default() })?;
        let _server = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let outside = Capture::start(lab.net.client(), "eth0")?;
        let socket = udp::client(lab.net.client(), 0)?;
        SockRef::from(&socket).set_unicast_hops_v6(1)?;
        socket.send_to(b"one hop", host(8080))?;
        let told = outside
            .wait_for(SOON, |frame| is_icmpv6_of_host(frame, 3, 0))
            .context("no time exceeded outside")?;
        ensure!(told.contains(b"one hop"), "the datagram isn't in it");
        SockRef::from(&socket).set_unicast_hops_v6(2)?;
        udp::ask(&socket, host(8080), b"two hops")?;
        Ok(())
    });
}

#[test]
fn h3_a_client_is_told_of_used_up_hops() {
    used_up_hops_are_told(true);
}

#[test]
fn h3_a_client_is_told_of_used_up_hops_with_offloads_off() {
    used_up_hops_are_told(false);
}

#[test]
fn h3_a_client_of_an_uplink_without_ethernet_is_told_too() {
    case::run(|case| {
        let lab = Lab::with(case, Options { tun: true, ..Options::default() })?;
        let _server = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let tunnel = lab.net.tunnel.as_ref().context("a tunnel")?;
        let outside = Capture::start(tunnel, "tun0")?;
        let socket = udp::client(tunnel, 0)?;
        let to = (HOST_TUNNEL, 8080).into();
        SockRef::from(&socket).set_unicast_hops_v6(1)?;
        socket.send_to(b"one hop", to)?;
        let told = |frame: &Frame| {
            let bytes = &frame.bytes;
            !frame.outgoing
                && bytes.get(6) == Some(&58)
                && bytes.get(40..42) == Some(&[3, 0])
                && frames::checksum(HOST_TUNNEL, TUNNEL, 58, &bytes[40..]) == 0
        };
        outside.wait_for(SOON, told).context("no time exceeded outside")?;
        SockRef::from(&socket).set_unicast_hops_v6(2)?;
        udp::ask(&socket, to, b"two hops")?;
        Ok(())
    });
}

fn a_full_ipv4_packet_doesnt_fit(offloads: bool) {
    case::run(|case| {
        let lab = Lab::with(case, Options { offloads, ..Options::default() })?;
        let server = udp::Server::sink(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let socket = udp::client(lab.net.client(), 0)?;
        socket.send_to(b"hello", host(8080))?;
        let alias = server.wait_for(b"hello")?;
        let inside = Capture::start(lab.net.container(), "eth0")?;
        // 1500 bytes of IPv4 are 1520 of IPv6. Linux sends with "don't fragment".
        server.reply(alias, &[1; 1472])?;
        let told = inside
            .wait_for(SOON, |frame| is_icmp(frame, 3, 4))
            .context("no fragmentation needed inside")?;
        assert_eq!(told.bytes[40..42], 1480u16.to_be_bytes());
        let route = || lab.net.container().ip(&format!("route get {}", alias.ip()));
        let learned = || route().is_ok_and(|text| text.contains("mtu 1480"));
        ensure!(shell::wait_until(SOON, learned), "the container took no notice: {}", route()?);
        server.reply(alias, &[2; 1452])?;
        let mut content = [0; 2000];
        let (length, from) = socket.recv_from(&mut content).context("what fits")?;
        assert_eq!((length, from), (1452, host(8080)));
        Ok(())
    });
}

#[test]
fn g3_a_container_is_told_what_the_uplink_carries() {
    a_full_ipv4_packet_doesnt_fit(true);
}

#[test]
fn g3_a_container_is_told_what_the_uplink_carries_with_offloads_off() {
    a_full_ipv4_packet_doesnt_fit(false);
}

fn a_narrow_container_link(offloads: bool) {
    case::run(|case| {
        let mut lab = Lab::with(case, Options { offloads, ..Options::default() })?;
        let container = &lab.net.containers[0];
        lab.daemon.alter(|| {
            lab.net.host.ip(&format!("link set {} mtu 1300", container.veth))?;
            lab.net.host.ip("link set br0 mtu 1300")
        })?;
        container.ns.ip("link set eth0 mtu 1300")?;
        let _server = udp::Server::echo(&container.ns, (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let socket = udp::client(lab.net.client(), 0)?;
        udp::ask(&socket, host(8080), b"opened")?;
        socket.send_to(&[3; 1452], host(8080))?;
        let route = || lab.net.client().ip(&format!("-6 route get {HOST}"));
        let learned = || route().is_ok_and(|text| text.contains("mtu 1320"));
        ensure!(shell::wait_until(SOON, learned), "the client took no notice: {}", route()?);
        let (content, _) = udp::ask(&socket, host(8080), &[4; 1272])?;
        assert_eq!(content, [4; 1272]);
        Ok(())
    });
}

#[test]
fn h9_a_client_is_told_what_the_containers_link_carries() {
    a_narrow_container_link(true);
}

#[test]
fn h9_a_client_is_told_what_the_containers_link_carries_with_offloads_off() {
    a_narrow_container_link(false);
}
