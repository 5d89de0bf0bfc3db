//! From where a published port answers, and by which way: every kind of client, TCP and UDP, with the kernel
//! path and with the proxy alone; on a host without Docker, and beside engines with and without their proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use publisher_tests::case::{self, Case};
use publisher_tests::daemon::Daemon;
use publisher_tests::docker::{Engine, Version};
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::netns::Netns;
use publisher_tests::shell;
use publisher_tests::topology::{HOST, Options, Topology};
use publisher_tests::traffic::{tcp, udp};

const ANY: [u8; 4] = [0, 0, 0, 0];
/// The bridges' own addresses, which containers know the host by.
const BRIDGE: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
const OTHER_BRIDGE: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);

/// Who runs the containers.
#[derive(Debug, Clone, Copy)]
enum Host {
    WithoutDocker,
    /// With these flags of `dockerd`.
    Docker(&'static [&'static str]),
}

/// Containers: the target, its neighbour, and one in another network.
struct Containers {
    all: [Netns; 3],
    /// Ends after the daemon.
    _engine: Option<Engine>,
}

impl Containers {
    fn start(net: &mut Topology, host: Host) -> Result<Self> {
        let Host::Docker(flags) = host else {
            let other = net.add_other_network()?;
            let (second, first) = (net.containers.remove(1), net.containers.remove(0));
            return Ok(Self { all: [first.ns, second.ns, other], _engine: None });
        };
        net.host.ip("link del br0")?;
        net.containers.clear();
        let engine = Engine::start(Version::V28_5, &net.host, flags)?;
        engine.docker(&["network", "create", "--subnet", "172.18.0.0/16", "other"])?;
        let run = |name: &str, flags: &[&str]| {
            engine.run(name, flags, &["sleep", "1000"])?;
            Netns::of_process(engine.pid(name)?)
        };
        let all =
            [run("target", &[])?, run("second", &[])?, run("third", &["--network", "other"])?];
        Ok(Self { all, _engine: Some(engine) })
    }
}

/// A client, what it asks, and whether the kernel path takes its packets.
struct Client<'a> {
    name: &'static str,
    ns: &'a Netns,
    asks: IpAddr,
    scope: u32,
    by_kernel: bool,
}

fn clients<'a>(net: &'a Topology, containers: &'a [Netns]) -> Result<Vec<Client<'a>>> {
    let (client, host) = (net.client(), &*net.host);
    let link_local = IpAddr::V6(host.link_local("up0")?);
    let new = |name, ns, asks, scope, by_kernel| Client { name, ns, asks, scope, by_kernel };
    let (local, mine) = (IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V6(HOST));
    let mut all = vec![
        new("remote, global", client, mine, 0, true),
        new("remote, link-local", client, link_local, client.ifindex("eth0")?, true),
        new("host to ::1", host, local, 0, true),
        new("host to its global address", host, mine, 0, true),
        new("host to its link-local address", host, link_local, host.ifindex("up0")?, true),
        new("host to 127.0.0.1", host, Ipv4Addr::LOCALHOST.into(), 0, false),
    ];
    let names = ["the same container", "the same network", "another network"];
    for (name, (ns, asks)) in
        names.into_iter().zip(containers.iter().zip([BRIDGE, BRIDGE, OTHER_BRIDGE]))
    {
        all.push(new(name, ns, asks.into(), 0, false));
    }
    Ok(all)
}

impl Client<'_> {
    fn to(&self, port: u16) -> SocketAddr {
        match self.asks {
            IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, self.scope).into(),
            IpAddr::V4(address) => (address, port).into(),
        }
    }

    /// Asks over `protocol`, and says by which way the answer came.
    fn way(&self, daemon: &Daemon<'_>, protocol: &str) -> Result<String> {
        let to = self.to(8080);
        let port = if protocol == "tcp" {
            let mut stream = tcp::connect(self.ns, to)?;
            let answer = tcp::ask(&mut stream, self.name)?;
            ensure!(answer == self.name, "{answer:?}");
            // Asked before the connection ends.
            return self.path_of(daemon, protocol, stream.local_addr()?.port());
        } else {
            let bind: SocketAddr =
                if to.is_ipv6() { (Ipv6Addr::UNSPECIFIED, 0).into() } else { (ANY, 0).into() };
            let socket = self.ns.run(|| std::net::UdpSocket::bind(bind))?;
            socket.set_read_timeout(Some(udp::PATIENCE))?;
            let (answer, from) = udp::ask(&socket, to, self.name.as_bytes())?;
            ensure!(answer == self.name.as_bytes());
            ensure!(from == to, "the answer came from {from}, not from {to}");
            socket.local_addr()?.port()
        };
        self.path_of(daemon, protocol, port)
    }

    /// The way of the session from this port.
    fn path_of(&self, daemon: &Daemon<'_>, protocol: &str, port: u16) -> Result<String> {
        let sessions = daemon.entries(&["sessions", &format!("proto={protocol}")])?;
        let asked = match self.asks {
            IpAddr::V6(address) => address,
            IpAddr::V4(address) => address.to_ipv6_mapped(),
        };
        let is_ours = |it: &&serde_json::Value| {
            it["client_port"] == port && it["host"] == asked.to_string().as_str()
        };
        let found: Vec<_> = sessions.iter().filter(is_ours).collect();
        ensure!(found.len() == 1, "sessions of port {port}: {found:?}");
        Ok(found[0]["path"].as_str().context("path")?.to_owned())
    }
}

/// Waits until all publications go by `path`: the veth of a container is found within moments.
fn goes_by(daemon: &Daemon<'_>, path: &str) -> Result<()> {
    let paths = || -> Result<Vec<_>> {
        Ok(daemon.entries(&["ls"])?.into_iter().map(|it| it["path"].clone()).collect())
    };
    let there = || paths().is_ok_and(|all| all.iter().all(|it| it == path));
    ensure!(shell::wait_until(Duration::from_secs(5), there), "by {:?}", paths()?);
    Ok(())
}

/// All cells for publications that were added with `args`.
fn matrix(host: Host, args: &[&str], kernel: bool) {
    case::run(|case| {
        let mut net = Topology::build(Options { containers: 2, ..Options::default() })?;
        let containers = Containers::start(&mut net, host)?;
        let daemon = Daemon::start(case, &net.host)?;
        let _tcp = tcp::Server::echo(&containers.all[0], (ANY, 80))?;
        let _udp = udp::Server::echo(&containers.all[0], (ANY, 80))?;
        for published in ["8080", "8080/udp"] {
            daemon.ctl(&[&["add", published, TARGET], args].concat())?.ok()?;
        }
        let path = if kernel { "peer" } else { "proxy" };
        goes_by(&daemon, path)?;
        for client in clients(&net, &containers.all)? {
            for protocol in ["tcp", "udp"] {
                let name = format!("{} over {protocol}", client.name);
                let way = client.way(&daemon, protocol).with_context(|| name.clone())?;
                let expected = if kernel && client.by_kernel { "kernel" } else { "proxy" };
                ensure!(way == expected, "{name} went by the {way}");
            }
        }
        goes_by(&daemon, path)
    });
}

const WITH_PROXY: Host = Host::Docker(&["--userland-proxy=true"]);
const WITHOUT_PROXY: Host = Host::Docker(&["--userland-proxy=false"]);

#[test]
fn every_client_is_served_by_the_kernel_or_else_by_the_proxy() {
    matrix(Host::WithoutDocker, &[], true);
}

#[test]
fn every_client_is_served_by_the_proxy_alone() {
    matrix(Host::WithoutDocker, &["--path", "proxy"], false);
}

#[test]
fn the_same_beside_docker_28_5() {
    matrix(WITH_PROXY, &[], true);
}

#[test]
fn the_same_by_the_proxy_alone_beside_docker_28_5() {
    matrix(WITH_PROXY, &["--path", "proxy"], false);
}

#[test]
fn the_same_beside_docker_28_5_without_its_proxy() {
    matrix(WITHOUT_PROXY, &[], true);
}

#[test]
fn the_same_by_the_proxy_alone_beside_docker_28_5_without_its_proxy() {
    matrix(WITHOUT_PROXY, &["--path", "proxy"], false);
}

/// Ports that Docker publishes itself: where its proxy has them, the kernel path needs no listener; without
/// it, Docker has their IPv4 side only.
fn beside_docker(case: &Case, flags: &'static [&'static str], args: &[&str]) -> Result<()> {
    let net = Topology::build(Options { containers: 0, ..Options::default() })?;
    net.host.ip("link del br0")?;
    let engine = Engine::start(Version::V28_5, &net.host, flags)?;
    engine.run("target", &["-p", "8080:80", "-p", "8080:80/udp"], &["sleep", "1000"])?;
    let container = Netns::of_process(engine.pid("target")?)?;
    let _tcp = tcp::Server::echo(&container, (ANY, 80))?;
    let _udp = udp::Server::echo(&container, (ANY, 80))?;
    let daemon = Daemon::start(case, &net.host)?;
    for published in ["8080", "8080/udp"] {
        daemon.ctl(&[&["add", published, TARGET], args].concat())?.ok()?;
    }
    goes_by(&daemon, "peer")?;
    for client in clients(&net, &[])?.into_iter().filter(|client| client.asks.is_ipv6()) {
        for protocol in ["tcp", "udp"] {
            let name = format!("{} over {protocol}", client.name);
            let way = client.way(&daemon, protocol).with_context(|| name.clone())?;
            ensure!(way == "kernel", "{name} went by the {way}");
        }
    }
    // Docker's own way.
    let mut stream = tcp::connect(&net.host, (Ipv4Addr::LOCALHOST, 8080))?;
    ensure!(tcp::ask(&mut stream, "over IPv4")? == "over IPv4");
    Ok(())
}

#[test]
fn the_kernel_path_goes_past_docker_proxy() {
    case::run(|case| beside_docker(case, &["--userland-proxy=true"], &["--path", "kernel"]));
}

#[test]
fn a_port_that_docker_publishes_without_its_proxy_is_published_over_ipv6() {
    case::run(|case| beside_docker(case, &["--userland-proxy=false"], &[]));
}

#[test]
fn a_publication_on_one_address_answers_there_only() {
    case::run(|case| {
        let lab = Lab::with(case, Options { containers: 2, ..Options::default() })?;
        let _tcp = tcp::Server::page(lab.net.container(), (ANY, 80), "inside")?;
        let own = format!("[{HOST}]:8080");
        for published in [own.as_str(), "[::1]:8081"] {
            lab.daemon.add(published, TARGET)?;
        }
        let reached = |client: &Client<'_>, port: u16| {
            let limit = std::time::Duration::from_millis(500);
            tcp::try_connect(client.ns, client.to(port), limit).connected().is_ok()
        };
        for client in clients(&lab.net, std::slice::from_ref(lab.net.container()))? {
            let asks_own = client.asks == IpAddr::V6(HOST);
            assert_eq!(reached(&client, 8080), asks_own, "{}", client.name);
            assert_eq!(reached(&client, 8081), client.asks.is_loopback() && client.asks.is_ipv6());
        }
        Ok(())
    });
}

#[test]
fn one_address_and_every_address_lead_to_their_own_containers() {
    case::run(|case| {
        let lab = Lab::with(case, Options { containers: 2, ..Options::default() })?;
        let _one = tcp::Server::page(&lab.net.containers[0].ns, (ANY, 80), "first")?;
        let _two = tcp::Server::page(&lab.net.containers[1].ns, (ANY, 80), "second")?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.add(&format!("[{HOST}]:8080"), "172.17.0.3:80")?;
        let host = &lab.net.host;
        for (address, page) in [(HOST, "second"), (Ipv6Addr::LOCALHOST, "first")] {
            let answer = tcp::fetch(host, (address, 8080))?;
            ensure!(answer.starts_with(page), "{address}: {answer}");
        }
        // Nobody else can share the port, not even with SO_REUSEPORT.
        let taken = host.run(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.bind(&SocketAddr::from((Ipv6Addr::LOCALHOST, 8080)).into())?;
            socket.listen(1)
        });
        ensure!(taken.is_err(), "somebody else listens on the published port");
        lab.daemon.ctl(&["rm", &format!("[{HOST}]:8080")])?.ok()?;
        let answer = tcp::fetch(host, (HOST, 8080))?;
        ensure!(answer.starts_with("first"), "{answer}");
        Ok(())
    });
}
