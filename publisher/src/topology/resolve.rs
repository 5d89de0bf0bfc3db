//! From a target's address to the interfaces it is reached through, without any container
//! engine's help: route → neighbour → forwarding table of the bridge → veth.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    links, neighbours,
    netlink::Client,
    netns, peer,
    routes::{self, RouteAnswer},
    types::{AliasRoute, Device, DeviceKind, LinkInfo, ResolvedTarget, Unresolved},
    uapi::rtn,
};

/// How long a target is given to answer ARP.
const ANSWER_TIME: Duration = Duration::from_millis(300);
/// The kernel asks again after a second only; a port of a bridge that has just come up loses
/// the first question, so it is asked anew after this.
const ASK_AGAIN: Duration = Duration::from_millis(60);
/// How long a hardware address without forwarding entry isn't asked for again.
const UNLEARNED_TIME: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(4);

/// Hardware addresses that answer ARP and still have no forwarding entry, by bridge, and since
/// when: some bridges don't learn. Asking each time would disturb the neighbour table, whose
/// notices make callers resolve again, without end.
#[derive(Debug, Default)]
pub struct Unlearned {
    since: Mutex<BTreeMap<(u32, [u8; 6]), Instant>>,
}

impl Unlearned {
    fn contains(&self, bridge: u32, mac: [u8; 6]) -> bool {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|_, since| since.elapsed() < UNLEARNED_TIME);
        since.contains_key(&(bridge, mac))
    }

    fn insert(&self, bridge: u32, mac: [u8; 6]) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.entry((bridge, mac)).or_insert_with(Instant::now);
    }
}

/// What resolving needs.
#[derive(Clone, Copy)]
pub struct Resolver<'a> {
    pub netlink: &'a Client,
    pub finder: &'a netns::Finder,
    pub unlearned: &'a Unlearned,
}

impl Resolver<'_> {
    /// Resolves one target. `alias_probe` is an address of the alias pool: the target's own routing
    /// table is asked where a reply to it would go.
    pub fn resolve(
        self,
        target: Ipv4Addr,
        alias_probe: Ipv4Addr,
    ) -> Result<ResolvedTarget, Unresolved> {
        let Self { netlink, finder, unlearned } = self;
        let (route, link) = route_to(netlink, target)?;
        let next_hop = route.via.unwrap_or(IpAddr::V4(target));
        let (mac, port) = link_layer(netlink, unlearned, &link, next_hop, route.via.is_none())?;
        let mtu = route.mtu.unwrap_or(link.mtu).min(link.mtu);
        let resolved = ResolvedTarget {
            target,
            device: link.device(),
            veth: None,
            mac,
            gateway: route.source,
            mtu,
            peer: Ok(()),
            alias_route: AliasRoute::Returns,
        };

        let remote = |resolved: ResolvedTarget, why: String| ResolvedTarget {
            peer: Err(why.clone()),
            alias_route: AliasRoute::Unknown { reason: why },
            ..resolved
        };
        if let Some(router) = route.via {
            let device = Device { kind: DeviceKind::Other, ..link.device() };
            let why = format!("{target} is behind the router {router}");
            return Ok(remote(ResolvedTarget { device, ..resolved }, why));
        }
        let veth = match link.device().kind {
            DeviceKind::Veth => link,
            DeviceKind::Bridge => match port {
                Some(port) if port.is_kind("veth") => port,
                Some(port) => {
                    let why = format!("{target} is behind {}, which is not a veth", port.name);
                    return Ok(remote(resolved, why));
                }
                None => {
                    let why = format!("{} has no forwarding entry for {target}", link.name);
                    return Ok(remote(resolved, why));
                }
            },
            DeviceKind::Other => {
                let why = format!("{target} is reached by {}, which is not a veth", link.name);
                return Ok(remote(resolved, why));
            }
        };
        let inside = look_inside(netlink, finder, &veth, target, alias_probe);
        Ok(ResolvedTarget {
            mtu: resolved.mtu.min(veth.mtu),
            veth: Some(veth.device()),
            peer: peer::check_host_side(netlink, &veth).and(inside.peer),
            alias_route: inside.alias_route,
            ..resolved
        })
    }
}

/// The host's route to the target and the device it leaves by.
fn route_to(netlink: &Client, target: Ipv4Addr) -> Result<(RouteAnswer, LinkInfo), Unresolved> {
    let route = routes::get(netlink, target, None)
        .map_err(|error| Unresolved::new(format!("no route to {target}: {error}")))?;
    let refuse = |why: &str| Err(Unresolved::new(format!("{target} {why}")));
    match route.kind {
        rtn::UNICAST => {}
        rtn::LOCAL => return refuse("is an address of this host, not of a container"),
        rtn::BROADCAST => return refuse("is a broadcast address"),
        rtn::MULTICAST => return refuse("is a multicast address"),
        kind => return refuse(&format!("has a route of a type that leads nowhere ({kind})")),
    }
    let Some(device) = route.device else { return refuse("has a route without an interface") };
    let link = links::one(netlink, device)
        .map_err(|error| Unresolved::new(format!("interface {device} is gone: {error}")))?;
    if !link.is_up() {
        return refuse(&format!("is reached by {}, which is down", link.name));
    }
    Ok((route, link))
}

/// The hardware address of the next hop, and its port when `link` is a bridge. Without an answer
/// to ARP a target on the link itself can't be reached; a router may answer later.
fn link_layer(
    netlink: &Client,
    unlearned: &Unlearned,
    link: &LinkInfo,
    next_hop: IpAddr,
    direct: bool,
) -> Result<(Option<[u8; 6]>, Option<LinkInfo>), Unresolved> {
    if !link.is_ethernet() || link.flags & libc::IFF_NOARP as u32 != 0 {
        return Ok((None, None));
    }
    let failed = |error: io::Error| {
        Unresolved::new(format!("neighbours of {} can't be read: {error}", link.name))
    };
    let bridge = link.is_kind("bridge") && direct;
    let deadline = Instant::now() + ANSWER_TIME;
    let mut asked: Option<Instant> = None;
    loop {
        let neighbour = neighbours::get(netlink, link.ifindex, next_hop).map_err(failed)?;
        let mac = neighbour.and_then(|neighbour| neighbour.mac);
        let port = match mac {
            Some(mac) if bridge => port_of(netlink, link, mac).map_err(failed)?,
            _ => None,
        };
        // An address whose forwarding entry is gone is that of a container that was restarted,
        // or of one that has been silent for long: ask again to tell.
        if mac.is_some() && (port.is_some() || !bridge) {
            return Ok((mac, port));
        }
        // A bridge learns from a frame before it hands it on, so an answer that left no forwarding
        // entry never will; and what was set by hand isn't asked for.
        let settled = mac.is_some_and(|mac| {
            asked.is_some()
                || neighbour.is_some_and(|neighbour| neighbour.permanent)
                || unlearned.contains(link.ifindex, mac)
        });
        if let (Some(mac), true) = (mac, settled) {
            unlearned.insert(link.ifindex, mac);
            return Ok((Some(mac), None));
        }
        if Instant::now() >= deadline {
            return match direct {
                true => Err(Unresolved::new(format!(
                    "no answer to ARP for {next_hop} on {}",
                    link.name
                ))),
                false => Ok((None, None)),
            };
        }
        if asked.is_none_or(|asked| asked.elapsed() >= ASK_AGAIN) {
            neighbours::ask(netlink, link.ifindex, next_hop).map_err(failed)?;
            asked = Some(Instant::now());
        }
        std::thread::sleep(POLL);
    }
}

fn port_of(netlink: &Client, bridge: &LinkInfo, mac: [u8; 6]) -> io::Result<Option<LinkInfo>> {
    match neighbours::bridge_port(netlink, bridge.ifindex, mac)? {
        // The port may vanish between the two questions.
        Some(port) => Ok(links::one(netlink, port).ok()),
        None => Ok(None),
    }
}

/// What the container's own namespace says.
struct Inside {
    peer: Result<(), String>,
    alias_route: AliasRoute,
}

fn look_inside(
    netlink: &Client,
    finder: &netns::Finder,
    veth: &LinkInfo,
    target: Ipv4Addr,
    alias_probe: Ipv4Addr,
) -> Inside {
    let unknown =
        |reason: String| Inside { peer: Ok(()), alias_route: AliasRoute::Unknown { reason } };
    let (Some(nsid), Some(peer_index)) = (veth.link_netnsid, veth.link) else {
        return unknown(format!("the peer of {} is in this network namespace", veth.name));
    };
    let Some(namespace) = finder.open(netlink, nsid) else {
        return unknown(format!("the network namespace behind {} can't be found", veth.name));
    };
    let outcome = netns::enter(&namespace, || -> io::Result<Inside> {
        let netlink = Client::open(libc::NETLINK_ROUTE)?;
        let peer = links::one(&netlink, peer_index)?;
        Ok(Inside {
            peer: peer::check_container_side(&peer),
            alias_route: alias_route(&netlink, &peer, target, alias_probe),
        })
    });
    outcome.and_then(|inside| inside).unwrap_or_else(|error| {
        unknown(format!("the network namespace behind {} can't be read: {error}", veth.name))
    })
}

/// Where a reply from `target` to `alias` would go; `netlink` is a socket in the container.
fn alias_route(netlink: &Client, peer: &LinkInfo, target: Ipv4Addr, alias: Ipv4Addr) -> AliasRoute {
    let elsewhere = |reason| AliasRoute::Elsewhere { reason };
    match routes::get(netlink, alias, Some(target)) {
        Ok(route) if route.kind != rtn::UNICAST => {
            elsewhere(format!("{target} has no way back to {alias} (route type {})", route.kind))
        }
        Ok(route) if route.device == Some(peer.ifindex) => AliasRoute::Returns,
        Ok(route) => {
            let name = route
                .device
                .and_then(|device| links::one(netlink, device).ok())
                .map_or_else(|| "another interface".to_owned(), |link| link.name);
            elsewhere(format!("default route of {target} leaves by {name}"))
        }
        Err(error) => match error.raw_os_error() {
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES) => {
                elsewhere(format!("{target} has no route to {alias}"))
            }
            // What the kernel says to a source address that the namespace doesn't have.
            Some(libc::EINVAL) => AliasRoute::Unknown {
                reason: format!("{target} is not an address of the container itself"),
            },
            _ => AliasRoute::Unknown { reason: format!("route to {alias}: {error}") },
        },
    }
}
