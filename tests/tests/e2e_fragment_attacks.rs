//! Fragments that somebody has made up: overlapping ones, those of other clients' datagrams, and
//! floods. What goes wrong stays with the datagram that it went wrong in.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{HashMap, Map, MapData};
use etherparse::PacketBuilder;
use publisher_common::layout::{self, DATAGRAMS, VERSION, names};
use publisher_tests::case;
use publisher_tests::drops::drops;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::topology::{HOST, Options, client_address, host};
use publisher_tests::traffic::bulk::{self, MIB};
use publisher_tests::traffic::frames::Ends;
use publisher_tests::traffic::raw::{Capture, Injector};
use publisher_tests::traffic::{tcp, udp};

const ANY: [u8; 4] = [0, 0, 0, 0];
/// Bytes of a fragment.
const SIZE: usize = 400;
/// Added to the place of a fragment that isn't the last.
const MORE: u16 = 1;
/// How long a frame may take.
const SOON: Duration = Duration::from_secs(1);

/// How frames come from client `index`.
fn ends(lab: &Lab<'_>, index: u16) -> Result<Ends> {
    Ok(Ends {
        from_mac: lab.net.clients[usize::from(index)].mac("eth0")?,
        to_mac: lab.net.host.mac("up0")?,
        from: client_address(index),
        to: HOST,
    })
}

/// A datagram's payload: with its header, exactly four fragments.
fn payload(mark: u8) -> Vec<u8> {
    vec![mark; 4 * SIZE - 8]
}

fn arrived(capture: &Capture, content: &[u8]) -> usize {
    let frames = capture.frames();
    frames.iter().filter(|frame| !frame.outgoing && frame.contains(content)).count()
}

/// Ways to overlap: the place and length of a fragment that comes when the first, the second and
/// the last have come.
const OVERLAPS: [(u16, usize, &str); 7] = [
    (MORE, 2 * SIZE + 8, "a first one that is longer than both"),
    (792 | MORE, SIZE, "one that begins in the second"),
    (400 | MORE, SIZE + 8, "one that begins with the second and is longer"),
    (1_192, 16, "another last one"),
    (808 | MORE, SIZE, "one that ends in the last"),
    (1_600 | MORE, 8, "one behind the end"),
    (800, 8, "an end before the end"),
];

#[test]
fn s14_overlaps_spoil_their_datagram_and_leak_nothing() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let server = udp::Server::sink(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let (ends, sender) = (ends(&lab, 0)?, Injector::open(lab.net.client(), "eth0")?);
        let inside = Capture::start(lab.net.container(), "eth0")?;
        for (number, (place, length, what)) in (1u8..).zip(OVERLAPS) {
            let (mark, foreign) = (number, number + 100);
            let id = u32::from(number);
            let parts = ends.fragments(5_000, &payload(mark), SIZE, id);
            let overlap = match place {
                // It has the ports, or it would be somebody else's.
                MORE => ends.fragments(5_000, &payload(foreign), length, id).swap_remove(0),
                _ => ends.fragment(place, id, &vec![foreign; length]),
            };
            for frame in [&parts[0], &parts[1], &parts[3], &overlap, &parts[2], &overlap] {
                sender.send(frame)?;
            }
            // Sent last, so all before it has been decided on.
            let after = payload(number + 200);
            for frame in ends.fragments(5_000, &after, SIZE, id + 1_000) {
                sender.send(&frame)?;
            }
            server.wait_for(&after).with_context(|| format!("after {what}"))?;
            inside.wait_for(SOON, |frame| frame.contains(&[number + 200; 8]))?;
            // What came before is gone already, what comes after goes nowhere.
            assert_eq!(arrived(&inside, &[mark; 8]), 3, "{what}");
            assert_eq!(arrived(&inside, &[foreign; 8]), 0, "{what}");
            let overlapping = 3 * u64::from(number);
            assert_eq!(drops(&lab.daemon)?, [("fragment_overlap".into(), overlapping)].into());
        }
        assert_eq!(server.seen().len(), OVERLAPS.len());
        Ok(())
    });
}

/// What lies wholly in what has come brings nothing new, whatever is in it: the datagram is as it
/// was at first.
#[test]
fn s14_a_part_that_has_come_is_not_replaced() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let server = udp::Server::sink(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let (ends, sender) = (ends(&lab, 0)?, Injector::open(lab.net.client(), "eth0")?);
        let inside = Capture::start(lab.net.container(), "eth0")?;
        let parts = ends.fragments(5_000, &payload(1), SIZE, 1);
        let first = ends.fragments(5_000, &payload(2), SIZE + 8, 1).swap_remove(0);
        let later = ends.fragment(640 | MORE, 1, &[3; 80]);
        for frame in [&parts[0], &parts[1], &first, &later, &parts[3], &parts[2]] {
            sender.send(frame)?;
        }
        server.wait_for(&payload(1))?;
        assert_eq!(arrived(&inside, &[2; 8]) + arrived(&inside, &[3; 8]), 0);
        assert_eq!(drops(&lab.daemon)?, [("fragment_again".into(), 2)].into());
        Ok(())
    });
}

#[test]
fn s14_fragments_of_two_clients_never_mix() {
    case::run(|case| {
        let lab = Lab::with(case, Options { clients: 2, ..Options::default() })?;
        let server = udp::Server::sink(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let inside = Capture::start(lab.net.container(), "eth0")?;
        let sender = |index: usize| Injector::open(&lab.net.clients[index], "eth0");
        let senders = [sender(0)?, sender(1)?];
        let of = |index: u16, mark: u8, id: u32| -> Result<Vec<Vec<u8>>> {
            Ok(ends(&lab, index)?.fragments(5_000, &payload(mark), SIZE, id))
        };

        // The second client has no first fragment: its others aren't taken for the first one's.
        let (own, foreign) = (of(0, 1, 7)?, of(1, 2, 7)?);
        senders[0].send(&own[0])?;
        foreign[1..].iter().try_for_each(|frame| senders[1].send(frame))?;
        own[1..].iter().try_for_each(|frame| senders[0].send(frame))?;
        server.wait_for(&payload(1))?;
        inside.wait_for(SOON, |frame| frame.contains(&own[3][62..]))?;
        assert_eq!(arrived(&inside, &[2; 8]), 0, "a stranger's fragments");

        // The same identification, port and places, in turns. Not the one of before: the second client's
        // fragments still wait for their first one.
        for (one, other) in of(0, 3, 8)?.iter().zip(&of(1, 4, 8)?) {
            senders[0].send(one)?;
            senders[1].send(other)?;
        }
        let aliases = [server.wait_for(&payload(3))?, server.wait_for(&payload(4))?];
        ensure!(aliases[0].ip() != aliases[1].ip(), "both are {}", aliases[0]);
        assert_eq!(drops(&lab.daemon)?, [].into());
        Ok(())
    });
}

/// The frames of a container's datagram in fragments of [`SIZE`] bytes.
fn reply(lab: &Lab<'_>, alias: SocketAddr, content: &[u8], id: u16) -> Result<Vec<Vec<u8>>> {
    let SocketAddr::V4(alias) = alias else { bail!("IPv4") };
    let (from, to) = ([172, 17, 0, 2], alias.ip().octets());
    let mut whole = Vec::new();
    let datagram = PacketBuilder::ipv4(from, to, 64).udp(80, alias.port());
    datagram.write(&mut whole, content)?;
    let macs = [lab.net.host.mac("br0")?, lab.net.container().mac("eth0")?].concat();
    let fragment = |(index, part): (usize, &[u8])| -> Result<Vec<u8>> {
        let mut header = etherparse::Ipv4Header::new(
            u16::try_from(part.len())?,
            64,
            etherparse::IpNumber::UDP,
            from,
            to,
        )?;
        header.identification = id;
        header.dont_fragment = false;
        header.more_fragments = (index + 1) * SIZE < whole.len() - 20;
        header.fragment_offset =
            etherparse::IpFragOffset::try_new(u16::try_from(index * SIZE / 8)?)?;
        header.header_checksum = header.calc_header_checksum();
        Ok([&macs, &[0x08, 0x00][..], &header.to_bytes(), part].concat())
    };
    whole[20..].chunks(SIZE).enumerate().map(fragment).collect()
}

#[test]
fn s14_g6_a_containers_fragments_in_any_order() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let server = udp::Server::sink(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let socket = udp::client(lab.net.client(), 5_000)?;
        socket.send_to(b"hello", host(8080))?;
        let alias = server.wait_for(b"hello")?;
        let outside = Capture::start(lab.net.client(), "eth0")?;
        let sender = Injector::open(lab.net.container(), "eth0")?;
        let send = |frames: &[Vec<u8>], order: &[usize]| {
            order.iter().try_for_each(|&index| sender.send(&frames[index]))
        };
        let receives = |mark: u8| -> Result<()> {
            let mut content = vec![0; 65_536];
            let (length, from) = socket.recv_from(&mut content).context("nothing comes")?;
            ensure!(from == host(8080) && content[..length] == payload(mark), "{length} bytes");
            Ok(())
        };
        for (mark, order) in
            [(1, &[0usize, 1, 2, 3][..]), (2, &[0, 3, 2, 1]), (3, &[0, 0, 1, 1, 2, 3])]
        {
            send(&reply(&lab, alias, &payload(mark), mark.into())?, order)?;
            receives(mark).with_context(|| format!("{order:?}"))?;
        }
        assert_eq!(drops(&lab.daemon)?, [("fragment_again".into(), 2)].into());

        // A foreign part that begins in the one before it.
        let mut frames = reply(&lab, alias, &payload(4), 4)?;
        let mut moved = reply(&lab, alias, &payload(5), 4)?[2].clone();
        let place = 0x2000 | (792u16 / 8);
        moved[20..22].copy_from_slice(&place.to_be_bytes());
        // One unit less in the offset is one more in the checksum.
        let sum = u16::from_be_bytes([moved[24], moved[25]]) + 1;
        moved[24..26].copy_from_slice(&sum.to_be_bytes());
        frames.push(moved);
        send(&frames, &[0, 1, 4, 2, 3])?;
        send(&reply(&lab, alias, &payload(6), 6)?, &[0, 1, 2, 3])?;
        receives(6).context("after the overlap")?;
        outside.wait_for(SOON, |frame| frame.contains(&[6; 8]))?;
        assert_eq!(arrived(&outside, &[4; 8]), 2, "what came before the overlap");
        assert_eq!(arrived(&outside, &[5; 8]), 0, "the overlap");
        assert_eq!(drops(&lab.daemon)?["fragment_overlap"], 3);
        Ok(())
    });
}

/// How many datagrams are kept track of on their way to containers.
fn tracked(lab: &Lab<'_>) -> Result<usize> {
    let pins = lab.daemon.pin_dir().join(format!("v{VERSION}/maps"));
    let map = Map::LruHashMap(MapData::from_pin(pins.join(names::FRAGMENTS_IN))?);
    let map: HashMap<_, layout::FragmentKey, layout::Datagram> = map.try_into()?;
    Ok(map.keys().flatten().count())
}

#[test]
fn s14_a_flood_of_first_fragments_stops_no_transfer() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let _sink = udp::Server::sink(lab.net.container(), (ANY, 80))?;
        let _server = tcp::Server::start(lab.net.container(), (ANY, 80), bulk::serve)?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.add("8080/udp", TARGET)?;
        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        let (ends, sender) = (ends(&lab, 0)?, Injector::open(lab.net.client(), "eth0")?);
        let over = AtomicBool::new(false);
        let sent = std::thread::scope(|scope| -> Result<u32> {
            let flood = scope.spawn(|| -> Result<u32> {
                let mut sent = 0;
                while !over.load(Ordering::Relaxed) {
                    // From every port and under every identification.
                    let first = &ends.fragments(sent as u16, &[7; 64], 32, sent)[0];
                    sender.send(first)?;
                    sent += 1;
                }
                Ok(sent)
            });
            let start = Instant::now();
            let transfer = bulk::exchange(&mut stream, 512 * MIB);
            println!("512 MiB both ways in {:?}", start.elapsed());
            over.store(true, Ordering::Relaxed);
            let sent = flood.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            transfer.context("in the flood")?;
            sent
        })?;
        let tracked = tracked(&lab)?;
        println!("{sent} first fragments, {tracked} datagrams kept track of");
        ensure!(sent > 4 * DATAGRAMS, "{sent} fragments are no flood");
        ensure!((1..=DATAGRAMS as usize).contains(&tracked), "{tracked} datagrams are kept");
        let status = lab.daemon.json(&["status"])?;
        let tables = status["tables"].as_array().context("tables")?;
        ensure!(!tables.is_empty(), "{status}");
        for table in tables {
            let [used, capacity] = ["used", "capacity"].map(|field| table[field].as_u64());
            ensure!(used.is_some() && used <= capacity, "{table}");
        }
        Ok(())
    });
}
