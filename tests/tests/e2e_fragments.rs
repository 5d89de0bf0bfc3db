//! Datagrams that don't fit into one packet, and packets with more headers than usual.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use publisher_common::layout::{VERSION, names};
use publisher_tests::case;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::netns::Netns;
use publisher_tests::topology::{HOST, Options, client_address, host};
use publisher_tests::traffic::frames::Ends;
use publisher_tests::traffic::{raw, udp};

const ANY: [u8; 4] = [0, 0, 0, 0];

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index / 7) as u8 ^ index as u8).collect()
}

/// Every length around the places where one more fragment is needed, and the longest.
fn datagrams_of_every_length(options: Options) {
    case::run(|case| {
        let lab = Lab::with(case, options)?;
        let server = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let socket = udp::client(lab.net.client(), 0)?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        for length in [
            1, 1_352, 1_353, 1_400, 1_432, 1_452, 1_453, 1_472, 1_473, 2_000, 2_900, 9_000, 30_000,
            65_507,
        ] {
            let sent = content(length);
            // A question may be lost where it tells the client about the path's MTU, and then an
            // answer where it tells the container.
            ask(&socket, host(8080), &sent, 3).with_context(|| format!("{length} bytes"))?;
        }
        let SocketAddr::V4(alias) = server.seen()[0].0 else { anyhow::bail!("IPv4") };
        let all_one = server.seen().iter().all(|(from, _)| *from == SocketAddr::V4(alias));
        ensure!(all_one, "one client, one session");
        Ok(())
    });
}

/// Asks until the answer comes, `tries` times at the most.
fn ask(socket: &UdpSocket, to: SocketAddr, sent: &[u8], tries: usize) -> Result<()> {
    let mut outcomes = (0..tries).map(|_| udp::ask(socket, to, sent));
    let (received, from) = outcomes.find_map(Result::ok).context("no answer")?;
    ensure!(from == to, "the answer came from {from}");
    ensure!(received == sent, "{} bytes came back, or others", received.len());
    Ok(())
}

#[test]
fn h7_g6_s14_datagrams_of_every_length_with_offloads_on() {
    datagrams_of_every_length(Options::default());
}

#[test]
fn h7_g6_s14_datagrams_of_every_length_with_offloads_off() {
    datagrams_of_every_length(Options { offloads: false, ..Options::default() });
}

/// A link of 1400 bytes between the routers, which neither end knows of.
fn behind_routers(offloads: bool) -> Options {
    Options { narrow: Some(1_400), offloads, ..Options::default() }
}

#[test]
fn h7_g6_s14_datagrams_of_every_length_behind_routers_with_offloads_on() {
    datagrams_of_every_length(behind_routers(true));
}

#[test]
fn h7_g6_s14_datagrams_of_every_length_behind_routers_with_offloads_off() {
    datagrams_of_every_length(behind_routers(false));
}

fn ends(lab: &Lab) -> Result<Ends> {
    Ok(Ends {
        from_mac: lab.net.client().mac("eth0")?,
        to_mac: lab.net.host.mac("up0")?,
        from: client_address(0),
        to: HOST,
    })
}

fn send(client: &Netns, frames: &[Vec<u8>], order: &[usize]) -> Result<()> {
    order.iter().try_for_each(|&index| raw::inject(client, "eth0", &frames[index]))
}

#[test]
fn s14_shuffled_repeated_and_overlapping_fragments() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let server = udp::Server::sink(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let (client, ends) = (lab.net.client(), ends(&lab)?);
        let payload = |mark: u8| vec![mark; 4_000];
        let frames = |mark: u8| ends.fragments(5_000, &payload(mark), 1_000, u32::from(mark));

        send(client, &frames(1), &[0, 1, 2, 3, 4])?;
        server.wait_for(&payload(1)).context("in order")?;
        send(client, &frames(2), &[0, 4, 2, 3, 1])?;
        server.wait_for(&payload(2)).context("shuffled")?;
        send(client, &frames(3), &[0, 0, 1, 1, 2, 3, 3, 4])?;
        server.wait_for(&payload(3)).context("repeated")?;

        // Those that come before the first one have no ports: they wait for it.
        for (mark, order) in [
            (10, [1, 0, 2, 3, 4]),
            (11, [4, 3, 2, 1, 0]),
            (12, [2, 4, 0, 3, 1]),
            (13, [1, 2, 3, 4, 0]),
        ] {
            send(client, &frames(mark), &order)?;
            server.wait_for(&payload(mark)).with_context(|| format!("{order:?}"))?;
        }
        // Twice, and one of them twice before.
        send(client, &frames(14), &[1, 1, 2, 0, 1, 3, 4])?;
        server.wait_for(&payload(14)).context("repeated before the first one")?;

        // As many as wait for one datagram at most, backwards.
        let long = vec![15; 63 * 1_000 + 1];
        let mut parts = ends.fragments(5_000, &long, 1_000, 15);
        parts.reverse();
        send(client, &parts, &(0..parts.len()).collect::<Vec<_>>())?;
        server.wait_for(&long).context("64 fragments backwards")?;

        // One that overlaps: nothing of this datagram must arrive whole.
        let mut overlapping = frames(4);
        let foreign = ends.fragments(5_000, &payload(5), 1_000, 4);
        let mut moved = foreign[2].clone();
        moved[56..58].copy_from_slice(&(1_992u16 | 1).to_be_bytes());
        overlapping.push(moved);
        send(client, &overlapping, &[0, 1, 5, 2, 3, 4])?;
        // The next one arrives, and was sent later.
        send(client, &frames(6), &[0, 1, 2, 3, 4])?;
        server.wait_for(&payload(6)).context("after the overlap")?;
        let seen = server.seen();
        ensure!(seen.len() == 10, "{} datagrams arrived", seen.len());
        let drops = lab.daemon.entries(&["drops"])?;
        let count = |name: &str| {
            drops.iter().find(|it| it["reason"] == name).and_then(|it| it["count"].as_u64())
        };
        ensure!(count("fragment_overlap") == Some(4), "{drops:?}");
        ensure!(count("fragment_again") == Some(3 + 2), "{drops:?}");
        Ok(())
    });
}

#[test]
fn s14_a_flood_of_first_fragments_stops_nobody_else() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let server = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let (client, ends) = (lab.net.client(), ends(&lab)?);
        let socket = udp::client(client, 6_000)?;
        // Whole ones: parts fill the container's own room for putting them together, as they would
        // without a translator.
        let other = content(1_000);
        ask(&socket, host(8080), &other, 2)?;
        let memory = fragment_memory(&lab)?;
        let (sender, over) = (raw::Injector::open(client, "eth0")?, AtomicBool::new(false));
        let (sent, answered) = std::thread::scope(|scope| -> Result<(u32, u32)> {
            let flood = scope.spawn(|| -> Result<u32> {
                let mut sent = 0;
                while !over.load(Ordering::Relaxed) {
                    let frames = ends.fragments(5_000, &[7; 64], 32, sent);
                    sender.send(&frames[0])?;
                    sent += 1;
                    // As fast as this machine can be flooded and still do something else.
                    if sent.is_multiple_of(50) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                Ok(sent)
            });
            let (start, mut answered) = (Instant::now(), 0);
            let asked = loop {
                if start.elapsed() > Duration::from_secs(3) {
                    break Ok(());
                }
                if let Err(error) = ask(&socket, host(8080), &other, 2) {
                    break Err(error);
                }
                answered += 1;
            };
            over.store(true, Ordering::Relaxed);
            let sent = flood.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            asked.context("in the flood")?;
            Ok((sent, answered))
        })?;
        println!("{sent} first fragments, {answered} datagrams there and back");
        ensure!(sent > 10_000 && answered >= 100, "{sent} fragments, {answered} answers");
        ensure!(fragment_memory(&lab)? == memory, "the flood took memory");
        ensure!(server.seen().iter().all(|(_, data)| data.len() == 1_000), "a part was taken");
        Ok(())
    });
}

/// Bytes of memory that the tables of fragments have, as the kernel says.
fn fragment_memory(lab: &Lab) -> Result<Vec<String>> {
    let pins = lab.daemon.pin_dir().join(format!("v{VERSION}/maps"));
    let mut memory = Vec::new();
    for name in [names::FRAGMENTS_IN, names::FRAGMENTS_OUT] {
        let map = MapData::from_pin(pins.join(name))?;
        let info = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
        let text = std::fs::read_to_string(info)?;
        memory.extend(text.lines().filter(|line| line.starts_with("memlock")).map(String::from));
    }
    ensure!(memory.len() == 2, "{memory:?}");
    Ok(memory)
}

#[test]
fn h5_options_do_not_stop_a_datagram() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let server = udp::Server::sink(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let (client, ends) = (lab.net.client(), ends(&lab)?);
        for (index, header) in [
            (0u8, &[17, 0, 1, 4, 0, 0, 0, 0][..]),
            (60, &[17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (43, &[17, 0, 4, 0, 0, 0, 0, 0]),
        ] {
            let text = format!("behind header {index}");
            let whole = ends.udp(5_000, 8080, text.as_bytes());
            let frame = ends.protocol(index, &[header, &whole[54..]].concat());
            raw::inject(client, "eth0", &frame)?;
            server.wait_for(text.as_bytes())?;
        }
        Ok(())
    });
}
