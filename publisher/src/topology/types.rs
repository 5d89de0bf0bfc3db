//! What topology reports: plain data, so that planning can be tested without a kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

/// What the caller knows and the kernel doesn't, when it asks for a [`Snapshot`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotOptions {
    /// Uplinks named by the owner (`--uplink`). When there is one, nothing is chosen by itself.
    pub uplinks: Vec<String>,
    /// Interface indexes that targets are reached through: [`ResolvedTarget::container_links`].
    pub container_links: BTreeSet<u32>,
    /// Names of interfaces that are never an uplink: those the daemon made for itself.
    pub ignore: BTreeSet<String>,
}

/// The host's interfaces and addresses at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Interfaces where clients arrive, ordered by index.
    pub uplinks: Vec<Uplink>,
    /// What the host takes for its own: unicast IPv6 routes of type `local`, AnyIP prefixes
    /// included, without `::1`. Sorted, no duplicates.
    pub locals: Vec<LocalPrefix>,
    /// Every interface by index.
    pub links: BTreeMap<u32, LinkInfo>,
    /// What the owner should know: an interface named by `--uplink` that doesn't exist.
    pub warnings: Vec<String>,
}

/// An interface where clients arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Interface index.
    pub ifindex: u32,
    /// Interface name.
    pub name: String,
    /// MTU in bytes, without any link header.
    pub mtu: u32,
    /// Whether its frames start with an Ethernet header (WireGuard's and tun's don't).
    pub ethernet: bool,
}

/// A range of IPv6 addresses that are the host's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalPrefix {
    /// First address of the range.
    pub address: Ipv6Addr,
    /// Prefix length in bits, 0 to 128.
    pub prefix_len: u8,
    /// Interface index for link-local addresses (`fe80::/10`), otherwise 0.
    pub scope: u32,
}

/// One interface of the host, as netlink describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkInfo {
    /// Interface index.
    pub ifindex: u32,
    /// Interface name.
    pub name: String,
    /// Driver kind (`IFLA_INFO_KIND`): `veth`, `bridge`, `vlan`, …; none for physical devices.
    pub kind: Option<String>,
    /// Hardware type (`ARPHRD_*`).
    pub arphrd: u16,
    /// Interface flags (`IFF_*`).
    pub flags: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// Hardware address, where it has one of 6 bytes.
    pub mac: Option<[u8; 6]>,
    /// Index of the bridge, bond or VRF that it belongs to.
    pub master: Option<u32>,
    /// Index of the device below it, or of a veth's peer (in the peer's namespace).
    pub link: Option<u32>,
    /// Identifier of the other namespace that `link` lives in; none when it is this one.
    pub link_netnsid: Option<i32>,
    /// Kind of the root egress queueing discipline.
    pub qdisc: Option<String>,
    /// Whether an XDP program runs in its driver (native or offloaded, not generic).
    pub native_xdp: bool,
    /// Whether IPv6 is on (`disable_ipv6` is 0, and the MTU allows it).
    pub ipv6: bool,
    /// Whether it has an IPv6 address of any scope.
    pub has_address: bool,
    /// Whether it has an IPv6 address that isn't link-local.
    pub has_global_address: bool,
    /// Whether an IPv6 default route leaves by it.
    pub has_default_route: bool,
}

impl LinkInfo {
    /// Whether it is set up; the cable needn't be plugged in.
    pub fn is_up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }

    /// Whether its frames start with an Ethernet header.
    pub fn is_ethernet(&self) -> bool {
        self.arphrd == libc::ARPHRD_ETHER
    }

    /// Whether the driver kind is `kind`.
    pub fn is_kind(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    /// Whether it is a veth with its other end in another network namespace.
    pub fn is_container_veth(&self) -> bool {
        self.is_kind("veth") && self.link_netnsid.is_some()
    }

    /// Short form: index, name and kind.
    pub fn device(&self) -> Device {
        let kind = match self.kind.as_deref() {
            Some("bridge") => DeviceKind::Bridge,
            Some("veth") => DeviceKind::Veth,
            _ => DeviceKind::Other,
        };
        Device { ifindex: self.ifindex, name: self.name.clone(), kind }
    }
}

/// An interface on the way to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Interface index.
    pub ifindex: u32,
    /// Interface name.
    pub name: String,
    /// What it is, as far as the datapath cares.
    pub kind: DeviceKind,
}

/// The kinds of container link that the datapath tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeviceKind {
    /// A Linux bridge with the target behind one of its ports.
    Bridge,
    /// The host side of the target's own veth pair.
    Veth,
    /// Anything else: a router's link, a tap, a tunnel, macvlan.
    Other,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "bridge",
            Self::Veth => "veth",
            Self::Other => "other",
        })
    }
}

/// Where a target is, and how it can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedTarget {
    /// The address that was asked for.
    pub target: Ipv4Addr,
    /// The interface that the host's route to the target leaves by. Its kind is
    /// [`DeviceKind::Other`] when the target is behind a router, whatever the device is.
    pub device: Device,
    /// The host side of the target's veth: the bridge port, or `device` itself.
    pub veth: Option<Device>,
    /// Hardware address of the target, or of the router towards it.
    pub mac: Option<[u8; 6]>,
    /// The host's own address on that link, which `--source gateway` uses.
    pub gateway: Option<Ipv4Addr>,
    /// MTU of the way to the target in bytes: the least of device, veth and route.
    pub mtu: u32,
    /// Whether `bpf_redirect_peer` through `veth` skips nothing that the owner put there;
    /// otherwise what stands in the way, such as `egress qdisc tbf on veth1a2b`.
    pub peer: Result<(), String>,
    /// Whether the target's replies to an alias come back by this link.
    pub alias_route: AliasRoute,
}

impl ResolvedTarget {
    /// Indexes of the bridge and the veth that lead to this target alone or to its neighbours. A
    /// device on the way to a router is none of them: clients may arrive there.
    pub fn container_links(&self) -> impl Iterator<Item = u32> {
        let leads_here = self.device.kind != DeviceKind::Other;
        let device = leads_here.then_some(self.device.ifindex);
        let veth = self.veth.as_ref().map(|veth| veth.ifindex);
        device.into_iter().chain(veth.filter(|veth| Some(*veth) != device))
    }
}

/// What the target's own routing table does with a reply to an alias address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AliasRoute {
    /// It leaves by the target's end of this link.
    Returns,
    /// It leaves by another interface, or not at all.
    Elsewhere {
        /// Such as `default route of 172.18.0.2 leaves by eth1`.
        reason: String,
    },
    /// The target's namespace can't be looked into.
    Unknown {
        /// Why not.
        reason: String,
    },
}

/// A target that can't be reached now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unresolved {
    /// Such as `no answer to ARP for 172.17.0.9 on docker0`.
    pub reason: String,
}

impl Unresolved {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// What may have changed since the last notice. Coarse on purpose: it says what to read again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Interfaces came, went, or changed state, MTU, name or master.
    pub links: bool,
    /// Addresses, or routes of type `local`.
    pub addresses: bool,
    /// Other routes, and routing rules.
    pub routes: bool,
    /// IPv4 neighbours or bridge forwarding entries appeared, moved or went.
    pub neighbours: bool,
    /// Queueing disciplines, filters and other parts of traffic control.
    pub traffic_control: bool,
    /// Notices were lost: everything has to be read again. The other fields are true as well.
    pub overrun: bool,
}

impl Changes {
    /// Everything may have changed, and notices were lost.
    pub const OVERRUN: Self = Self {
        links: true,
        addresses: true,
        routes: true,
        neighbours: true,
        traffic_control: true,
        overrun: true,
    };

    /// Whether there is nothing to read again.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what `other` names.
    pub fn merge(&mut self, other: Self) {
        let Self { links, addresses, routes, neighbours, traffic_control, overrun } = other;
        self.links |= links;
        self.addresses |= addresses;
        self.routes |= routes;
        self.neighbours |= neighbours;
        self.traffic_control |= traffic_control;
        self.overrun |= overrun;
    }
}

/// A firewall rule set of the host that may refuse IPv6 traffic to its own sockets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FirewallFinding {
    /// Who holds the rules.
    pub backend: FirewallBackend,
    /// Family and table, such as `inet filter`; empty when unknown.
    pub table: String,
    /// The chain that can drop; empty when unknown.
    pub chain: String,
    /// Such as `policy drop`, `rule with reject`, or why it couldn't be found out.
    pub why: String,
}

/// Which rule system a [`FirewallFinding`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FirewallBackend {
    /// nf_tables, `iptables-nft` included.
    Nftables,
    /// The older ip6_tables.
    Ip6tables,
    /// It couldn't be found out whether there is one.
    Unknown,
}

impl fmt::Display for FirewallFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backend, table, chain, why } = self;
        match backend {
            FirewallBackend::Nftables => write!(f, "nftables table {table} chain {chain}: {why}"),
            FirewallBackend::Ip6tables => write!(f, "ip6tables table {table} chain {chain}: {why}"),
            FirewallBackend::Unknown => write!(f, "host firewall unknown: {why}"),
        }
    }
}
