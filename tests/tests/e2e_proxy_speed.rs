//! The socket proxy beside the newest docker-proxy, on the same work in the same rounds: datagrams. How fast
//! TCP is from outside is the benchmark's to say (`cargo xtask bench`).

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use publisher_tests::bench::pair::{Pair, window};
use publisher_tests::lab::Lab;
use publisher_tests::netns::Netns;
use publisher_tests::topology::host;

const ANY: [u8; 4] = [0, 0, 0, 0];
/// Datagrams that are on their way at once.
const WINDOW: usize = 32;

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

#[test]
fn datagrams_are_echoed_faster() {
    let pair = Pair { what: "UDP echoes/s, window 32", udp: true, path: "proxy", floor: 1.0 };
    pair.compare(echoes);
}
