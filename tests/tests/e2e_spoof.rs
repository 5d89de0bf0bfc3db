//! Packets that say they come from somebody else, and packets to aliases that are nobody's: they
//! reach nothing, change no session, and are counted.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use etherparse::PacketBuilder;
use publisher_tests::case;
use publisher_tests::drops::counts_one;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::shell;
use publisher_tests::topology::{HOST, HOST_2, Options, host};
use publisher_tests::traffic::frames::Ends;
use publisher_tests::traffic::raw::{Capture, Frame, Injector};
use publisher_tests::traffic::{tcp, udp};
use serde_json::Value;

const ANY: [u8; 4] = [0, 0, 0, 0];
/// In every spoofed packet that carries data.
const MARK: &[u8] = b"this must arrive nowhere";
/// The client's port, of TCP and of UDP.
const PORT: u16 = 5_000;

/// One client with an established UDP session and an established connection to container 0, and a
/// neighbour container that is published, too.
struct Scene<'a> {
    lab: Lab<'a>,
    udp: UdpSocket,
    tcp: TcpStream,
    /// Who the client is to the container, by UDP and by TCP.
    aliases: [SocketAddrV4; 2],
    /// Kept for their threads.
    _servers: (udp::Server, tcp::Server),
}

fn in_scene(body: impl FnOnce(&mut Scene<'_>) -> Result<()>) {
    case::run(|case| {
        let lab = Lab::with(case, Options { containers: 2, ..Options::default() })?;
        let datagrams = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        let streams = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.add("8080/udp", TARGET)?;
        lab.daemon.add("8081/udp", "172.17.0.3:80")?;
        let udp = udp::client(lab.net.client(), PORT)?;
        let from = tcp::From { port: PORT, ..tcp::From::default() };
        let limit = Duration::from_secs(1);
        let outcome = tcp::try_connect_from(lab.net.client(), from, host(8080), limit);
        let mut tcp = outcome.connected()?;
        for content in ["one", "two"] {
            udp::ask(&udp, host(8080), content.as_bytes())?;
            tcp::ask(&mut tcp, content)?;
        }
        let SocketAddr::V4(by_udp) = datagrams.wait_for(b"one")? else { bail!("IPv4") };
        let SocketAddr::V4(by_tcp) = streams.last_peer()? else { bail!("IPv4") };
        let aliases = [by_udp, by_tcp];
        let mut scene = Scene { lab, udp, tcp, aliases, _servers: (datagrams, streams) };
        let before = scene.quiet_sessions()?;
        ensure!(before.len() == 2, "two sessions: {before:?}");
        body(&mut scene)?;
        assert_eq!(scene.sessions()?, before, "a session has changed");
        let answer = udp::ask(&scene.udp, host(8080), b"three")?;
        ensure!(answer.0 == b"three", "the client hears {answer:?}");
        ensure!(tcp::ask(&mut scene.tcp, "three")? == "three");
        Ok(())
    });
}

impl Scene<'_> {
    /// All sessions, without what changes by itself.
    fn sessions(&self) -> Result<Vec<Value>> {
        let mut sessions = self.lab.daemon.entries(&["sessions"])?;
        for session in &mut sessions {
            let fields = session.as_object_mut().context("a session")?;
            ensure!(
                fields.remove("age_seconds").is_some() && fields.remove("idle_seconds").is_some()
            );
        }
        Ok(sessions)
    }

    /// The sessions once nothing goes on in them any more: TCP acknowledges late.
    fn quiet_sessions(&self) -> Result<Vec<Value>> {
        let mut last = (self.sessions()?, Instant::now());
        let quiet = shell::wait_until(Duration::from_secs(3), || {
            if let Some(now) = self.sessions().ok().filter(|now| *now != last.0) {
                last = (now, Instant::now());
            }
            last.1.elapsed() > Duration::from_millis(300)
        });
        ensure!(quiet, "something goes on in {:?}", last.0);
        Ok(last.0)
    }

    /// Frames from the client's side that say they are from `from`.
    fn ends(&self, from: Ipv6Addr) -> Result<Ends> {
        Ok(Ends {
            from_mac: self.lab.net.client().mac("eth0")?,
            to_mac: self.lab.net.host.mac("up0")?,
            from,
            to: HOST,
        })
    }

    /// A sender in container `index`, and what stands before every frame that it sends to the
    /// bridge with these addresses.
    fn container(&self, index: usize) -> Result<(Injector, Builder)> {
        let ns = &self.lab.net.containers[index].ns;
        let macs = [ns.mac("eth0")?, self.lab.net.host.mac("br0")?];
        Ok((Injector::open(ns, "eth0")?, Builder(macs)))
    }
}

/// Builds frames of IPv4.
struct Builder([[u8; 6]; 2]);

impl Builder {
    fn ipv4(
        &self,
        from: Ipv4Addr,
        to: Ipv4Addr,
    ) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        let [source, destination] = self.0;
        PacketBuilder::ethernet2(source, destination).ipv4(from.octets(), to.octets(), 64)
    }

    fn udp(&self, from: SocketAddrV4, to: SocketAddrV4) -> Result<Vec<u8>> {
        let mut frame = Vec::new();
        self.ipv4(*from.ip(), *to.ip()).udp(from.port(), to.port()).write(&mut frame, MARK)?;
        Ok(frame)
    }
}

fn at(address: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(address, port)
}

fn target() -> SocketAddrV4 {
    at(Ipv4Addr::new(172, 17, 0, 2), 80)
}

/// Nothing of what was spoofed came here.
fn saw_nothing(capture: &Capture) -> Result<()> {
    let frames = capture.frames();
    let spoofed = |frame: &&Frame| !frame.outgoing && frame.contains(MARK);
    ensure!(!frames.iter().any(|frame| spoofed(&frame)), "a spoofed packet arrived");
    Ok(())
}

#[test]
fn s16_h12_sources_that_no_client_has() {
    in_scene(|scene| {
        let inside = Capture::start(scene.lab.net.container(), "eth0")?;
        let sender = Injector::open(scene.lab.net.client(), "eth0")?;
        let alias = scene.aliases[0].ip();
        let mapped = |address: Ipv4Addr| address.to_ipv6_mapped();
        let sources = [
            HOST,
            HOST_2,
            scene.lab.net.host.link_local("up0")?,
            Ipv6Addr::UNSPECIFIED,
            Ipv6Addr::LOCALHOST,
            "ff02::1".parse()?,
            "ff0e::80".parse()?,
            mapped(Ipv4Addr::new(192, 0, 2, 1)),
            mapped(*target().ip()),
            mapped(*alias),
            "::192.0.2.1".parse()?,
        ];
        for from in sources {
            let ends = scene.ends(from)?;
            let datagram = ends.udp(PORT, 8080, MARK);
            let [first, _] = ends.udp_fragments(PORT, 8080, &MARK.repeat(20));
            let options = [&[17, 0, 1, 4, 0, 0, 0, 0], &datagram[54..]].concat();
            for (reason, what, frame) in [
                ("source", "a datagram", &datagram),
                ("source", "a SYN", &ends.tcp(PORT, 8080, true, b"")),
                ("source", "a first fragment", &first),
                ("source", "a datagram behind options", &ends.protocol(0, &options)),
                ("no_session", "data of a connection", &ends.tcp(PORT, 8080, false, MARK)),
            ] {
                counts_one(&scene.lab.daemon, reason, || sender.send(frame))
                    .with_context(|| format!("{what} from {from}"))?;
            }
        }
        saw_nothing(&inside)
    });
}

#[test]
fn s16_what_a_container_sends_to_aliases_without_a_session() {
    in_scene(|scene| {
        let outside = Capture::start(scene.lab.net.client(), "eth0")?;
        let inside = Capture::start(scene.lab.net.container(), "eth0")?;
        let (sender, builder) = scene.container(0)?;
        let [alias, _] = scene.aliases;
        let strangers = ["198.18.0.0", "198.18.0.1", "198.19.255.254", "198.19.255.255"];
        let mut nobody = vec![at(*alias.ip(), PORT ^ 1), at(*alias.ip(), 0)];
        for stranger in strangers {
            nobody.push(at(stranger.parse()?, PORT));
        }
        for to in nobody {
            let tcp = || builder.ipv4(*target().ip(), *to.ip()).tcp(80, to.port(), 1, 64_000);
            let [mut syn, mut data] = [Vec::new(), Vec::new()];
            tcp().syn().write(&mut syn, b"")?;
            tcp().ack(1).write(&mut data, MARK)?;
            for (what, frame) in
                [("a datagram", builder.udp(target(), to)?), ("a SYN", syn), ("data", data)]
            {
                counts_one(&scene.lab.daemon, "reply_no_session", || sender.send(&frame))
                    .with_context(|| format!("{what} to {to}"))?;
            }
        }
        saw_nothing(&outside)?;
        // Nobody says so, either: to the container an alias is a host that doesn't answer.
        let answers = inside.frames().into_iter().filter(|frame| !frame.outgoing);
        assert_eq!(answers.filter(|frame| frame.bytes[12..14] == [8, 0]).count(), 0);
        Ok(())
    });
}

#[test]
fn s16_sources_out_of_the_pool_reach_no_client() {
    in_scene(|scene| {
        let outside = Capture::start(scene.lab.net.client(), "eth0")?;
        let (sender, builder) = scene.container(0)?;
        let [alias, _] = scene.aliases;
        for from in [alias, at(*alias.ip(), 80), at(Ipv4Addr::new(198, 18, 0, 9), 80)] {
            let frame = builder.udp(from, alias)?;
            counts_one(&scene.lab.daemon, "reply_no_session", || sender.send(&frame))
                .with_context(|| format!("from {from}"))?;
        }
        saw_nothing(&outside)
    });
}

/// What a neighbour says in the container's name would be believed by the client.
#[test]
fn s16_a_neighbour_speaks_for_nobody() {
    in_scene(|scene| {
        let outside = Capture::start(scene.lab.net.client(), "eth0")?;
        let (sender, builder) = scene.container(1)?;
        let [by_udp, by_tcp] = scene.aliases;
        let tcp = || builder.ipv4(*target().ip(), *by_tcp.ip()).tcp(80, by_tcp.port(), 1, 64_000);
        let [mut reset, mut end, mut data] = [Vec::new(), Vec::new(), Vec::new()];
        tcp().rst().write(&mut reset, b"")?;
        tcp().fin().ack(1).write(&mut end, b"")?;
        tcp().ack(1).write(&mut data, MARK)?;
        let datagram = builder.udp(target(), by_udp)?;
        for (what, frame) in
            [("a RST", reset), ("a FIN", end), ("data", data), ("a datagram", datagram)]
        {
            counts_one(&scene.lab.daemon, "forged_reply", || sender.send(&frame))
                .with_context(|| what.to_owned())?;
        }
        saw_nothing(&outside)
    });
}
