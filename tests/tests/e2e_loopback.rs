//! Clients on the host itself, by the kernel path: data, sizes, errors, and nobody else in their sessions.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use publisher_tests::case;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::shell;
use publisher_tests::topology::{HOST, Options};
use publisher_tests::traffic::frames::Ends;
use publisher_tests::traffic::raw::{self, Capture};
use publisher_tests::traffic::{bulk, tcp, udp};
use socket2::{Domain, Socket, Type};

const ANY: [u8; 4] = [0, 0, 0, 0];

/// The port published for both protocols, and in the kernel all the way.
fn lab(case: &publisher_tests::case::Case) -> Result<Lab<'_>> {
    let lab = Lab::with(case, Options::default())?;
    for published in ["8080", "8080/udp"] {
        lab.daemon.add(published, TARGET)?;
    }
    let by_peer =
        || lab.daemon.entries(&["ls"]).is_ok_and(|all| all.iter().all(|it| it["path"] == "peer"));
    ensure!(shell::wait_until(Duration::from_secs(5), by_peer), "not by the veth");
    Ok(lab)
}

/// What the host can ask itself by.
fn asked(lab: &Lab<'_>) -> Result<[SocketAddr; 3]> {
    let host = &lab.net.host;
    let link_local = SocketAddrV6::new(host.link_local("up0")?, 8080, 0, host.ifindex("up0")?);
    Ok([(Ipv6Addr::LOCALHOST, 8080).into(), (HOST, 8080).into(), link_local.into()])
}

/// Sessions of a way.
fn sessions(lab: &Lab<'_>, path: &str) -> Result<usize> {
    let all = lab.daemon.entries(&["sessions"])?;
    Ok(all.iter().filter(|it| it["path"] == path).count())
}

#[test]
fn every_byte_arrives_both_ways() {
    case::run(|case| {
        let lab = lab(case)?;
        let _server = tcp::Server::start(lab.net.container(), (ANY, 80), bulk::serve)?;
        for to in asked(&lab)? {
            let mut stream = tcp::connect(&lab.net.host, to)?;
            bulk::exchange(&mut stream, 16 << 20).with_context(|| to.to_string())?;
        }
        ensure!(sessions(&lab, "proxy")? == 0 && sessions(&lab, "kernel")? == 3);
        Ok(())
    });
}

#[test]
fn g1_datagrams_of_every_size() {
    case::run(|case| {
        let lab = lab(case)?;
        let _server = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        for to in asked(&lab)? {
            let socket = udp::client(&lab.net.host, 0)?;
            for length in [0, 1, 1_232, 1_452, 1_453, 1_472, 1_473, 9_000, 40_000, 65_507] {
                let sent: Vec<u8> = (0..length).map(|index| index as u8).collect();
                let (answer, from) =
                    udp::ask(&socket, to, &sent).with_context(|| format!("{length} to {to}"))?;
                ensure!(answer == sent && from == to, "{length} bytes to {to}, from {from}");
            }
        }
        ensure!(sessions(&lab, "proxy")? == 0);
        Ok(())
    });
}

#[test]
fn d2_d6_who_is_refused_learns_it_at_once() {
    case::run(|case| {
        let mut lab = lab(case)?;
        // So that it isn't the proxy who says so.
        lab.daemon.kill()?;
        for to in asked(&lab)? {
            let outcome = tcp::try_connect(&lab.net.host, to, Duration::from_secs(1));
            ensure!(matches!(outcome, tcp::Outcome::Refused), "{to}: {outcome:?}");
            let socket = lab.net.host.run(|| UdpSocket::bind("[::]:0"))?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            socket.send(b"?")?;
            let refused = socket.recv(&mut [0; 8]).err().map(|error| error.kind());
            ensure!(refused == Some(ErrorKind::ConnectionRefused), "{to}: {refused:?}");
        }
        lab.daemon.launch()?;
        Ok(())
    });
}

#[test]
fn d1_half_closed_connections_go_on() {
    case::run(|case| {
        let lab = lab(case)?;
        let _server = tcp::Server::start(lab.net.container(), (ANY, 80), |mut stream| {
            let mut all = Vec::new();
            if stream.read_to_end(&mut all).is_ok() {
                let _ = stream.write_all(&all);
            }
        })?;
        for to in asked(&lab)? {
            let mut stream = tcp::connect(&lab.net.host, to)?;
            stream.write_all(b"all of it")?;
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            ensure!(answer == "all of it", "{to}: {answer}");
        }
        ensure!(sessions(&lab, "proxy")? == 0 && sessions(&lab, "kernel")? == 3);
        Ok(())
    });
}

#[test]
fn sessions_of_the_host_survive_the_daemon() {
    case::run(|case| {
        let mut lab = lab(case)?;
        let _server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        let mut streams = Vec::new();
        for to in asked(&lab)? {
            let mut stream = tcp::connect(&lab.net.host, to)?;
            tcp::ask(&mut stream, "before")?;
            streams.push(stream);
        }
        lab.daemon.kill()?;
        for stream in &mut streams {
            ensure!(tcp::ask(stream, "without a daemon")? == "without a daemon");
        }
        let mut fresh = tcp::connect(&lab.net.host, (Ipv6Addr::LOCALHOST, 8080))?;
        tcp::ask(&mut fresh, "a new one")?;
        lab.daemon.launch()?;
        for stream in &mut streams {
            ensure!(tcp::ask(stream, "with the next one")? == "with the next one");
        }
        Ok(())
    });
}

/// A neighbour who knows all about a session of the host's own, and says that he is the host.
#[test]
fn h12_the_network_never_meets_a_session_of_the_hosts_own() {
    case::run(|case| {
        let lab = lab(case)?;
        let server = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        let _echo = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        let inside = Capture::start(lab.net.container(), "eth0")?;
        let (client, host) = (lab.net.client(), &lab.net.host);
        for to in asked(&lab)? {
            let socket = udp::client(host, 0)?;
            // Established by the second one.
            for word in [b"first".as_slice(), b"second"] {
                udp::ask(&socket, to, word)?;
            }
            let mut stream = tcp::connect(host, to)?;
            tcp::ask(&mut stream, "honest")?;
            let IpAddr::V6(address) = to.ip() else { unreachable!("IPv6") };
            let ends = Ends {
                from_mac: client.mac("eth0")?,
                to_mac: host.mac("up0")?,
                from: address,
                to: address,
            };
            let port = socket.local_addr()?.port();
            raw::inject(client, "eth0", &ends.udp(port, 8080, b"forged"))?;
            let port = stream.local_addr()?.port();
            raw::inject(client, "eth0", &ends.tcp(port, 8080, false, b"forged"))?;
            raw::inject(client, "eth0", &ends.tcp(port, 8080, true, b""))?;
            udp::ask(&socket, to, b"third")?;
            ensure!(tcp::ask(&mut stream, "still there")? == "still there");
        }
        server.wait_for(b"third")?;
        let forged = inside.frames().into_iter().find(|frame| frame.contains(b"forged"));
        ensure!(forged.is_none(), "{forged:?}");
        Ok(())
    });
}

/// Answers come by the loopback interface: a socket that is bound to another one wouldn't get them.
#[test]
fn a_socket_that_is_bound_to_a_device_is_served_by_the_proxy() {
    case::run(|case| {
        let lab = lab(case)?;
        let _tcp = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        let _udp = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        let to: SocketAddr = (HOST, 8080).into();
        let bound = |kind| -> Result<Socket> {
            let socket = lab.net.host.run(|| Socket::new(Domain::IPV6, kind, None))?;
            socket.bind_device(Some(b"up0"))?;
            socket.set_read_timeout(Some(udp::PATIENCE))?;
            Ok(socket)
        };
        let stream = bound(Type::STREAM)?;
        stream.connect_timeout(&to.into(), Duration::from_secs(2))?;
        let mut stream = stream.into();
        ensure!(tcp::ask(&mut stream, "by a device")? == "by a device");
        let socket: UdpSocket = bound(Type::DGRAM)?.into();
        let (answer, from) = udp::ask(&socket, to, b"by a device")?;
        ensure!(answer == b"by a device" && from == to);
        let ways = [sessions(&lab, "kernel")?, sessions(&lab, "proxy")?];
        ensure!(ways == [0, 2], "{ways:?}");
        Ok(())
    });
}

/// The veth gets a queueing discipline, which going straight into the container would skip.
#[test]
fn the_host_is_served_on_while_the_way_changes() {
    case::run(|case| {
        let mut lab = lab(case)?;
        let _tcp = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        let _udp = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        let mut streams = Vec::new();
        for to in asked(&lab)? {
            let mut stream = tcp::connect(&lab.net.host, to)?;
            tcp::ask(&mut stream, "before")?;
            streams.push(stream);
        }
        let socket = udp::client(&lab.net.host, 0)?;
        let to = (Ipv6Addr::LOCALHOST, 8080).into();
        for word in [b"first".as_slice(), b"second"] {
            udp::ask(&socket, to, word)?;
        }
        let veth = lab.net.containers[0].veth.clone();
        let host = lab.net.host.clone();
        lab.daemon.alter(|| {
            host.sh(&format!("tc qdisc add dev {veth} root tbf rate 1gbit burst 1mb latency 50ms"))
        })?;
        let by_bridge = || {
            let all = lab.daemon.entries(&["ls"]);
            all.is_ok_and(|all| all.iter().all(|it| it["path"] == "neigh"))
        };
        ensure!(shell::wait_until(Duration::from_secs(5), by_bridge), "still by the veth");
        for stream in &mut streams {
            ensure!(tcp::ask(stream, "after")? == "after");
        }
        for length in [100, 9_000] {
            let (answer, _) = udp::ask(&socket, to, &vec![7; length])?;
            ensure!(answer.len() == length, "{} bytes of {length}", answer.len());
        }
        // New ones are the proxy's.
        let mut stream = tcp::connect(&lab.net.host, to)?;
        ensure!(tcp::ask(&mut stream, "a new one")? == "a new one");
        ensure!(sessions(&lab, "proxy")? >= 1);
        Ok(())
    });
}
