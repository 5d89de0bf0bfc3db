//! From where a published port answers, and by which way: every kind of client, TCP and UDP, with the kernel
//! path and with the proxy alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use anyhow::{Context, Result, ensure};
use publisher_tests::case;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::netns::Netns;
use publisher_tests::topology::{HOST, Options};
use publisher_tests::traffic::{tcp, udp};

const ANY: [u8; 4] = [0, 0, 0, 0];
/// The bridge's own address, which containers know the host by.
const BRIDGE: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);

/// A client, what it asks, and whether the kernel path takes its packets.
struct Client<'a> {
    name: &'static str,
    ns: &'a Netns,
    asks: IpAddr,
    scope: u32,
    by_kernel: bool,
}

fn clients<'a>(lab: &'a Lab<'_>) -> Result<Vec<Client<'a>>> {
    let net = &lab.net;
    let (client, host) = (net.client(), &*net.host);
    let link_local = IpAddr::V6(host.link_local("up0")?);
    let new = |name, ns, asks, scope, by_kernel| Client { name, ns, asks, scope, by_kernel };
    let (local, mine) = (IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V6(HOST));
    Ok(vec![
        new("remote, global", client, mine, 0, true),
        new("remote, link-local", client, link_local, client.ifindex("eth0")?, true),
        new("host to ::1", host, local, 0, true),
        new("host to its global address", host, mine, 0, true),
        new("host to its link-local address", host, link_local, host.ifindex("up0")?, true),
        new("host to 127.0.0.1", host, Ipv4Addr::LOCALHOST.into(), 0, false),
        new("the same container", net.container(), BRIDGE.into(), 0, false),
        new("another container", &net.containers[1].ns, BRIDGE.into(), 0, false),
    ])
}

impl Client<'_> {
    fn to(&self, port: u16) -> SocketAddr {
        match self.asks {
            IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, self.scope).into(),
            IpAddr::V4(address) => (address, port).into(),
        }
    }

    /// Asks over `protocol`, and says by which way the answer came.
    fn way(&self, lab: &Lab<'_>, protocol: &str) -> Result<String> {
        let to = self.to(8080);
        let port = if protocol == "tcp" {
            let mut stream = tcp::connect(self.ns, to)?;
            let answer = tcp::ask(&mut stream, self.name)?;
            ensure!(answer == self.name, "{answer:?}");
            // Asked before the connection ends.
            return path_of(lab, protocol, stream.local_addr()?.port());
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
        path_of(lab, protocol, port)
    }
}

/// The way of the session of a client's port.
fn path_of(lab: &Lab<'_>, protocol: &str, port: u16) -> Result<String> {
    let sessions = lab.daemon.entries(&["sessions", &format!("proto={protocol}")])?;
    let found: Vec<_> = sessions.iter().filter(|it| it["client_port"] == port).collect();
    ensure!(found.len() == 1, "sessions of port {port}: {found:?}");
    Ok(found[0]["path"].as_str().context("path")?.to_owned())
}

/// All cells for publications that were added with `args`.
fn matrix(args: &[&str], kernel: bool) {
    case::run(|case| {
        let lab = Lab::with(case, Options { containers: 2, ..Options::default() })?;
        let _tcp = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        let _udp = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        for published in ["8080", "8080/udp"] {
            lab.daemon.ctl(&[&["add", published, TARGET], args].concat())?.ok()?;
        }
        for client in clients(&lab)? {
            for protocol in ["tcp", "udp"] {
                let name = format!("{} over {protocol}", client.name);
                let way = client.way(&lab, protocol).with_context(|| name.clone())?;
                let expected = if kernel && client.by_kernel { "kernel" } else { "proxy" };
                ensure!(way == expected, "{name} went by the {way}");
            }
        }
        for publication in lab.daemon.entries(&["ls"])? {
            let path = publication["path"].as_str().context("path")?;
            ensure!(if kernel { path == "peer" } else { path == "proxy" }, "{publication}");
        }
        Ok(())
    });
}

#[test]
fn every_client_is_served_by_the_kernel_or_else_by_the_proxy() {
    matrix(&[], true);
}

#[test]
fn every_client_is_served_by_the_proxy_alone() {
    matrix(&["--path", "proxy"], false);
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
        for client in clients(&lab)? {
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
