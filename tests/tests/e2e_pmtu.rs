//! A client behind a router with a narrow link: both directions learn the path's MTU.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use etherparse::{Icmpv4Type, PacketBuilder};
use publisher_tests::bench::statistics::Ratio;
use publisher_tests::case;
use publisher_tests::docker_proxy::DockerProxy;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::shell;
use publisher_tests::topology::{HOST, Options, host};
use publisher_tests::traffic::bulk::{self, MIB};
use publisher_tests::traffic::raw::{self, Capture, Frame};
use publisher_tests::traffic::{tcp, udp};

const ANY: [u8; 4] = [0, 0, 0, 0];
/// Rounds of a comparison. Single ones scatter on a machine of two cores.
const ROUNDS: usize = 31;
/// A stall costs seconds; these transfers take fractions of one.
const NO_STALL: Duration = Duration::from_secs(5);

fn behind_routers(offloads: bool) -> Options {
    Options { narrow: Some(1400), offloads, ..Options::default() }
}

fn neither_direction_stalls(offloads: bool) {
    case::run(|case| {
        let lab = Lab::with(case, behind_routers(offloads))?;
        let server = tcp::Server::start(lab.net.container(), (ANY, 80), bulk::serve)?;
        lab.daemon.add("8080", TARGET)?;
        for round in 0..2 {
            let start = Instant::now();
            let mut stream = tcp::connect(lab.net.client(), host(8080))?;
            let times = bulk::exchange(&mut stream, 32 * MIB);
            let [up, down] = times.with_context(|| format!("round {round}"))?;
            println!("32 MiB up in {up:?}, down in {down:?}");
            ensure!(start.elapsed() < NO_STALL, "round {round} took {:?}", start.elapsed());
        }
        // The container was told in its own language, and knows: 1400 less what IPv6 takes more.
        let alias = server.last_peer()?.ip();
        let route = lab.net.container().ip(&format!("route get {alias}"))?;
        ensure!(route.contains("mtu 1380"), "the container doesn't know the path's MTU: {route}");
        Ok(())
    });
}

#[test]
fn i3_neither_direction_stalls_with_offloads_on() {
    neither_direction_stalls(true);
}

#[test]
fn i3_neither_direction_stalls_with_offloads_off() {
    neither_direction_stalls(false);
}

fn within_20_percent_of_docker_proxy(offloads: bool) {
    case::run(|case| {
        let lab = Lab::with(case, behind_routers(offloads))?;
        let _server = tcp::Server::start(lab.net.container(), (ANY, 80), bulk::serve_rush)?;
        lab.daemon.add("8080", TARGET)?;
        let _proxy = DockerProxy::start(&lab.net.host, 8081, lab.net.target(80))?;
        let transfer = |port| {
            let mut stream = tcp::connect(lab.net.client(), host(port))?;
            bulk::rush(&mut stream, 64 * MIB).with_context(|| format!("port {port}"))
        };
        // Warm: both know the path's MTU.
        transfer(8080)?;
        transfer(8081)?;
        // In pairs, one after the other: what else the machine does meets both.
        let mut seconds = [[vec![], vec![]], [vec![], vec![]]];
        for _ in 0..ROUNDS {
            for (port, seconds) in [8080, 8081].into_iter().zip(&mut seconds) {
                for (direction, time) in seconds.iter_mut().zip(transfer(port)?) {
                    direction.push(time.as_secs_f64());
                }
            }
        }
        let [ours, theirs] = seconds;
        for (direction, (ours, theirs)) in
            ["up", "down"].into_iter().zip(ours.into_iter().zip(theirs))
        {
            let ratio = Ratio::of(&theirs, &ours);
            let [from, to] = ratio.interval;
            let text = format!(
                "{direction}: {:.2} of docker-proxy's throughput ({from:.2} to {to:.2})",
                ratio.paired
            );
            println!("{text}");
            ensure!(ratio.paired >= 0.8, text);
        }
        Ok(())
    });
}

#[test]
fn throughput_within_20_percent_of_docker_proxy_with_offloads_on() {
    within_20_percent_of_docker_proxy(true);
}

#[test]
fn throughput_within_20_percent_of_docker_proxy_with_offloads_off() {
    within_20_percent_of_docker_proxy(false);
}

#[test]
fn a_path_that_narrows_under_a_connection() {
    case::run(|case| {
        let lab = Lab::with(case, Options { narrow: Some(1500), ..Options::default() })?;
        let _server = tcp::Server::start(lab.net.container(), (ANY, 80), bulk::serve)?;
        lab.daemon.add("8080", TARGET)?;
        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        let narrow = &lab.net.routers;
        std::thread::scope(|scope| {
            let transfer = scope.spawn(|| bulk::exchange(&mut stream, 512 * MIB));
            std::thread::sleep(Duration::from_millis(150));
            for mtu in [1400, 1300, 1280] {
                for router in narrow {
                    router.ip(&format!("link set narrow mtu {mtu}"))?;
                }
                std::thread::sleep(Duration::from_millis(150));
            }
            transfer.join().expect("transfer").context("512 MiB over a narrowing path")?;
            Ok(())
        })
    });
}

/// The segment size was agreed on for a wider uplink: the container is told, as by a router.
fn an_uplink_that_narrows_under_a_connection(offloads: bool) {
    case::run(|case| {
        let mut lab =
            Lab::with(case, Options { narrow: Some(1500), offloads, ..Options::default() })?;
        let server = tcp::Server::start(lab.net.container(), (ANY, 80), bulk::serve)?;
        lab.daemon.add("8080", TARGET)?;
        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        lab.daemon.alter(|| lab.net.host.ip("link set up0 mtu 1300"))?;
        lab.net.routers[1].ip("link set edge mtu 1300")?;
        let followed = || {
            lab.daemon.json(&["status"]).is_ok_and(|status| status["uplinks"][0]["mtu"] == 1_300)
        };
        ensure!(shell::wait_until(Duration::from_secs(2), followed), "the daemon doesn't follow");
        let start = Instant::now();
        bulk::exchange(&mut stream, 4 * MIB)?;
        ensure!(start.elapsed() < NO_STALL, "took {:?}", start.elapsed());
        let alias = server.last_peer()?.ip();
        let route = lab.net.container().ip(&format!("route get {alias}"))?;
        ensure!(route.contains("mtu 1280"), "the container doesn't know the uplink's MTU: {route}");
        Ok(())
    });
}

#[test]
fn g3_an_uplink_that_narrows_under_a_connection_with_offloads_on() {
    an_uplink_that_narrows_under_a_connection(true);
}

#[test]
fn g3_an_uplink_that_narrows_under_a_connection_with_offloads_off() {
    an_uplink_that_narrows_under_a_connection(false);
}

/// The container's own "fragmentation needed" becomes the client's "packet too big".
#[test]
fn i6_fragmentation_needed_from_the_container_tells_the_client() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let server = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let inside = Capture::start(lab.net.container(), "eth0")?;
        let outside = Capture::start(lab.net.client(), "eth0")?;
        let socket = udp::client(lab.net.client(), 0)?;
        for content in [&b"first"[..], b"second", b"third"] {
            udp::ask(&socket, host(8080), content)?;
        }
        let alias = server.wait_for(b"third")?;
        let limit = Duration::from_secs(1);
        let third = inside.wait_for(limit, |f| !f.outgoing && f.contains(b"third"))?;
        let SocketAddr::V4(alias) = alias else { anyhow::bail!("{alias}") };
        let mtu = 1300;
        let about =
            PacketBuilder::ethernet2(lab.net.container().mac("eth0")?, lab.net.host.mac("br0")?)
                .ipv4([172, 17, 0, 2], alias.ip().octets(), 64)
                .icmpv4(Icmpv4Type::DestinationUnreachable(
                    etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded {
                        next_hop_mtu: mtu,
                    },
                ));
        let mut frame = Vec::new();
        about.write(&mut frame, &third.bytes[14..14 + 28])?;
        raw::inject(lab.net.container(), "eth0", &frame)?;
        let told = |frame: &Frame| {
            !frame.outgoing
                && frame.bytes.get(20) == Some(&58)
                && frame.bytes.get(54) == Some(&2)
                && frame.bytes.get(58..62) == Some(&(u32::from(mtu) + 20).to_be_bytes())
        };
        outside.wait_for(limit, told).context("no packet too big outside")?;
        // The client's kernel believed it: the error names its own packet.
        let learned = || {
            let route = lab.net.client().ip(&format!("-6 route get {HOST}"));
            route.is_ok_and(|text| text.contains("mtu 1320"))
        };
        ensure!(shell::wait_until(limit, learned), "the client took no notice");
        Ok(())
    });
}

#[test]
fn i3_a_datagram_too_large_for_the_path_tells_the_container() {
    case::run(|case| {
        let lab = Lab::with(case, behind_routers(true))?;
        let server = udp::Server::sink(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let inside = Capture::start(lab.net.container(), "eth0")?;
        let socket = udp::client(lab.net.client(), 0)?;
        socket.send_to(b"hello", host(8080))?;
        let alias = server.wait_for(b"hello")?;
        server.reply(alias, b"welcome")?;
        socket.recv_from(&mut [0; 64]).context("the first reply")?;
        // The session is established by a client's packet that follows a reply.
        socket.send_to(b"and now", host(8080))?;
        server.wait_for(b"and now")?;
        // Linux sends with DF: 1452 bytes fill the uplink and not the link behind the router.
        server.reply(alias, &[1; 1452])?;
        let told = |frame: &Frame| {
            !frame.outgoing
                && frame.bytes.get(23) == Some(&1)
                && frame.bytes.get(34..36) == Some(&[3, 4])
        };
        inside.wait_for(Duration::from_secs(1), told).context("no 3/4 inside")?;
        // What fits arrives.
        server.reply(alias, &[2; 1352])?;
        let mut content = [0; 2000];
        let (length, from) = socket.recv_from(&mut content)?;
        assert_eq!((length, from), (1352, host(8080)));
        Ok(())
    });
}

/// A container link that is narrower than the uplink.
fn a_narrow_container_link(offloads: bool) {
    case::run(|case| {
        let mut lab = Lab::with(case, Options { offloads, ..Options::default() })?;
        let container = &lab.net.containers[0];
        lab.daemon.alter(|| {
            lab.net.host.ip(&format!("link set {} mtu 1300", container.veth))?;
            lab.net.host.ip("link set br0 mtu 1300")
        })?;
        container.ns.ip("link set eth0 mtu 1300")?;
        std::thread::sleep(Duration::from_millis(200));
        let _server = tcp::Server::start(&container.ns, (ANY, 80), bulk::serve)?;
        lab.daemon.add("8080", TARGET)?;
        let start = Instant::now();
        bulk::exchange(&mut tcp::connect(lab.net.client(), host(8080))?, 16 * MIB)?;
        ensure!(start.elapsed() < NO_STALL, "took {:?}", start.elapsed());
        Ok(())
    });
}

#[test]
fn a_narrow_container_link_with_offloads_on() {
    a_narrow_container_link(true);
}

#[test]
fn a_narrow_container_link_with_offloads_off() {
    a_narrow_container_link(false);
}
