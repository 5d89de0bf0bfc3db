//! Containers that send what IPv6 doesn't know: datagrams without a checksum, and packets that routers may
//! fragment.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use publisher_tests::case;
use publisher_tests::drops::drops;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::shell;
use publisher_tests::topology::{Options, host};
use publisher_tests::traffic::bulk::{self, MIB};
use publisher_tests::traffic::raw::{Capture, Frame};
use publisher_tests::traffic::{tcp, udp};

const ANY: [u8; 4] = [0, 0, 0, 0];
const LIMIT: Duration = Duration::from_secs(2);
/// `IP_PMTUDISC_DONT`: every router may fragment.
const NEVER_DISCOVER: libc::c_int = libc::IP_PMTUDISC_DONT;
/// Ethernet and IPv6 header.
const HEADERS: usize = 14 + 40;

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index / 5) as u8 ^ (index * 3) as u8).collect()
}

/// A session that the server has seen: where its replies go, and where the client gets them.
struct Talk {
    server: udp::Server,
    alias: SocketAddr,
    client: std::net::UdpSocket,
}

impl Talk {
    fn start(lab: &Lab<'_>) -> Result<Self> {
        let server = udp::Server::sink(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let client = udp::client(lab.net.client(), 0)?;
        client.send_to(b"hello", host(8080))?;
        let alias = server.wait_for(b"hello")?;
        Ok(Self { server, alias, client })
    }

    fn reply(&self, length: usize) -> Result<()> {
        let sent = content(length);
        self.server.reply(self.alias, &sent)?;
        self.comes(&sent).with_context(|| format!("a reply of {length} bytes"))
    }

    fn comes(&self, sent: &[u8]) -> Result<()> {
        let received = self.next()?;
        ensure!(received == sent, "{} bytes come, or others", received.len());
        Ok(())
    }

    /// What comes next.
    fn next(&self) -> Result<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        let (length, from) = self.client.recv_from(&mut buffer).context("nothing comes")?;
        ensure!(from == host(8080), "it comes from {from}");
        buffer.truncate(length);
        Ok(buffer)
    }
}

#[test]
fn g10_datagrams_without_a_checksum() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let talk = Talk::start(&lab)?;
        let outside = Capture::start(lab.net.client(), "eth0")?;
        talk.server.set_option(libc::SOL_SOCKET, libc::SO_NO_CHECK, 1)?;
        for length in (0..40).chain([505, 1_000, 1_451, 1_452]) {
            talk.reply(length)?;
        }
        let unsummed = |frame: &Frame| {
            !frame.outgoing && frame.bytes.get(20) == Some(&17) && frame.bytes[60..62] == [0, 0]
        };
        ensure!(!outside.frames().iter().any(unsummed), "a datagram without a checksum");
        Ok(())
    });
}

/// Whether a captured frame is an IPv6 fragment.
fn is_fragment(frame: &Frame) -> bool {
    !frame.outgoing && frame.bytes.get(12..14) == Some(&[0x86, 0xdd]) && frame.bytes[20] == 44
}

fn what_routers_may_fragment(offloads: bool) {
    case::run(|case| {
        let mut lab = Lab::with(case, Options { offloads, ..Options::default() })?;
        lab.daemon.alter(|| {
            let container = &lab.net.containers[0];
            lab.net.host.ip(&format!("link set {} mtu 9000", container.veth))?;
            lab.net.host.ip("link set br0 mtu 9000")?;
            container.ns.ip("link set eth0 mtu 9000")
        })?;
        let talk = Talk::start(&lab)?;
        talk.server.set_option(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, NEVER_DISCOVER)?;
        let outside = Capture::start(lab.net.client(), "eth0")?;
        for length in [1, 1_232, 1_233, 1_400, 1_451, 1_452] {
            talk.reply(length)?;
        }
        let lengths = [1_453, 1_454, 1_472, 1_473, 2_456, 2_457, 2_464, 4_321, 8_971, 8_972];
        for length in lengths {
            talk.reply(length)?;
        }
        // 1,232 bytes each, of what is behind the IP header.
        let expected: usize = lengths.iter().map(|length| (length + 8_usize).div_ceil(1_232)).sum();
        let come = || outside.frames().iter().filter(|frame| is_fragment(frame)).count();
        ensure!(shell::wait_until(LIMIT, || come() >= expected), "{} fragments", come());
        let frames = outside.frames();
        let whole = |frame: &&Frame| !frame.outgoing && frame.bytes.get(20) == Some(&17);
        ensure!(frames.iter().filter(whole).count() == 6, "what fits isn't fragmented");
        let fragments: Vec<&Frame> = frames.iter().filter(|frame| is_fragment(frame)).collect();
        ensure!(fragments.len() == expected, "{} fragments", fragments.len());
        for fragment in fragments {
            ensure!(fragment.bytes.len() <= 14 + 1_280, "{} bytes", fragment.bytes.len());
            // The upper half of the identification is new.
            ensure!(fragment.bytes[HEADERS + 4..HEADERS + 6] == [0, 0], "{:?}", fragment.bytes);
        }
        Ok(())
    });
}

#[test]
fn g4_what_routers_may_fragment_with_offloads_on() {
    what_routers_may_fragment(true);
}

#[test]
fn g4_what_routers_may_fragment_with_offloads_off() {
    what_routers_may_fragment(false);
}

/// Segments of 1,472 bytes fill the container's link, and not the uplink.
fn super_packets_that_routers_may_fragment(offloads: bool) {
    case::run(|case| {
        const SEGMENT: usize = 1_472;
        const UDP_SEGMENT: libc::c_int = 103;
        let lab = Lab::with(case, Options { offloads, ..Options::default() })?;
        let talk = Talk::start(&lab)?;
        let server = &talk.server;
        server.set_option(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, NEVER_DISCOVER)?;
        server.set_option(libc::IPPROTO_UDP, UDP_SEGMENT, SEGMENT as libc::c_int)?;
        let outside = Capture::start(lab.net.client(), "eth0")?;
        for (count, missing) in [(1, 0), (2, 100), (20, 100), (40, 1_400)] {
            let sent = content(count * SEGMENT - missing);
            server.reply(talk.alias, &sent)?;
            // In whatever order: one that is no fragment overtakes those that are.
            let mut missing: Vec<&[u8]> = sent.chunks(SEGMENT).collect();
            while !missing.is_empty() {
                let segment =
                    talk.next().with_context(|| format!("{} of {count}", missing.len()))?;
                let at = missing.iter().position(|other| **other == segment[..]);
                missing.remove(at.with_context(|| format!("{} bytes, or others", segment.len()))?);
            }
        }
        // The last one fits, and is no fragment (rule G5).
        let last = |frame: &Frame| !frame.outgoing && frame.bytes.len() == HEADERS + 8 + 72;
        let last = outside.wait_for(LIMIT, last).context("the last segment")?;
        assert_eq!(last.bytes[20], 17, "a Fragment header");
        Ok(())
    });
}

#[test]
fn g4_super_packets_that_routers_may_fragment_with_offloads_on() {
    super_packets_that_routers_may_fragment(true);
}

#[test]
fn g4_super_packets_that_routers_may_fragment_with_offloads_off() {
    super_packets_that_routers_may_fragment(false);
}

/// TCP whose segments may be fragmented, to an uplink that becomes narrower than what both sides agreed on.
fn tcp_over_an_uplink_that_narrows(discover: bool) {
    case::run(|case| {
        let mut lab = Lab::simple(case)?;
        if !discover {
            lab.net.container().sysctl("ipv4/ip_no_pmtu_disc", "1")?;
        }
        let _server = tcp::Server::start(lab.net.container(), (ANY, 80), bulk::serve)?;
        lab.daemon.add("8080", TARGET)?;
        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        bulk::exchange(&mut tcp::connect(lab.net.client(), host(8080))?, MIB)?;
        lab.daemon.alter(|| lab.net.host.ip("link set up0 mtu 1280"))?;
        lab.net.client().ip("link set eth0 mtu 1280")?;
        let seen = || {
            let status = lab.daemon.json(&["status"]);
            status.is_ok_and(|status| status["uplinks"][0]["mtu"] == 1_280)
        };
        ensure!(shell::wait_until(LIMIT, seen), "the daemon doesn't see the new MTU");
        let start = Instant::now();
        bulk::exchange(&mut stream, 4 * MIB)?;
        ensure!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
        Ok(())
    });
}

#[test]
fn g3_tcp_over_an_uplink_that_narrows() {
    tcp_over_an_uplink_that_narrows(true);
}

#[test]
fn g4_tcp_that_may_be_fragmented_over_an_uplink_that_narrows() {
    tcp_over_an_uplink_that_narrows(false);
}

/// A host that forwards reports its groups on every interface: nothing of ours is lost by that.
#[test]
fn g4_a_forwarding_host_loses_nothing_on_the_slow_lane() {
    case::run(|case| {
        let mut lab = Lab::simple(case)?;
        lab.daemon.alter(|| lab.net.host.sysctl("ipv6/conf/all/forwarding", "1"))?;
        let talk = Talk::start(&lab)?;
        talk.server.set_option(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, NEVER_DISCOVER)?;
        talk.reply(1_472)?;
        // Longer than the kernel waits before its first reports.
        std::thread::sleep(Duration::from_millis(1_500));
        talk.reply(1_472)?;
        assert_eq!(drops(&lab.daemon)?, [].into());
        Ok(())
    });
}
