//! What is ours and can't be translated is dropped under a name, and counted.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use publisher_tests::case;
use publisher_tests::drops::{counts_one, drops};
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::netns::Netns;
use publisher_tests::topology::{HOST, Options, client_address, host};
use publisher_tests::traffic::frames::Ends;
use publisher_tests::traffic::raw::{self, Capture};
use publisher_tests::traffic::udp;

const ANY: [u8; 4] = [0, 0, 0, 0];

/// Injects `frame` and waits until exactly the counter of `reason` has gone up by one.
fn counts(lab: &Lab, ns: &Netns, frame: &[u8], reason: &str) -> Result<()> {
    counts_one(&lab.daemon, reason, || raw::inject(ns, "eth0", frame))
}

#[test]
fn from_clients() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.add("8080/udp", TARGET)?;
        lab.daemon.add("8081/udp", "172.17.0.99:80")?;
        let client = lab.net.client();
        let ends = Ends {
            from_mac: client.mac("eth0")?,
            to_mac: lab.net.host.mac("up0")?,
            from: client_address(0),
            to: HOST,
        };
        let inside = Capture::start(lab.net.container(), "eth0")?;
        let whole = ends.udp(5000, 8080, b"never seen inside");

        let extension =
            |number: u8, header: &[u8]| ends.protocol(number, &[header, &whole[54..]].concat());
        let authentication = [17, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
        counts(&lab, client, &extension(51, &authentication), "extension_header")?;
        counts(&lab, client, &extension(43, &[17, 0, 4, 1, 0, 0, 0, 0]), "routing_header")?;
        let [first, _] = ends.udp_fragments(5000, 8080, &[0x11; 900]);
        // Not the last one, and its length isn't a multiple of 8.
        let odd = ends.protocol(44, &first[54..first.len() - 1]);
        counts(&lab, client, &odd, "fragment")?;

        let mut dying = whole.clone();
        dying[21] = 1;
        counts(&lab, client, &dying, "hop_limit")?;
        let mut unsummed = whole.clone();
        unsummed[60..62].fill(0);
        counts(&lab, client, &unsummed, "udp_zero_checksum")?;
        for from in ["ff02::1", "::", "::1", "::ffff:192.0.2.1", "2001:db8:1::2"] {
            let forged = Ends { from: from.parse()?, ..ends };
            let frame = forged.udp(5000, 8080, b"never seen inside");
            counts(&lab, client, &frame, "source").with_context(|| from.to_owned())?;
        }
        let stray = ends.tcp(5000, 8080, false, b"never seen inside");
        counts(&lab, client, &stray, "no_session")?;
        let mut both = ends.tcp(5000, 8080, true, b"");
        both[67] |= 1; // FIN beside SYN
        counts(&lab, client, &both, "tcp_flags")?;
        let mut short = ends.tcp(5001, 8080, true, b"");
        short[66] = 0xf0; // a header of 60 bytes in 20
        counts(&lab, client, &short, "truncated")?;
        counts(&lab, client, &ends.udp(5000, 8081, b"nobody"), "target_down")?;
        ensure!(!inside.frames().iter().any(|f| !f.outgoing && f.contains(b"never seen inside")));
        // What has no port isn't known to be ours: it passes, uncounted.
        let before = drops(&lab.daemon)?;
        let [_, second] = ends.udp_fragments(5000, 8080, &[0x11; 900]);
        raw::inject(client, "eth0", &second)?;
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(drops(&lab.daemon)?, before);
        Ok(())
    });
}

#[test]
fn from_containers() {
    case::run(|case| {
        let lab = Lab::with(case, Options { containers: 2, ..Options::default() })?;
        let server = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let socket = udp::client(lab.net.client(), 5000)?;
        for content in [&b"one"[..], b"two"] {
            udp::ask(&socket, host(8080), content)?;
        }
        let SocketAddr::V4(alias) = server.seen()[0].0 else { anyhow::bail!("IPv4") };
        let outside = Capture::start(lab.net.client(), "eth0")?;
        let container = lab.net.container();
        let macs = [lab.net.host.mac("br0")?, container.mac("eth0")?];
        let reply = |port: u16| {
            let content = udp_content(80, port, b"never seen outside");
            ipv4(macs, alias.ip(), 17, [0x45, 0x40], &content)
        };
        counts(&lab, container, &reply(alias.port() ^ 1), "reply_no_session")?;
        let sctp = ipv4(macs, alias.ip(), 132, [0x45, 0x40], &[0; 20]);
        counts(&lab, container, &sctp, "reply_protocol")?;
        let content = udp_content(80, alias.port(), b"never seen outside");
        let fragment = ipv4(macs, alias.ip(), 17, [0x45, 0x20], &content[..24]);
        counts(&lab, container, &fragment, "udp_zero_checksum")?;
        let route = [&[131, 7, 4, 10, 0, 0, 1, 0], content.as_slice()].concat();
        let route = ipv4(macs, alias.ip(), 17, [0x47, 0x40], &route);
        counts(&lab, container, &route, "ipv4_options")?;
        let mut wrong = reply(alias.port());
        wrong[24] ^= 1;
        counts(&lab, container, &wrong, "ipv4_checksum")?;
        let mut dying = reply(alias.port());
        dying[22] = 1;
        sum_header(&mut dying);
        counts(&lab, container, &dying, "hop_limit")?;
        // Precedence cutoff about the session: a kind of error that IPv6 doesn't have.
        let about = &ipv4(macs, alias.ip(), 17, [0x45, 0x40], &content)[14..42];
        let mut about = about.to_vec();
        let (from, to) = (about[12..16].to_vec(), about[16..20].to_vec());
        about[12..16].copy_from_slice(&to);
        about[16..20].copy_from_slice(&from);
        about[20..24].copy_from_slice(&[alias.port().to_be_bytes(), 80u16.to_be_bytes()].concat());
        let icmp = |code: u8, about: &[u8]| {
            let mut error = [&[3, code, 0, 0, 0, 0, 0, 0], about].concat();
            let sum = ipv4_checksum(&error);
            error[2..4].copy_from_slice(&sum.to_be_bytes());
            error
        };
        let error = ipv4(macs, alias.ip(), 1, [0x45, 0x40], &icmp(14, &about));
        counts(&lab, container, &error, "icmp_error")?;
        let mut wrong = icmp(3, &about);
        wrong[2] ^= 1;
        let error = ipv4(macs, alias.ip(), 1, [0x45, 0x40], &wrong);
        counts(&lab, container, &error, "icmp_checksum")?;
        let mut fragment = about.clone();
        fragment[6] = 0x20; // more fragments
        let error = ipv4(macs, alias.ip(), 1, [0x45, 0x40], &icmp(3, &fragment));
        counts(&lab, container, &error, "icmp_fragment")?;
        ensure!(!outside.frames().iter().any(|f| f.contains(b"never seen outside")));
        // The session has lived through all of it.
        udp::ask(&socket, host(8080), b"three")?;
        Ok(())
    });
}

#[test]
fn a_forged_reply_is_counted() {
    case::run(|case| {
        let lab = Lab::with(case, Options { containers: 2, ..Options::default() })?;
        let server = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        // Programs sit where targets are: the neighbour is one, too.
        lab.daemon.add("8081/udp", "172.17.0.3:80")?;
        let socket = udp::client(lab.net.client(), 5000)?;
        udp::ask(&socket, host(8080), b"one")?;
        let SocketAddr::V4(alias) = server.seen()[0].0 else { anyhow::bail!("IPv4") };
        let neighbour = &lab.net.containers[1].ns;
        let macs = [lab.net.host.mac("br0")?, neighbour.mac("eth0")?];
        let content = udp_content(80, alias.port(), b"forged");
        let frame = ipv4(macs, alias.ip(), 17, [0x45, 0x40], &content);
        counts(&lab, neighbour, &frame, "forged_reply")?;
        ensure!(udp::silent(&socket, Duration::from_millis(200))?);
        Ok(())
    });
}

/// A UDP header without a checksum, and its payload.
fn udp_content(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let header = [from, to, length, 0].map(u16::to_be_bytes).concat();
    [header.as_slice(), payload].concat()
}

/// An IPv4 packet of container 0 in an Ethernet frame. `form` is the byte of version and header
/// length, and the first byte of flags and fragment offset.
fn ipv4(macs: [[u8; 6]; 2], to: &Ipv4Addr, protocol: u8, form: [u8; 2], content: &[u8]) -> Vec<u8> {
    let mut frame = macs.concat();
    frame.extend([0x08, 0x00, form[0], 0]);
    frame.extend((20 + content.len() as u16).to_be_bytes());
    frame.extend([0x12, 0x34, form[1], 0, 64, protocol, 0, 0, 172, 17, 0, 2]);
    frame.extend(to.octets());
    frame.extend(content);
    sum_header(&mut frame);
    frame
}

fn sum_header(frame: &mut [u8]) {
    let end = 14 + usize::from(frame[14] & 0xf) * 4;
    frame[24..26].fill(0);
    let sum = ipv4_checksum(&frame[14..end]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet checksum (RFC 1071).
fn ipv4_checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]))
    });
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded + (folded >> 16)) as u16)
}
