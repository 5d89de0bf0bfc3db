//! Chooses the interfaces where clients arrive.
//!
//! Everything that is up, speaks IPv6 and isn't a container link is an uplink; so is a network of containers
//! that has IPv6, for they are clients too. Ports of bridges and bonds are left to their master, since that is the device that owns the addresses.

use std::collections::{BTreeMap, BTreeSet};

use super::types::{LinkInfo, SnapshotOptions, Uplink};

/// linux/if_arp.h
const ARPHRD_RAWIP: u16 = 519;
/// linux/if_arp.h
const ARPHRD_IP6GRE: u16 = 823;

/// Hardware types that carry bare IP packets and can be read without a link header.
const BARE_IP: [u16; 7] = [
    libc::ARPHRD_NONE,
    ARPHRD_RAWIP,
    libc::ARPHRD_PPP,
    libc::ARPHRD_TUNNEL6,
    libc::ARPHRD_SIT,
    libc::ARPHRD_IPGRE,
    ARPHRD_IP6GRE,
];

/// Kinds that no client arrives by: their packets come from nowhere, or are seen elsewhere (the
/// receive path of a VRF and of an ifb doesn't pass the device's own tc ingress).
const NEVER: [&str; 6] = ["dummy", "ifb", "nlmon", "vrf", "vcan", "vxcan"];

/// The uplinks ordered by index, and warnings about named ones that don't exist.
pub fn choose(
    links: &BTreeMap<u32, LinkInfo>,
    options: &SnapshotOptions,
) -> (Vec<Uplink>, Vec<String>) {
    let SnapshotOptions { uplinks: named, container_links, ignore } = options;
    if named.is_empty() {
        let chosen = links
            .values()
            .filter(|link| !ignore.contains(&link.name) && is_uplink(link, links, container_links))
            .map(uplink)
            .collect();
        return (chosen, Vec::new());
    }
    let chosen = links.values().filter(|link| named.contains(&link.name)).map(uplink).collect();
    let exists = |name: &&String| links.values().any(|link| link.name == **name);
    let missing: BTreeSet<_> = named.iter().filter(|name| !exists(name)).collect();
    let warnings = missing
        .into_iter()
        .map(|name| format!("uplink {name} doesn't exist; it is used as soon as it appears"))
        .collect();
    (chosen, warnings)
}

fn uplink(link: &LinkInfo) -> Uplink {
    Uplink {
        ifindex: link.ifindex,
        name: link.name.clone(),
        mtu: link.mtu,
        ethernet: link.is_ethernet(),
    }
}

fn is_uplink(
    link: &LinkInfo,
    links: &BTreeMap<u32, LinkInfo>,
    container_links: &BTreeSet<u32>,
) -> bool {
    let readable = link.is_ethernet() || BARE_IP.contains(&link.arphrd);
    if !link.is_up() || !link.ipv6 || !readable || has_master(link, links) {
        return false;
    }
    let targeted = container_links.contains(&link.ifindex);
    match link.kind.as_deref() {
        Some(kind) if NEVER.contains(&kind) => false,
        // A bridge of the host's own network may hold targets too: it is then both.
        Some("bridge") => bridge_is_uplink(link, links, targeted),
        Some("veth") => link.has_address && !targeted,
        // A target behind a network card or a tunnel doesn't make clients come another way.
        _ => true,
    }
}

/// A VRF isn't a master in this sense: packets of its members are seen at the members.
fn has_master(link: &LinkInfo, links: &BTreeMap<u32, LinkInfo>) -> bool {
    link.master.is_some_and(|master| links.get(&master).is_none_or(|master| !master.is_kind("vrf")))
}

/// Container engines make bridges with nothing but veths of containers, which are clients of published
/// ports where their network has IPv6. A bridge with a port towards another machine (a network card, a tap,
/// a vxlan, a host's own veth) leads somewhere.
fn bridge_is_uplink(bridge: &LinkInfo, links: &BTreeMap<u32, LinkInfo>, targeted: bool) -> bool {
    let mut ports = links.values().filter(|port| port.master == Some(bridge.ifindex)).peekable();
    if ports.peek().is_none() {
        return false;
    }
    let leads_out = ports.any(|port| !port.is_container_veth());
    let carries_clients = bridge.has_global_address || bridge.has_default_route;
    carries_clients || leads_out && !targeted
}

#[cfg(test)]
#[path = "uplinks_tests.rs"]
mod tests;
