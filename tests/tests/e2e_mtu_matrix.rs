//! Every combination of MTUs on the uplink, between the routers and on the container's link: TCP
//! neither stalls nor repeats itself, datagrams of every length arrive, and both ends learn what
//! the path carries, no less and no more.

use std::collections::BTreeSet;
use std::fmt;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, HashMap, Map, MapData};
use publisher_common::layout::{self, VERSION, names};
use publisher_tests::case;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::netns::Netns;
use publisher_tests::shell;
use publisher_tests::topology::{HOST, Options, host};
use publisher_tests::traffic::bulk::{self, MIB};
use publisher_tests::traffic::{tcp, udp};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

const ANY: [u8; 4] = [0, 0, 0, 0];
/// The smallest that IPv6 has, a tunnel's, Ethernet's, and jumbo frames.
const MTUS: [u32; 4] = [1_280, 1_400, 1_500, 9_000];
/// The client's own link carries everything: it never knows beforehand.
const CLIENT: u32 = 9_000;
/// What IPv6 takes more than IPv4.
const GROWTH: u32 = 20;
/// Bytes that TCP carries in each direction.
const BULK: u64 = 2 * MIB;
/// One segment in so many may be sent again. Whoever learns of a narrow link loses the first window:
/// 10 segments, of at most 9,000 bytes, which are 4.3% of the bytes and of the segments that carry
/// them in the end. Measured are 0, or 12 to 54 where something is learned, of 1,440 and more.
const SENT_AGAIN: u64 = 20;
/// A segment that is lost for good costs 0.2 s, then 0.4 s, 0.8 s and so on: a path that swallows
/// segments takes longer than this, one that loses a single one doesn't.
const NO_STALL: Duration = Duration::from_secs(3);
/// An answer that takes longer was lost on the way there or back.
const LOST: Duration = Duration::from_millis(150);
/// The daemon follows a changed MTU within this.
const SOON: Duration = Duration::from_secs(2);

/// MTUs in bytes.
#[derive(Clone, Copy)]
struct Path {
    narrow: u32,
    uplink: u32,
    container: u32,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { narrow, uplink, container } = self;
        write!(f, "client 9000, routers {narrow}, uplink {uplink}, container {container}")
    }
}

impl Path {
    fn all() -> impl Iterator<Item = Self> {
        MTUS.into_iter().flat_map(|uplink| {
            MTUS.into_iter().flat_map(move |narrow| {
                MTUS.into_iter().map(move |container| Self { narrow, uplink, container })
            })
        })
    }

    /// What the container meets on its way to the client, in IPv4's terms.
    fn to_client(self) -> [u32; 3] {
        [self.container, self.uplink - GROWTH, self.narrow - GROWTH]
    }

    /// What the client meets on its way to the container.
    fn to_container(self) -> [u32; 4] {
        [CLIENT, self.narrow, self.uplink, self.container + GROWTH]
    }

    /// Lengths of datagrams: the shortest, those around each link's limit, the longest.
    fn lengths(self) -> BTreeSet<usize> {
        let headers = 20 + 8;
        let limits = self.to_client().map(|limit| (limit - headers) as usize);
        let around = limits.into_iter().flat_map(|limit| [limit - 1, limit, limit + 1]);
        around.chain([1, 65_507]).collect()
    }
}

/// How often somebody is told that a packet doesn't fit: at each link that is narrower than all
/// before it.
fn steps(links: &[u32]) -> usize {
    (1..links.len()).filter(|&at| links[..at].iter().all(|before| links[at] < *before)).count()
}

/// Gives the links these MTUs, makes both ends forget what they learned of others, and waits until
/// the datapath reckons with them.
fn set(lab: &mut Lab<'_>, path: &Path) -> Result<()> {
    let Path { narrow, uplink, container } = path;
    let Lab { daemon, net } = lab;
    daemon.alter(|| {
        let last = &net.containers[0];
        for (ns, link, mtu) in [
            (&net.routers[0], "narrow", narrow),
            (&net.routers[1], "narrow", narrow),
            (&net.routers[1], "edge", uplink),
            (&net.host, "up0", uplink),
            (&net.host, last.veth.as_str(), container),
            (&net.host, "br0", container),
            (&last.ns, "eth0", container),
        ] {
            ns.ip(&format!("link set {link} mtu {mtu}"))?;
        }
        net.client().ip("-6 route flush cache")?;
        last.ns.ip("route flush cache")
    })?;
    let mut found = None;
    let followed = shell::wait_until(SOON, || {
        found = known_mtus(lab).ok();
        found == Some((*uplink, *container))
    });
    ensure!(followed, "the daemon doesn't follow: {found:?}");
    Ok(())
}

/// The MTUs of uplink and container link that the datapath reckons with.
fn known_mtus(lab: &Lab<'_>) -> Result<(u32, u32)> {
    let pins = lab.daemon.pin_dir().join(format!("v{VERSION}/maps"));
    let uplinks = Map::HashMap(MapData::from_pin(pins.join(names::UPLINKS))?);
    let uplinks: HashMap<_, u32, layout::Uplink> = uplinks.try_into()?;
    let links = Map::Array(MapData::from_pin(pins.join(names::LINKS))?);
    let links: Array<_, layout::Link> = links.try_into()?;
    let target = lab.net.containers[0].address.octets();
    let link = links.iter().flatten().find(|link| link.target == target);
    let uplink = uplinks.iter().flatten().next().context("no uplink")?.1;
    Ok((uplink.mtu, link.context("no link")?.mtu))
}

/// TCP segments that were sent, and sent again.
#[derive(Clone, Copy, Debug)]
struct Segments {
    sent: u64,
    again: u64,
}

impl Segments {
    fn of(ns: &Netns) -> Result<Self> {
        let text = ns.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
        let value = |name: &str| -> Result<u64> {
            let mut pairs = names.split(' ').zip(values.split(' '));
            let found = pairs.find(|(candidate, _)| *candidate == name);
            Ok(found.with_context(|| format!("no {name}"))?.1.parse()?)
        };
        Ok(Self { sent: value("OutSegs")?, again: value("RetransSegs")? })
    }

    fn since(self, before: Self) -> Self {
        Self { sent: self.sent - before.sent, again: self.again - before.again }
    }
}

fn bulk_both_ways(lab: &Lab<'_>) -> Result<()> {
    let ends = [lab.net.client(), lab.net.container()];
    let before = [Segments::of(ends[0])?, Segments::of(ends[1])?];
    let start = Instant::now();
    bulk::exchange(&mut tcp::connect(lab.net.client(), host(8080))?, BULK)?;
    let time = start.elapsed();
    ensure!(time < NO_STALL, "TCP took {time:?}");
    for (ns, before) in ends.into_iter().zip(before) {
        let Segments { sent, again } = Segments::of(ns)?.since(before);
        ensure!(again * SENT_AGAIN <= sent, "{} sent {again} of {sent} again", ns.name());
    }
    Ok(())
}

/// Sends a datagram until it comes back; says how often it didn't.
fn echo(socket: &UdpSocket, length: usize, number: u8) -> Result<usize> {
    let sent: Vec<u8> = (0..length).map(|at| (at / 251) as u8 ^ at as u8 ^ number).collect();
    let mut buffer = vec![0; 65_536];
    for lost in 0..5 {
        // The socket may have an error to tell: that the last one was too big.
        socket.send(&sent).or_else(|_| socket.send(&sent))?;
        let start = Instant::now();
        while start.elapsed() < LOST {
            if socket.recv(&mut buffer).is_ok_and(|got| buffer[..got] == sent) {
                return Ok(lost);
            }
        }
    }
    bail!("{length} bytes never came back")
}

fn datagrams(lab: &Lab<'_>, path: &Path) -> Result<()> {
    let socket = udp::client(lab.net.client(), 0)?;
    socket.set_read_timeout(Some(LOST))?;
    socket.connect(host(8080))?;
    let mut lost = 0;
    for (number, length) in path.lengths().into_iter().enumerate() {
        lost += echo(&socket, length, number as u8)?;
    }
    let most = steps(&path.to_container()) + steps(&path.to_client());
    ensure!(lost <= most, "{lost} datagrams were lost, {most} may be");
    Ok(())
}

/// What `route` says of the path's MTU.
fn learned(route: &str) -> Option<u32> {
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
    words.nth(1)?.parse().ok()
}

fn both_have_learned(lab: &Lab<'_>, server: &tcp::Server, path: &Path) -> Result<()> {
    let expected = |links: &[u32]| links.iter().min().copied().filter(|mtu| *mtu < links[0]);
    let route = lab.net.client().ip(&format!("-6 route get {HOST}"))?;
    ensure!(learned(&route) == expected(&path.to_container()), "the client knows {route}");
    let alias = server.last_peer()?.ip();
    let route = lab.net.container().ip(&format!("route get {alias}"))?;
    ensure!(learned(&route) == expected(&path.to_client()), "the container knows {route}");
    Ok(())
}

/// Keeps this thread and those that it starts on one CPU. A sender that moves to another one
/// overtakes itself in the queues of the virtual links, and TCP takes that for a loss.
fn on_one_cpu() -> Result<()> {
    let mut one = CpuSet::new();
    one.set(sched_getcpu());
    sched_setaffinity(None, &one).context("stay on one CPU")
}

fn every_combination(offloads: bool) {
    case::run(|case| {
        on_one_cpu()?;
        let mut lab =
            Lab::with(case, Options { narrow: Some(9_000), offloads, ..Options::default() })?;
        lab.net.client().ip(&format!("link set eth0 mtu {CLIENT}"))?;
        lab.net.routers[0].ip(&format!("link set edge mtu {CLIENT}"))?;
        let server = tcp::Server::start(lab.net.container(), (ANY, 80), bulk::serve)?;
        let _echo = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.add("8080/udp", TARGET)?;
        for path in Path::all() {
            set(&mut lab, &path)
                .and_then(|()| bulk_both_ways(&lab))
                .and_then(|()| datagrams(&lab, &path))
                .and_then(|()| both_have_learned(&lab, &server, &path))
                .with_context(|| path.to_string())?;
        }
        Ok(())
    });
}

#[test]
fn h9_g3_i3_s19_every_combination_of_mtus_with_offloads_on() {
    every_combination(true);
}

#[test]
fn h9_g3_i3_s19_every_combination_of_mtus_with_offloads_off() {
    every_combination(false);
}
