//! Traceroute: the routers, the host and the container are hops of their own, each found by the
//! packets that come no further.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use publisher_tests::case;
use publisher_tests::drops::{counts_one, drops};
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::shell;
use publisher_tests::topology::{BEHIND, HOST, Options};
use publisher_tests::traffic::frames::{self, Ends};
use publisher_tests::traffic::raw::{self, Capture, Frame, Injector};
use publisher_tests::traffic::{tcp, udp};

const ANY: [u8; 4] = [0, 0, 0, 0];
/// How long a frame may take.
const SOON: Duration = Duration::from_secs(1);
/// Who is on the way: two routers with the address that faces the client, and the host.
const HOPS: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 2),
    HOST,
];
/// Probes of one hop limit, as traceroute sends them.
const PROBES: u16 = 3;
/// Where a frame's IPv6 header starts.
const IPV6: usize = 14;
/// Where an ICMPv6 message starts, or ports do.
const ICMPV6: usize = IPV6 + 40;
/// Where the packet starts that an error is about.
const ABOUT: usize = ICMPV6 + 8;

/// A client behind two routers, a container that answers UDP and TCP, both published as 8080.
fn with_path(offloads: bool, body: impl FnOnce(&Lab<'_>, Ends, &Injector, &Capture) -> Result<()>) {
    case::run(|case| {
        let options = Options { narrow: Some(1_500), offloads, ..Options::default() };
        let lab = Lab::with(case, options)?;
        let _udp = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        let _tcp = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.add("8080/udp", TARGET)?;
        let client = lab.net.client();
        let ends = Ends {
            from_mac: client.mac("eth0")?,
            to_mac: lab.net.routers[0].mac("edge")?,
            from: BEHIND,
            to: HOST,
        };
        // Neighbours are known from here on, and nobody asks for them in between.
        udp::ask(&udp::client(client, 4_000)?, (HOST, 8080).into(), b"first")?;
        let outside = Capture::start(client, "eth0")?;
        body(&lab, ends, &Injector::open(client, "eth0")?, &outside)
    });
}

/// `frame` with another hop limit.
fn limited(mut frame: Vec<u8>, hops: u8) -> Vec<u8> {
    frame[IPV6 + 7] = hops;
    frame
}

/// Whether a frame is an ICMPv6 error of type 3 and code 0 with its right checksum.
fn is_time_exceeded(frame: &Frame) -> bool {
    let bytes = &frame.bytes;
    !frame.outgoing
        && bytes.get(IPV6 + 6) == Some(&58)
        && bytes.get(ICMPV6..ICMPV6 + 2) == Some(&[3, 0])
        && source(frame).is_some_and(|from| {
            bytes[IPV6 + 24..ICMPV6] == BEHIND.octets()
                && frames::checksum(from, BEHIND, 58, &bytes[ICMPV6..]) == 0
        })
}

fn source(frame: &Frame) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = frame.bytes.get(IPV6 + 8..IPV6 + 24)?.try_into().ok()?;
    Some(octets.into())
}

/// Who says that this probe's time is over. It must hold the whole probe, as it came there: with
/// one hop left.
fn who_answers(outside: &Capture, probe: &[u8]) -> Result<Ipv6Addr> {
    let about = &limited(probe.to_vec(), 1)[IPV6..];
    let told = |frame: &Frame| is_time_exceeded(frame) && &frame.bytes[ABOUT..] == about;
    source(&outside.wait_for(SOON, told)?).context("a source")
}

/// Whether a frame arrives from the published port, at this one; of TCP, a SYN-ACK.
fn is_answer(frame: &Frame, protocol: u8, port: u16) -> bool {
    let ports = [8080u16.to_be_bytes(), port.to_be_bytes()].concat();
    !frame.outgoing
        && frame.bytes.get(IPV6 + 6) == Some(&protocol)
        && source(frame) == Some(HOST)
        && frame.bytes.get(ICMPV6..ICMPV6 + 4) == Some(&ports)
        && (protocol != 6 || frame.bytes.get(ICMPV6 + 13) == Some(&0x12))
}

/// Every hop of the path answers the probes that end there, and only then the container does.
/// `probe` makes one from a port.
fn every_hop(offloads: bool, protocol: u8, probe: impl Fn(&Ends, u16) -> Vec<u8>) {
    with_path(offloads, |lab, ends, sender, outside| {
        let inside = Capture::start(lab.net.container(), "eth0")?;
        let arrived = |hops_left: RangeInclusive<u8>| {
            let frames = inside.frames();
            let probes = frames.iter().filter(|it| !it.outgoing && it.bytes[23] == protocol);
            probes.filter(|it| hops_left.contains(&it.bytes[22])).count()
        };
        let mut port = 33_434;
        for (limit, hop) in (1..).zip(HOPS) {
            for _ in 0..PROBES {
                let frame = limited(probe(&ends, port), limit);
                sender.send(&frame)?;
                let told = who_answers(outside, &frame);
                let told = told.with_context(|| format!("hop limit {limit}, port {port}"))?;
                ensure!(told == hop, "hop limit {limit}: {told} answers, not {hop}");
                port += 1;
            }
        }
        // The only session is the one from before.
        let sessions = lab.daemon.entries(&["sessions"])?;
        ensure!(sessions.len() == 1, "a probe that came no further opened one: {sessions:?}");
        ensure!(arrived(0..=255) == 0, "a probe came further than it may");
        for _ in 0..PROBES {
            sender.send(&limited(probe(&ends, port), 4))?;
            outside.wait_for(SOON, |frame| is_answer(frame, protocol, port))?;
            port += 1;
        }
        let left = || arrived(1..=1) == usize::from(PROBES);
        ensure!(shell::wait_until(SOON, left), "not one hop is left for the container");
        Ok(())
    });
}

fn datagram(ends: &Ends, port: u16) -> Vec<u8> {
    ends.udp(port, 8080, b"where does this end?")
}

fn syn(ends: &Ends, port: u16) -> Vec<u8> {
    ends.tcp(port, 8080, true, b"")
}

#[test]
fn h3_every_hop_answers_datagrams() {
    every_hop(true, 17, datagram);
}

#[test]
fn h3_every_hop_answers_datagrams_with_offloads_off() {
    every_hop(false, 17, datagram);
}

#[test]
fn h3_every_hop_answers_syns() {
    every_hop(true, 6, syn);
}

#[test]
fn h3_every_hop_answers_syns_with_offloads_off() {
    every_hop(false, 6, syn);
}

/// The other way round: a reply that ends on its way is told to the container in its own language.
fn every_hop_back(offloads: bool) {
    with_path(offloads, |lab, _, _, outside| {
        let sessions = lab.daemon.entries(&["sessions"])?;
        let alias: Ipv4Addr = sessions[0]["alias"].as_str().context("alias")?.parse()?;
        let port = sessions[0]["alias_port"].as_u64().context("port")?;
        let (container, inside) =
            (lab.net.container(), Capture::start(lab.net.container(), "eth0")?);
        let macs = [container.mac("eth0")?, lab.net.host.mac("br0")?];
        let content = |ttl: u8| format!("a reply with {ttl} hops").into_bytes();
        let reply = |ttl: u8| -> Result<Vec<u8>> {
            let mut frame = Vec::new();
            let builder = PacketBuilder::ethernet2(macs[0], macs[1]);
            let builder = builder.ipv4([172, 17, 0, 2], alias.octets(), ttl);
            builder.udp(80, u16::try_from(port)?).write(&mut frame, &content(ttl))?;
            Ok(frame)
        };
        for ttl in 1..=3 {
            let frame = reply(ttl)?;
            raw::inject(container, "eth0", &frame)?;
            let told = |error: &Frame| {
                let bytes = &error.bytes;
                !error.outgoing
                    && bytes.get(23) == Some(&1)
                    && bytes.get(34..36) == Some(&[11, 0])
                    // From the host, which is all that the container knows of the way.
                    && bytes[26..30] == [172, 17, 0, 1]
                    // Its own addresses, ports and content stand in it.
                    && bytes.get(54..) == Some(&frame[26..])
            };
            inside.wait_for(SOON, told).with_context(|| format!("TTL {ttl}"))?;
        }
        raw::inject(container, "eth0", &reply(4)?)?;
        outside.wait_for(SOON, |frame| frame.contains(&content(4)))?;
        let early = |frame: &Frame| (1..4).any(|ttl| frame.contains(&content(ttl)));
        ensure!(!outside.frames().iter().any(early), "a reply came further than it may");
        Ok(())
    });
}

#[test]
fn g1_i4_a_reply_that_ends_at_any_hop_is_told_to_the_container() {
    every_hop_back(true);
}

#[test]
fn g1_i4_a_reply_that_ends_at_any_hop_is_told_with_offloads_off() {
    every_hop_back(false);
}

#[test]
fn h3_i14_the_end_of_a_later_fragment_is_told_to_nobody() {
    with_path(true, |lab, ends, sender, outside| {
        let [first, second] = ends.udp_fragments(5_000, 8080, &[0x77; 1_000]);
        sender.send(&limited(first, 4))?;
        counts_one(&lab.daemon, "hop_limit", || sender.send(&limited(second, 3)))?;
        // What comes later is answered, and nothing was before.
        let probe = limited(datagram(&ends, 5_001), 3);
        sender.send(&probe)?;
        assert_eq!(who_answers(outside, &probe)?, HOST);
        assert_eq!(outside.frames().iter().filter(|frame| is_time_exceeded(frame)).count(), 1);
        Ok(())
    });
}

#[test]
fn h3_i14_a_storm_of_probes_is_not_answered_by_a_storm() {
    with_path(true, |lab, ends, sender, outside| {
        let (probes, start) = (1_000, Instant::now());
        for port in 20_000..20_000 + probes {
            sender.send(&limited(datagram(&ends, port), 3))?;
        }
        let counted = || {
            let drops = drops(&lab.daemon).unwrap_or_default();
            let silent = drops.get("answer_suppressed").copied().unwrap_or_default();
            let told = outside.frames().iter().filter(|frame| is_time_exceeded(frame)).count();
            (told, silent as usize)
        };
        let all = || {
            let (told, silent) = counted();
            told + silent == usize::from(probes)
        };
        ensure!(shell::wait_until(SOON, all), "answers and silent drops: {:?}", counted());
        // Each CPU has a burst of 50, and 100 a second.
        let cpus = std::thread::available_parallelism()?.get();
        let most = cpus * (50 + 1 + start.elapsed().as_millis() as usize / 10);
        let (told, _) = counted();
        println!("{told} of {probes} are told, at most {most} may be");
        ensure!((1..=most).contains(&told), "{told} are told, at most {most} may be");
        // Who asks is answered meanwhile.
        let socket = udp::client(lab.net.client(), 0)?;
        udp::ask(&socket, (HOST, 8080).into(), b"a datagram like others")?;
        Ok(())
    });
}
