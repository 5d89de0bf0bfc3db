//! The contenders, each with a network of its own: client, host, container behind a bridge.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::docker_rules;
use super::service::{SHORT_PORT, STREAM_PORT, Service};
use super::work::{self, Connections, Direction, Stream};
use crate::case::Case;
use crate::daemon::Daemon;
use crate::docker_proxy::DockerProxy;
use crate::netns::Netns;
use crate::shell;
use crate::topology::{HOST, Topology, client_address};

/// Ports of the host, in the order of [`SHORT_PORT`] and [`STREAM_PORT`].
const PUBLISHED: [u16; 2] = [8080, 8081];
/// The host's IPv4 address on the uplink, where the contender wants one.
const HOST_4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The client's IPv4 address.
const CLIENT_4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The container's IPv6 address, where it has one.
const CONTAINER_6: Ipv6Addr = Ipv6Addr::new(0xfd17, 0, 0, 0, 0, 0, 0, 2);

/// A way from a client to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The kernel path of `publisherd`.
    Publisher,
    /// Its socket proxy.
    Proxy,
    /// The newest Docker's userland proxy, IPv6 to IPv4.
    DockerProxy,
    /// IPv4 to IPv4 by netfilter.
    Dnat,
    /// IPv6 to a container that has IPv6, only forwarded.
    Routed,
}

impl Kind {
    /// All of them; ours first.
    pub const ALL: [Self; 5] =
        [Self::Publisher, Self::Proxy, Self::DockerProxy, Self::Dnat, Self::Routed];
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Publisher => "Publisher",
            Self::Proxy => "Publisher's proxy",
            Self::DockerProxy => "docker-proxy 28.5",
            Self::Dnat => "IPv4 iptables DNAT",
            Self::Routed => "routed IPv6",
        })
    }
}

/// A contender that is ready; dropping it takes everything down, its users first.
#[derive(Debug)]
pub struct Contender<'a> {
    /// Which one.
    pub kind: Kind,
    /// The daemon of [`Kind::Publisher`] and [`Kind::Proxy`].
    pub daemon: Option<Daemon<'a>>,
    _proxies: Vec<DockerProxy>,
    service: Service,
    short: SocketAddr,
    stream: SocketAddr,
    net: Topology,
}

impl<'a> Contender<'a> {
    /// Builds the network and what carries the traffic through it, and checks that the traffic
    /// really goes that way.
    ///
    /// # Errors
    /// When a part is missing or refuses, or the container sees another address than it must.
    pub fn build(case: &'a Case, kind: Kind) -> Result<Self> {
        let net = Topology::simple()?;
        let target = net.containers[0].address;
        let (mut daemon, mut proxies) = (None, Vec::new());
        let (mut served, mut reached) = (IpAddr::from(target), IpAddr::from(HOST));
        let mut ports = PUBLISHED;
        match kind {
            Kind::Publisher | Kind::Proxy | Kind::DockerProxy => write_rules(&net)?,
            Kind::Dnat => {
                write_rules(&net)?;
                by_ipv4(&net)?;
                reached = HOST_4.into();
            }
            Kind::Routed => {
                route(&net)?;
                (served, reached) = (CONTAINER_6.into(), CONTAINER_6.into());
                ports = [SHORT_PORT, STREAM_PORT];
            }
        }
        let service = Service::start(net.container(), served)?;
        match kind {
            Kind::Publisher => daemon = Some(publish(case, &net, target, "kernel", "peer")?),
            Kind::Proxy => {
                without_pacing(&net.host)?;
                daemon = Some(publish(case, &net, target, "proxy", "proxy")?);
            }
            Kind::DockerProxy => {
                without_pacing(&net.host)?;
                for (port, inside) in PUBLISHED.into_iter().zip([SHORT_PORT, STREAM_PORT]) {
                    proxies.push(DockerProxy::start(&net.host, port, (target, inside).into())?);
                }
            }
            Kind::Dnat | Kind::Routed => {}
        }
        let [short, stream] = ports.map(|port| SocketAddr::from((reached, port)));
        let made = Self { kind, daemon, _proxies: proxies, service, short, stream, net };
        made.check()?;
        Ok(made)
    }

    /// One stream.
    ///
    /// # Errors
    /// As [`work::stream`].
    pub fn stream(&self, direction: Direction, duration: Duration) -> Result<Stream> {
        work::stream(self.net.client(), self.stream, &self.service, direction, duration)
    }

    /// Short connections.
    ///
    /// # Errors
    /// As [`work::connections`].
    pub fn connections(&self, duration: Duration) -> Result<Connections> {
        work::connections(self.net.client(), self.short, duration)
    }

    /// Warms everything up and compares who the container saw with who it must see.
    fn check(&self) -> Result<()> {
        let short = Duration::from_millis(200);
        self.stream(Direction::Up, short)?;
        self.connections(short)?;
        let seen = self.service.last_peer()?;
        let right = match (self.kind, seen) {
            (Kind::Publisher, IpAddr::V4(seen)) => {
                seen.octets()[0] == 198 && seen.octets()[1] & 0xfe == 18
            }
            (Kind::Proxy | Kind::DockerProxy, _) => {
                seen == IpAddr::from(Ipv4Addr::new(172, 17, 0, 1))
            }
            (Kind::Dnat, _) => seen == IpAddr::from(CLIENT_4),
            (Kind::Routed, _) => seen == IpAddr::from(client_address(0)),
            (Kind::Publisher, IpAddr::V6(_)) => false,
        };
        ensure!(right, "{}: the container saw {seen}: that is another way", self.kind);
        Ok(())
    }

    /// How our own packets go, as `publisherctl ls` says it: `peer` or `neigh`.
    ///
    /// # Errors
    /// When the daemon doesn't answer.
    pub fn path(&self) -> Result<Option<String>> {
        let Some(daemon) = &self.daemon else { return Ok(None) };
        let entries = daemon.entries(&["ls"])?;
        let mut paths: Vec<String> =
            entries.iter().filter_map(|it| Some(it["path"].as_str()?.to_owned())).collect();
        paths.dedup();
        Ok(Some(paths.join(" and ")))
    }
}

/// Publishes by way of `asked`, and waits until that is `way`.
fn publish<'a>(
    case: &'a Case,
    net: &Topology,
    target: Ipv4Addr,
    asked: &str,
    way: &str,
) -> Result<Daemon<'a>> {
    let daemon = Daemon::start(case, &net.host)?;
    for (port, inside) in PUBLISHED.into_iter().zip([SHORT_PORT, STREAM_PORT]) {
        let (port, target) = (port.to_string(), format!("{target}:{inside}"));
        daemon.ctl(&["add", &port, &target, "--path", asked])?.ok()?;
    }
    // The veth behind the bridge is found once the container's neighbour entry is there.
    shell::wait_until(Duration::from_secs(5), || {
        daemon.entries(&["ls"]).is_ok_and(|all| all.iter().all(|it| it["path"] == way))
    });
    Ok(daemon)
}

/// A proxy's sockets have no option for their congestion control: its routes say it.
fn without_pacing(host: &Netns) -> Result<()> {
    host.ip(
        "route change 172.17.0.0/16 dev br0 proto kernel scope link src 172.17.0.1 congctl cubic",
    )?;
    host.ip("-6 route change 2001:db8:1::/64 dev up0 proto kernel metric 256 congctl cubic")?;
    Ok(())
}

/// All but plain routing run on hosts with Docker, whose rules are there whichever way is taken.
fn write_rules(net: &Topology) -> Result<()> {
    let [short, stream] = PUBLISHED;
    let ports = [(short, SHORT_PORT), (stream, STREAM_PORT)];
    docker_rules::write(&net.host, "br0", net.containers[0].address, &ports)
}

/// A client's way by IPv4; the host forwards.
fn by_ipv4(net: &Topology) -> Result<()> {
    net.client().ip(&format!("addr add {CLIENT_4}/24 dev eth0"))?;
    net.host.ip(&format!("addr add {HOST_4}/24 dev up0"))?;
    net.host.sysctl("ipv4/ip_forward", "1")
}

/// Gives the container an IPv6 address, and lets the host forward.
fn route(net: &Topology) -> Result<()> {
    let container = net.container();
    container.sysctl("ipv6/conf/all/disable_ipv6", "0")?;
    container.ip(&format!("addr add {CONTAINER_6}/64 dev eth0 nodad"))?;
    net.host.ip("addr add fd17::1/64 dev br0 nodad")?;
    net.host.sysctl("ipv6/conf/all/forwarding", "1")?;
    container.ip("-6 route add default via fd17::1")?;
    net.client().ip(&format!("-6 route add fd17::/64 via {HOST}"))?;
    Ok(())
}
