//! The network that load is sent through: one client that stands for the whole Internet.

use std::net::Ipv6Addr;

use anyhow::{Context, Result};

use super::frame::To;
use super::hub::Hub;
use super::sources::Sources;
use crate::case::Case;
use crate::daemon::Daemon;
use crate::lab::TARGET;
use crate::topology::{HOST, Topology, client_address};

const ANY: [u8; 4] = [0, 0, 0, 0];

/// Daemon, service and network; they go in this order.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The daemon, which publishes port 8080 of both protocols.
    pub daemon: Daemon<'a>,
    /// The service, in the container.
    pub hub: Hub,
    /// The network.
    pub net: Topology,
    /// How frames get to the published port.
    pub to: To,
}

impl<'a> Scene<'a> {
    /// Builds it; `config` is the daemon's configuration file.
    ///
    /// # Errors
    /// As [`Topology::build`] and [`Daemon::start`].
    pub fn new(case: &'a Case, config: &str) -> Result<Self> {
        let net = Topology::simple()?;
        let client = net.client();
        let to = To {
            from_mac: client.mac("eth0")?,
            mac: net.host.mac("up0")?,
            address: HOST,
            port: 8080,
        };
        // What answers the sources goes to the client, as it would go to a router, and the client
        // throws it away, as the network would carry it off.
        let mac = to.from_mac.map(|byte| format!("{byte:02x}")).join(":");
        let router = client_address(0);
        net.host.ip(&format!("-6 neigh replace {router} lladdr {mac} dev up0 nud permanent"))?;
        net.host.ip(&format!("-6 route add default via {router} dev up0"))?;
        for sources in [Sources::FLOOD, Sources::CLIENTS] {
            client.ip(&format!("-6 route add blackhole {}", sources.route()))?;
        }
        let hub = Hub::start(net.container(), (ANY, 80))?;
        let file = tempfile::NamedTempFile::new_in(case.directory())?;
        let (_, path) = file.keep().context("configuration file")?;
        std::fs::write(&path, config)?;
        let path = path.to_str().context("configuration file")?;
        let daemon = Daemon::start_with(case, &net.host, &["--config", path])?;
        daemon.add("8080", TARGET)?;
        daemon.add("8080/udp", TARGET)?;
        Ok(Self { daemon, hub, net, to })
    }

    /// Where nobody is: what goes there takes the sender's time, and next to none of the host's.
    pub fn elsewhere(&self) -> To {
        let nobody = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x9999);
        To { address: nobody, port: 9, ..self.to }
    }

    /// Frames that the host has taken in from its uplink.
    ///
    /// # Errors
    /// When the kernel doesn't say.
    pub fn taken(&self) -> Result<u64> {
        let devices = self.net.host.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
        let line = devices.lines().find_map(|line| line.trim().strip_prefix("up0:"));
        let packets = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        packets.context("packets of up0")
    }
}
