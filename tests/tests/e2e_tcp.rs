//! TCP's own signals get through: FIN one way at a time, RST from both sides, a refused port.

use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use publisher_tests::case;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::shell;
use publisher_tests::topology::{Options, host};
use publisher_tests::traffic::tcp::{self, Outcome};
use publisher_tests::traffic::{bulk, raw};

const ANY: [u8; 4] = [0, 0, 0, 0];

#[test]
fn the_client_closes_its_half_and_still_receives() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        // Answers only after it has seen the end of the request.
        let _server = tcp::Server::start(lab.net.container(), (ANY, 80), |mut stream| {
            let mut request = Vec::new();
            if stream.read_to_end(&mut request).is_ok() {
                std::thread::sleep(Duration::from_millis(300));
                let _ = stream.write_all(format!("heard {}", request.len()).as_bytes());
            }
        })?;
        lab.daemon.add("8080", TARGET)?;
        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        stream.write_all(&[b'x'; 100_000])?;
        tcp::half_close(&stream)?;
        std::thread::sleep(Duration::from_millis(100));
        let session = lab.daemon.entry(&["sessions"])?;
        assert_eq!(session["state"], "v6-fin", "{session}");
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        assert_eq!(answer, "heard 100000");
        Ok(())
    });
}

#[test]
fn the_container_closes_its_half_and_still_receives() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let (told, heard) = mpsc::channel();
        let _server = tcp::Server::start(lab.net.container(), (ANY, 80), move |mut stream| {
            let _ = stream.write_all(b"that is all");
            let _ = tcp::half_close(&stream);
            let _ = told.send(bulk::receive(&mut stream).ok());
        })?;
        lab.daemon.add("8080", TARGET)?;
        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        let mut greeting = String::new();
        stream.read_to_string(&mut greeting)?;
        assert_eq!(greeting, "that is all");
        let session = lab.daemon.entry(&["sessions"])?;
        assert_eq!(session["state"], "v4-fin", "{session}");
        let sum = bulk::send(&mut stream, 5, 1_000_000)?;
        let received = heard.recv_timeout(Duration::from_secs(5))?;
        assert_eq!(received, Some((1_000_000, sum)));
        Ok(())
    });
}

#[test]
fn a_closed_container_port_gives_the_client_a_real_rst() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        lab.daemon.add("8080", TARGET)?;
        let capture = raw::Capture::start(lab.net.container(), "eth0")?;
        let start = Instant::now();
        let outcome = tcp::try_connect(lab.net.client(), host(8080), Duration::from_secs(3));
        ensure!(matches!(outcome, Outcome::Refused), "{outcome:?}");
        ensure!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
        // It is the container's own, not one made up on the way.
        capture.wait_for(Duration::from_secs(1), |frame| {
            frame.outgoing && frame.tcp_over_ipv4().is_some_and(|(_, tcp)| tcp.rst)
        })?;
        // And a port that opens afterwards answers at once.
        let _server = tcp::Server::page(lab.net.container(), (ANY, 80), "open")?;
        ensure!(tcp::fetch(lab.net.client(), host(8080))?.starts_with("open"));
        Ok(())
    });
}

/// The error of reading from a connection that the other side has reset.
fn reset(mut stream: &std::net::TcpStream) -> Result<ErrorKind> {
    let error = stream.read(&mut [0; 16]).err().context("the connection wasn't reset")?;
    Ok(error.kind())
}

#[test]
fn a_reset_reaches_the_other_side() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let (told, heard) = mpsc::channel();
        let _server = tcp::Server::start(lab.net.container(), (ANY, 80), move |mut stream| {
            let mut command = [0; 5];
            if stream.read_exact(&mut command).is_ok() && command == *b"reset" {
                let _ = tcp::abort(stream);
            } else {
                let _ = told.send(reset(&stream).ok());
            }
        })?;
        lab.daemon.add("8080", TARGET)?;

        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        stream.write_all(b"reset")?;
        assert_eq!(reset(&stream)?, ErrorKind::ConnectionReset, "the container's");

        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        stream.write_all(b"other")?;
        std::thread::sleep(Duration::from_millis(100));
        tcp::abort(stream)?;
        let heard = heard.recv_timeout(Duration::from_secs(3))?;
        assert_eq!(heard, Some(ErrorKind::ConnectionReset), "the client's");
        Ok(())
    });
}

#[test]
fn a_source_port_is_used_again_at_once() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        let from = tcp::From { address: None, port: 51_515 };
        for round in 0..20 {
            let limit = Duration::from_secs(3);
            let mut stream =
                tcp::try_connect_from(lab.net.client(), from, host(8080), limit).connected()?;
            let line = format!("round {round}");
            assert_eq!(tcp::ask(&mut stream, &line)?, line);
            // No TIME-WAIT at the client: the same tuple comes again.
            tcp::abort(stream)?;
        }
        let ports = server.peers();
        ensure!(ports.iter().all(|peer| *peer == ports[0]), "the tuple stays the same: {ports:?}");
        Ok(())
    });
}

/// The largest segment that either side may send fits the other's family and link.
fn segments_fit(offloads: bool) {
    case::run(|case| {
        let lab = Lab::with(case, Options { offloads, ..Options::default() })?;
        let _server = tcp::Server::start(lab.net.container(), (ANY, 80), bulk::serve)?;
        lab.daemon.add("8080", TARGET)?;
        let inside = raw::Capture::start(lab.net.container(), "eth0")?;
        bulk::exchange(&mut tcp::connect(lab.net.client(), host(8080))?, bulk::MIB)?;
        let syns = || -> Vec<(bool, Option<u16>)> {
            let tcp = inside.frames().into_iter().filter_map(|frame| {
                Some((frame.outgoing, frame.tcp_over_ipv4().map(|(_, tcp)| tcp)?))
            });
            tcp.filter(|(_, tcp)| tcp.syn).map(|(out, tcp)| (out, mss(&tcp))).collect()
        };
        ensure!(shell::wait_until(Duration::from_secs(1), || syns().len() >= 2));
        let to_container = syns().into_iter().find(|(outgoing, _)| !outgoing).context("SYN")?;
        // IPv6 over 1500 bytes leaves 1440: what the container sends may be no larger.
        assert_eq!(to_container.1, Some(1440), "MSS of the client's SYN inside");
        Ok(())
    });
}

fn mss(tcp: &etherparse::TcpHeader) -> Option<u16> {
    tcp.options_iterator().flatten().find_map(|option| match option {
        etherparse::TcpOptionElement::MaximumSegmentSize(size) => Some(size),
        _ => None,
    })
}

#[test]
fn s19_segments_fit_both_families_with_offloads_on() {
    segments_fit(true);
}

#[test]
fn s19_segments_fit_both_families_with_offloads_off() {
    segments_fit(false);
}
