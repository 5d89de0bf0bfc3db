//! The socket proxy under load: many ports, many connections, and no descriptors left.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use publisher_tests::case;
use publisher_tests::daemon::Daemon;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::load::is_full;
use publisher_tests::netns::Netns;
use publisher_tests::topology::{HOST, Topology, host};
use publisher_tests::traffic::tcp;

const ANY: [u8; 4] = [0, 0, 0, 0];
const SOON: Duration = Duration::from_secs(5);

fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse::<u64>()? << 10)
}

/// A service that keeps its connections and answers nothing by itself.
fn keeper(ns: &Netns, port: u16) -> Result<mpsc::Receiver<TcpStream>> {
    let socket = ns.run(|| -> std::io::Result<_> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((ANY, port)).into())?;
        socket.listen(65_535)?;
        Ok(TcpListener::from(socket))
    })?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = socket.accept() {
            let _ = stream.set_read_timeout(Some(SOON));
            if sender.send(stream).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

#[test]
fn ten_thousand_ports_cost_little() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let _server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        let before = resident(lab.daemon.pid()?)?;
        let start = Instant::now();
        lab.daemon.add("20000-29999", "172.17.0.2:20000-29999")?;
        let took = start.elapsed();
        let memory = resident(lab.daemon.pid()?)?;
        println!(
            "10,000 ports: {took:?}, {} KiB more, {} KiB",
            (memory - before) >> 10,
            memory >> 10
        );
        ensure!(memory < 64 << 20, "the daemon has {memory} bytes");
        ensure!(took < Duration::from_secs(3), "{took:?}");
        let _last = tcp::Server::page(lab.net.container(), (ANY, 29_999), "the last")?;
        for ns in [lab.net.client(), &lab.net.host] {
            ensure!(tcp::fetch(ns, (HOST, 29_999))?.starts_with("the last"));
        }
        let start = Instant::now();
        lab.daemon.ctl(&["rm", "20000-29999"])?.ok()?;
        println!("removed in {:?}", start.elapsed());
        let free = lab.net.host.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 20_000)));
        ensure!(free.is_ok(), "a port that isn't published is held");
        Ok(())
    });
}

#[test]
fn more_ports_than_descriptors_are_served_by_the_kernel_alone() {
    case::run(|case| {
        let net = Topology::simple()?;
        let mut daemon = Daemon::prepare(case, &net.host, &[])?;
        daemon.limit_files(1_000);
        daemon.launch()?;
        let lab = Lab { daemon, net };
        let _server = tcp::Server::page(lab.net.container(), (ANY, 20_001), "inside")?;
        lab.daemon.add("20000-20999", "172.17.0.2:20000-20999")?;
        ensure!(tcp::fetch(lab.net.client(), host(20_001))?.starts_with("inside"));
        let publication = lab.daemon.entry(&["ls"])?;
        let said = publication["warnings"].to_string();
        ensure!(
            said.contains("1000 tcp ports can't be held") && said.contains("1000 files"),
            "{said}"
        );
        Ok(())
    });
}

#[test]
fn connections_at_rest_cost_little() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let accepted = keeper(lab.net.container(), 80)?;
        lab.daemon.ctl(&["add", "8080", TARGET, "--path", "proxy"])?.ok()?;
        let count = if is_full() { 8_000 } else { 3_000 };
        let before = resident(lab.daemon.pid()?)?;
        let (mut clients, mut containers) = (Vec::new(), Vec::new());
        for n in 0..count {
            let mut stream =
                tcp::connect(lab.net.client(), host(8080)).with_context(|| format!("{n}"))?;
            stream.write_all(b"?")?;
            let mut container = accepted.recv_timeout(SOON)?;
            container.read_exact(&mut [0; 1])?;
            clients.push(stream);
            containers.push(container);
        }
        let memory = resident(lab.daemon.pid()?)?.saturating_sub(before);
        let descriptors = fs::read_dir(format!("/proc/{}/fd", lab.daemon.pid()?))?.count();
        println!(
            "{count} at rest: {} bytes and {} descriptors each",
            memory / count,
            descriptors as u64 / count
        );
        ensure!(memory / count < 8 << 10, "{} bytes each", memory / count);
        ensure!((descriptors as u64) < 2 * count + 300, "{descriptors} descriptors");
        // All of them are still there.
        for (client, container) in clients.iter_mut().zip(&mut containers) {
            container.write_all(b"!")?;
            client.read_exact(&mut [0; 1])?;
        }
        Ok(())
    });
}

#[test]
fn without_descriptors_new_connections_wait_and_old_ones_live() {
    case::run(|case| {
        let net = Topology::simple()?;
        let mut daemon = Daemon::prepare(case, &net.host, &[])?;
        daemon.limit_files(600);
        daemon.launch()?;
        let lab = Lab { daemon, net };
        let accepted = keeper(lab.net.container(), 80)?;
        lab.daemon.ctl(&["add", "8080", TARGET, "--path", "proxy"])?.ok()?;
        let mut pairs = Vec::new();
        let mut waiting = Vec::new();
        for _ in 0..300 {
            // The kernel accepts for the daemon.
            let stream = tcp::connect(lab.net.client(), host(8080))?;
            match accepted.recv_timeout(Duration::from_millis(if waiting.is_empty() {
                500
            } else {
                1
            })) {
                Ok(container) => pairs.push((stream, container)),
                Err(_) => waiting.push(stream),
            }
        }
        println!("{} served, {} wait", pairs.len(), waiting.len());
        ensure!(pairs.len() > 100 && waiting.len() > 50);
        let said = "has used up its file descriptors (the limit is 600)";
        ensure!(lab.daemon.log().contains(said), "{}", lab.daemon.log());
        assert_eq!(lab.daemon.log().matches(said).count(), 1, "said again and again");
        ensure!(lab.daemon.json(&["status"])?["warnings"].to_string().contains(said));
        for (client, container) in &mut pairs {
            client.write_all(b"?")?;
            container.read_exact(&mut [0; 1])?;
        }
        // As old ones end, those that wait are served, without a restart.
        pairs.truncate(20);
        for stream in &mut waiting {
            stream.write_all(b"?")?;
        }
        for _ in &waiting {
            let mut container =
                accepted.recv_timeout(SOON).context("one that waited isn't served")?;
            container.read_exact(&mut [0; 1])?;
        }
        Ok(())
    });
}

#[test]
fn short_connections_in_a_row_find_a_source_port() {
    case::run(|case| {
        let mut lab = Lab::simple(case)?;
        let _server = tcp::Server::start(lab.net.container(), (ANY, 80), |mut stream| {
            // The client closes first, and so does the proxy here: TIME_WAIT is on its side.
            let mut byte = [0; 1];
            if stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {
                let _ = stream.read(&mut byte);
            }
        })?;
        lab.daemon.ctl(&["add", "8080", TARGET, "--path", "proxy"])?.ok()?;
        // Few ports, so that they are used up soon, and all of the machine's in a full run.
        let count = if is_full() {
            30_000
        } else {
            let Lab { daemon, net } = &mut lab;
            daemon.alter(|| net.host.sysctl("ipv4/ip_local_port_range", "40000 40999"))?;
            3_000
        };
        lab.net.client().sysctl("ipv4/ip_local_port_range", "1024 65535")?;
        let (start, mut longest) = (Instant::now(), Duration::ZERO);
        for n in 0..count {
            let begun = Instant::now();
            let mut stream =
                tcp::connect(lab.net.client(), host(8080)).with_context(|| format!("{n}"))?;
            stream.write_all(b"?")?;
            stream.read_exact(&mut [0; 1]).with_context(|| format!("connection {n}"))?;
            longest = longest.max(begun.elapsed());
        }
        println!("{count} in {:?}, the longest {longest:?}", start.elapsed());
        ensure!(longest < Duration::from_secs(1), "{longest:?}");
        Ok(())
    });
}
