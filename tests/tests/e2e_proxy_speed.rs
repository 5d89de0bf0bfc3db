//! The socket proxy beside the newest docker-proxy, on the same work in the same rounds. How fast TCP is
//! from outside is the benchmark's to say (`cargo xtask bench`); here are datagrams, and clients on the host
//! itself. The floors are far below what is measured: noise must not fail them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use publisher_tests::bench::statistics::{Ratio, median};
use publisher_tests::case;
use publisher_tests::docker_proxy::DockerProxy;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::load::is_full;
use publisher_tests::netns::Netns;
use publisher_tests::topology::host;
use publisher_tests::traffic::tcp;

const ANY: [u8; 4] = [0, 0, 0, 0];
const ROUNDS: usize = 5;
/// Datagrams that are on their way at once.
const WINDOW: usize = 32;

fn window() -> Duration {
    Duration::from_millis(if is_full() { 3_000 } else { 700 })
}

/// Two networks that are alike but for who listens on the host's port 8080.
fn compared(udp: bool, what: &str, floor: f64, work: impl Fn(&Lab<'_>) -> Result<f64>) {
    case::run(|case| {
        let (ours, theirs) = (Lab::simple(case)?, Lab::simple(case)?);
        let published = if udp { "8080/udp" } else { "8080" };
        ours.daemon.ctl(&["add", published, TARGET, "--path", "proxy"])?.ok()?;
        let target: SocketAddr = TARGET.parse()?;
        let _proxy = match udp {
            true => DockerProxy::start_udp(&theirs.net.host, 8080, target)?,
            false => DockerProxy::start(&theirs.net.host, 8080, target)?,
        };
        let mut values = [Vec::new(), Vec::new()];
        for round in 0..=ROUNDS {
            for which in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                let value = work([&ours, &theirs][which])?;
                // The first round warms up.
                if round > 0 {
                    values[which].push(value);
                }
            }
        }
        let ratio = Ratio::of(&values[0], &values[1]);
        println!(
            "{what}: {:.0} against docker-proxy's {:.0}: {:.2} (paired {:.2}, 95 % {:.2}-{:.2})",
            median(&values[0]),
            median(&values[1]),
            ratio.of_medians,
            ratio.paired,
            ratio.interval[0],
            ratio.interval[1]
        );
        ensure!(ratio.of_medians > floor, "{what}: {ratio:?}");
        Ok(())
    });
}

/// Sends back what comes to the container, until `over`.
fn echo(container: &Netns, over: &AtomicBool) -> Result<()> {
    let socket = container.run(|| UdpSocket::bind(SocketAddr::from((ANY, 80))))?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut buffer = [0; 2_048];
    while !over.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
    Ok(())
}

/// Echoes in a second with a window of 32.
fn echoes(lab: &Lab<'_>) -> Result<f64> {
    let over = AtomicBool::new(false);
    let container = lab.net.container();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| echo(container, &over));
        std::thread::sleep(Duration::from_millis(50));
        let client = lab.net.client().run(|| UdpSocket::bind("[::]:0"))?;
        client.set_read_timeout(Some(Duration::from_millis(100)))?;
        client.connect(host(8080))?;
        let (start, mut count, mut buffer) = (Instant::now(), 0u64, [0; 2_048]);
        (0..WINDOW).try_for_each(|_| client.send(&[7; 64]).map(|_| ()))?;
        while start.elapsed() < window() {
            match client.recv(&mut buffer) {
                Ok(_) => {
                    count += 1;
                    client.send(&[7; 64])?;
                }
                // Some were lost.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    (0..WINDOW).try_for_each(|_| client.send(&[7; 64]).map(|_| ()))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let rate = count as f64 / start.elapsed().as_secs_f64();
        over.store(true, Ordering::Relaxed);
        server.join().expect("the echo doesn't panic")?;
        Ok(rate)
    })
}

/// Connections from the host itself in a second, each with a request and an answer.
fn connections(lab: &Lab<'_>) -> Result<f64> {
    let _server = tcp::Server::start(lab.net.container(), (ANY, 80), |mut stream| {
        let mut byte = [0; 1];
        if stream.read_exact(&mut byte).is_ok() {
            let _ = stream.write_all(&byte);
        }
    })?;
    let (start, mut count) = (Instant::now(), 0u64);
    while start.elapsed() < window() {
        let mut stream = tcp::connect(&lab.net.host, (Ipv6Addr::LOCALHOST, 8080))?;
        stream.write_all(b"?")?;
        stream.read_exact(&mut [0; 1])?;
        tcp::abort(stream)?;
        count += 1;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

#[test]
fn datagrams_are_echoed_faster() {
    compared(true, "UDP echoes/s, window 32", 1.0, echoes);
}

#[test]
fn connections_of_the_host_itself_are_made_faster() {
    compared(false, "connections/s to ::1, one at a time", 0.8, connections);
}
