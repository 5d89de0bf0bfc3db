//! The networks that the tests run in.
//!
//! ```text
//!                   uplink up0 (mtu 1500)             br0 172.17.0.1/16
//!  client0 ─────────────────────────────── host ───────┬──────────── container0 172.17.0.2
//!  2001:db8:1::c0            2001:db8:1::1, ::2        └──────────── container1 172.17.0.3
//! ```
//!
//! * two or more clients: they and the host's `up0` hang on a switch, `2001:db8:1::c0`, `::c1`, …
//! * behind routers: `client0 2001:db8:c::c0 ─ router0 ─ narrow link ─ router1 ─ host`; the client's
//!   own link and the uplink keep 1500
//! * second uplink: `far 2001:db8:2::c0 ─── up1 host 2001:db8:2::1`
//! * tun uplink: `tunnel 2001:db8:3::c0 ─── tun0 host 2001:db8:3::1`, no Ethernet header
//! * second network: `br1 172.18.0.1/16`, container 0 is in it too, as `172.18.0.2` on `eth1`, and
//!   its default route leads there
//!
//! Clients have no IPv4, containers no IPv6, and nothing forwards: what arrives was translated.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;

use crate::netns::{Netns, veth};
use crate::traffic::raw;
use crate::tun::Cable;

/// The host's first address on the uplink.
pub const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
/// The host's second address on the uplink.
pub const HOST_2: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
/// The host's address on the second uplink.
pub const HOST_FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
/// The client's address on the second uplink.
pub const FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0xc0);
/// The host's address on the tun uplink.
pub const HOST_TUNNEL: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 1);
/// The client's address on the tun uplink.
pub const TUNNEL: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 0xc0);
/// The client's address behind the routers.
pub const BEHIND: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0xc0);

/// The address of client `index` on the first uplink.
pub const fn client_address(index: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xc0 + index)
}

/// The address of container `index` in the first network.
pub const fn container_address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 17, 0, 2 + index)
}

/// What a network has beyond one client, one uplink, one container.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Clients on the first uplink, at least 1.
    pub clients: u16,
    /// Two routers before the client, joined by a link of this MTU in bytes (one client only).
    pub narrow: Option<u32>,
    /// Containers in the first network.
    pub containers: u8,
    /// Whether container 0 is in a second network, which its default route leads to.
    pub second_network: bool,
    /// Whether there is a second uplink with a client of its own.
    pub second_uplink: bool,
    /// Whether there is a tun uplink with a client of its own.
    pub tun: bool,
    /// Whether the uplink pair keeps checksum and segmentation offloads.
    pub offloads: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clients: 1,
            narrow: None,
            containers: 1,
            second_network: false,
            second_uplink: false,
            tun: false,
            offloads: true,
        }
    }
}

/// A container: a namespace on a bridge of the host.
#[derive(Debug)]
pub struct Container {
    /// Its namespace.
    pub ns: Netns,
    /// The host's end of its veth; the container's end is `eth0`.
    pub veth: String,
    /// Its address in the first network.
    pub address: Ipv4Addr,
}

/// A network that was built; dropping it deletes its namespaces.
#[derive(Debug)]
pub struct Topology {
    cable: Option<Cable>,
    /// The host.
    pub host: Arc<Netns>,
    /// The clients on the first uplink.
    pub clients: Vec<Netns>,
    /// The routers between client and host, the client's first.
    pub routers: Vec<Netns>,
    /// The client on the second uplink.
    pub far: Option<Netns>,
    /// The client on the tun uplink.
    pub tunnel: Option<Netns>,
    /// The containers.
    pub containers: Vec<Container>,
    /// What joins several clients and the uplink.
    switch: Option<Netns>,
    options: Options,
    made_veths: u32,
}

impl Topology {
    /// One client, one uplink, one container.
    ///
    /// # Errors
    /// As [`Topology::build`].
    pub fn simple() -> Result<Self> {
        Self::build(Options::default())
    }

    /// Builds the network.
    ///
    /// # Errors
    /// When the test doesn't run as root, or iproute2 or ethtool is missing or refuses.
    pub fn build(options: Options) -> Result<Self> {
        let mut net = Self {
            cable: None,
            host: Arc::new(Netns::new("host")?),
            clients: Vec::new(),
            routers: Vec::new(),
            far: None,
            tunnel: None,
            containers: Vec::new(),
            switch: None,
            options,
            made_veths: 0,
        };
        match options.narrow {
            Some(mtu) => net.join_behind_routers(mtu)?,
            None if options.clients == 1 => net.join_directly()?,
            None => net.join_by_switch()?,
        }
        net.host.ip(&format!("addr add {HOST}/64 dev up0 nodad"))?;
        net.host.ip(&format!("addr add {HOST_2}/64 dev up0 nodad"))?;
        if options.narrow.is_some() {
            net.host.ip("-6 route add default via 2001:db8:1::fe dev up0")?;
        }
        if options.second_uplink {
            let far = Netns::new("far")?;
            veth(&net.host, "up1", &far, "eth0", 1500)?;
            net.host.ip(&format!("addr add {HOST_FAR}/64 dev up1 nodad"))?;
            far.ip(&format!("addr add {FAR}/64 dev eth0 nodad"))?;
            net.far = Some(far);
        }
        if options.tun {
            let tunnel = Netns::new("tunnel")?;
            net.cable = Some(Cable::new(&net.host, &tunnel, "tun0", 1500)?);
            net.host.ip(&format!("addr add {HOST_TUNNEL}/64 dev tun0 nodad"))?;
            tunnel.ip(&format!("addr add {TUNNEL}/64 dev tun0 nodad"))?;
            net.tunnel = Some(tunnel);
        }
        net.add_bridge("br0", "172.17.0.1/16")?;
        for index in 0..options.containers {
            net.add_container(container_address(index))?;
        }
        if options.second_network {
            net.add_bridge("br1", "172.18.0.1/16")?;
            net.join_second_network()?;
        }
        Ok(net)
    }

    fn join_directly(&mut self) -> Result<()> {
        let client = Netns::new("client0")?;
        veth(&self.host, "up0", &client, "eth0", 1500)?;
        client.ip(&format!("addr add {}/64 dev eth0 nodad", client_address(0)))?;
        self.set_offloads(&client, "eth0")?;
        self.clients.push(client);
        Ok(())
    }

    fn join_by_switch(&mut self) -> Result<()> {
        let switch = Netns::new("switch")?;
        switch.ip("link add sw type bridge mcast_snooping 0")?;
        switch.ip("link set sw up")?;
        veth(&self.host, "up0", &switch, "host", 1500)?;
        switch.ip("link set host master sw")?;
        self.set_offloads(&switch, "host")?;
        for index in 0..self.options.clients {
            let client = Netns::new(&format!("client{index}"))?;
            veth(&switch, &format!("port{index}"), &client, "eth0", 1500)?;
            switch.ip(&format!("link set port{index} master sw"))?;
            client.ip(&format!("addr add {}/64 dev eth0 nodad", client_address(index)))?;
            self.clients.push(client);
        }
        self.switch = Some(switch);
        Ok(())
    }

    fn join_behind_routers(&mut self, narrow: u32) -> Result<()> {
        let client = Netns::new("client0")?;
        let near = Netns::new("router0")?;
        let next = Netns::new("router1")?;
        veth(&client, "eth0", &near, "edge", 1500)?;
        veth(&near, "narrow", &next, "narrow", narrow)?;
        veth(&next, "edge", &self.host, "up0", 1500)?;
        for router in [&near, &next] {
            router.sysctl("ipv6/conf/all/forwarding", "1")?;
        }
        client.ip(&format!("addr add {BEHIND}/64 dev eth0 nodad"))?;
        near.ip("addr add 2001:db8:c::1/64 dev edge nodad")?;
        near.ip("addr add 2001:db8:f::1/64 dev narrow nodad")?;
        next.ip("addr add 2001:db8:f::2/64 dev narrow nodad")?;
        next.ip("addr add 2001:db8:1::fe/64 dev edge nodad")?;
        client.ip("-6 route add default via 2001:db8:c::1")?;
        near.ip("-6 route add default via 2001:db8:f::2")?;
        next.ip("-6 route add 2001:db8:c::/64 via 2001:db8:f::1")?;
        self.set_offloads(&next, "edge")?;
        self.clients.push(client);
        self.routers = vec![near, next];
        Ok(())
    }

    /// With `offloads: false`, turns them off at both ends of the uplink.
    fn set_offloads(&self, peer: &Netns, interface: &str) -> Result<()> {
        if !self.options.offloads {
            self.host.sh("ethtool -K up0 tx off tso off gso off")?;
            peer.sh(&format!("ethtool -K {interface} tx off tso off gso off"))?;
        }
        Ok(())
    }

    fn add_bridge(&self, name: &str, address: &str) -> Result<()> {
        // With an address of its own, as engines give it: else it would borrow a port's, and what
        // goes to the bridge would look as if it went to that port.
        let last = if name == "br0" { 1 } else { 2 };
        self.host.ip(&format!(
            "link add {name} address 02:42:ac:00:00:{last:02x} type bridge forward_delay 0"
        ))?;
        self.host.ip(&format!("link set {name} up"))?;
        self.host.ip(&format!("addr add {address} dev {name}"))?;
        Ok(())
    }

    /// Adds a container with this address to the first network: a veth with a new name and a new
    /// MAC address, as an engine makes it.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn add_container(&mut self, address: Ipv4Addr) -> Result<()> {
        let container = self.make_container(address)?;
        self.containers.push(container);
        Ok(())
    }

    fn make_container(&mut self, address: Ipv4Addr) -> Result<Container> {
        let ns = Netns::new("container")?;
        ns.sysctl("ipv6/conf/all/disable_ipv6", "1")?;
        let name = format!("vc{}", self.made_veths);
        self.made_veths += 1;
        veth(&self.host, &name, &ns, "eth0", 1500)?;
        self.host.ip(&format!("link set {name} master br0"))?;
        ns.ip(&format!("addr add {address}/16 dev eth0"))?;
        ns.ip("route add default via 172.17.0.1")?;
        announce(&ns, "eth0", address)?;
        Ok(Container { ns, veth: name, address })
    }

    fn join_second_network(&mut self) -> Result<()> {
        let container = &self.containers[0].ns;
        veth(&self.host, "vs0", container, "eth1", 1500)?;
        self.host.ip("link set vs0 master br1")?;
        container.ip("addr add 172.18.0.2/16 dev eth1")?;
        container.ip("route replace default via 172.18.0.1")?;
        Ok(())
    }

    /// Adds a network with a container of its own, `172.18.0.2` behind `br1`, which reaches the first one only
    /// by way of the host's addresses.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn add_other_network(&self) -> Result<Netns> {
        self.add_bridge("br1", "172.18.0.1/16")?;
        let ns = Netns::new("other")?;
        ns.sysctl("ipv6/conf/all/disable_ipv6", "1")?;
        veth(&self.host, "vo0", &ns, "eth0", 1500)?;
        self.host.ip("link set vo0 master br1")?;
        ns.ip("addr add 172.18.0.2/16 dev eth0")?;
        ns.ip("route add default via 172.18.0.1")?;
        Ok(ns)
    }

    /// Takes container `index` away: its veth and its namespace. Sockets that the test still holds
    /// in it live on, unreachable.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn remove_container(&mut self, index: usize) -> Result<Ipv4Addr> {
        let container = self.containers.remove(index);
        self.host.ip(&format!("link del {}", container.veth))?;
        Ok(container.address)
    }

    /// Restarts container `index`: the same address, a new namespace, veth and MAC address.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn restart_container(&mut self, index: usize) -> Result<()> {
        let address = self.remove_container(index)?;
        let container = self.make_container(address)?;
        self.containers.insert(index, container);
        Ok(())
    }

    /// The first client.
    pub fn client(&self) -> &Netns {
        &self.clients[0]
    }

    /// The first container's namespace.
    pub fn container(&self) -> &Netns {
        &self.containers[0].ns
    }

    /// `port` on the first container's address.
    pub fn target(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.containers[0].address, port))
    }
}

/// Tells the neighbours of a new MAC address by a gratuitous ARP request, as engines do.
fn announce(ns: &Netns, interface: &str, address: Ipv4Addr) -> Result<()> {
    const REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let mac = ns.mac(interface)?;
    let mut frame = [[0xff; 6], mac].concat();
    frame.extend([0x08, 0x06]);
    frame.extend(REQUEST);
    frame.extend([mac.as_slice(), &address.octets(), &[0; 6], &address.octets()].concat());
    raw::inject(ns, interface, &frame)
}

/// `port` on the host's first address.
pub fn host(port: u16) -> SocketAddr {
    SocketAddr::from((HOST, port))
}
