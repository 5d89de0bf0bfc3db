//! Reads routes: what is local, where a packet would go, what a pool would overlap.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::Ipv4Net;

use super::{
    netlink::{Client, Request, attribute, attributes, u32_at},
    types::{LinkInfo, LocalPrefix},
    uapi::{rta, rtn},
};

/// Size of `struct rtmsg`.
const RTMSG: usize = 12;
const MAIN: u32 = libc::RT_TABLE_MAIN as u32;
const LOCAL: u32 = libc::RT_TABLE_LOCAL as u32;
const AF_INET: u8 = libc::AF_INET as u8;
const AF_INET6: u8 = libc::AF_INET6 as u8;

/// The kernel's answer to "where would a packet to this address go?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteAnswer {
    /// Route type (`RTN_*`).
    pub kind: u8,
    /// Index of the interface that it leaves by.
    pub device: Option<u32>,
    /// The next router, when the address isn't on the link itself.
    pub via: Option<IpAddr>,
    /// The source address that the host would use.
    pub source: Option<Ipv4Addr>,
    /// MTU of the route in bytes, when it has one of its own.
    pub mtu: Option<u32>,
}

/// Looks up the IPv4 route to `target`, for packets from `from` if given.
///
/// # Errors
/// `ENETUNREACH` and the like without a route, `EINVAL` when `from` isn't an address of the
/// namespace.
pub fn get(netlink: &Client, target: Ipv4Addr, from: Option<Ipv4Addr>) -> io::Result<RouteAnswer> {
    let mut header = [0; RTMSG];
    header[0] = AF_INET;
    header[1] = 32;
    header[2] = if from.is_some() { 32 } else { 0 };
    let mut request = Request::new(libc::RTM_GETROUTE, 0, &header).attr(rta::DST, &target.octets());
    if let Some(from) = from {
        request = request.attr(rta::SRC, &from.octets());
    }
    let body = netlink.request(request)?;
    let malformed = || io::Error::from_raw_os_error(libc::EBADMSG);
    let attributes = body.get(RTMSG..).ok_or_else(malformed)?;
    let address = |kind| attribute(attributes, kind).and_then(ip);
    Ok(RouteAnswer {
        kind: body[7],
        device: attribute(attributes, rta::OIF).and_then(|value| u32_at(value, 0)),
        // RTA_VIA starts with a 16-bit address family.
        via: address(rta::GATEWAY)
            .or_else(|| attribute(attributes, rta::VIA).and_then(|value| ip(value.get(2..)?))),
        source: match address(rta::PREFSRC) {
            Some(IpAddr::V4(source)) => Some(source),
            _ => None,
        },
        mtu: attribute(attributes, rta::METRICS)
            .and_then(|metrics| attribute(metrics, rta::RTAX_MTU))
            .and_then(|value| u32_at(value, 0)),
    })
}

/// What the IPv6 routes of all tables say.
#[derive(Debug, Default)]
pub struct Ipv6Routes {
    /// Unicast routes of type `local`, without `::1`: sorted, no duplicates.
    pub locals: Vec<LocalPrefix>,
    /// Indexes of the interfaces that default routes leave by.
    pub default_devices: BTreeSet<u32>,
}

/// Reads the IPv6 routes, in one pass: a router may have hundreds of thousands.
pub fn ipv6(netlink: &Client) -> io::Result<Ipv6Routes> {
    let bodies = netlink.dump(&dump_request(AF_INET6))?;
    let locals: BTreeSet<_> = bodies.iter().filter_map(|body| local(body)).collect();
    let defaults =
        bodies.iter().filter(|body| body.len() >= RTMSG && body[1] == 0 && body[7] == rtn::UNICAST);
    Ok(Ipv6Routes {
        locals: locals.into_iter().collect(),
        default_devices: defaults.flat_map(|body| out_devices(&body[RTMSG..])).collect(),
    })
}

fn local(body: &[u8]) -> Option<LocalPrefix> {
    if *body.get(7)? != rtn::LOCAL {
        return None;
    }
    let attributes = body.get(RTMSG..)?;
    let address = match attribute(attributes, rta::DST) {
        Some(value) => Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?),
        None => Ipv6Addr::UNSPECIFIED,
    };
    // Transparent proxies have a local default route in a table of their own, for packets that a
    // mark sends there. It makes no address the host's.
    let everything_elsewhere = body[1] == 0 && !matches!(table(body, attributes), MAIN | LOCAL);
    if address.is_multicast() || address.is_loopback() || everything_elsewhere {
        return None;
    }
    let scope = match address.is_unicast_link_local() {
        true => attribute(attributes, rta::OIF).and_then(|value| u32_at(value, 0))?,
        false => 0,
    };
    Some(LocalPrefix { address, prefix_len: body[1], scope })
}

/// The table that a route is in.
fn table(body: &[u8], attributes: &[u8]) -> u32 {
    let table = attribute(attributes, rta::TABLE).and_then(|value| u32_at(value, 0));
    table.unwrap_or_else(|| u32::from(body[4]))
}

/// The interfaces of a route: one, or one for each hop of a multipath route.
fn out_devices(route: &[u8]) -> Vec<u32> {
    let mut devices = Vec::new();
    for (kind, value) in attributes(route) {
        match kind {
            rta::OIF => devices.extend(u32_at(value, 0)),
            rta::MULTIPATH => {
                // struct rtnexthop: length, flags, hops, interface index, then attributes.
                let mut hops = value;
                while let (Some(length), Some(ifindex)) =
                    (super::netlink::u16_at(hops, 0), u32_at(hops, 4))
                {
                    devices.push(ifindex);
                    let length = usize::from(length).next_multiple_of(4).max(8);
                    hops = hops.get(length..).unwrap_or_default();
                }
            }
            _ => {}
        }
    }
    devices
}

/// The host's IPv4 routes, in any table and default routes left out, that overlap `pool`, in
/// words. Its addresses are among them: each has a route of type `local`.
pub fn conflicts(
    netlink: &Client,
    links: &BTreeMap<u32, LinkInfo>,
    pool: Ipv4Net,
) -> io::Result<Vec<String>> {
    let mut found = BTreeSet::new();
    for body in netlink.dump(&dump_request(AF_INET))? {
        let Some((network, words)) = describe(&body, links) else { continue };
        if network.prefix_len() != 0 && overlap(network, pool) {
            found.insert(words);
        }
    }
    Ok(found.into_iter().collect())
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn describe(body: &[u8], links: &BTreeMap<u32, LinkInfo>) -> Option<(Ipv4Net, String)> {
    let attributes = body.get(RTMSG..)?;
    let address = match attribute(attributes, rta::DST) {
        Some(value) => Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?),
        None => Ipv4Addr::UNSPECIFIED,
    };
    let network = Ipv4Net::new(address, body[1]).ok()?;
    let kind = match body[7] {
        rtn::UNICAST => "route",
        rtn::LOCAL => "local address",
        // These only go along with an address.
        rtn::BROADCAST | rtn::ANYCAST | rtn::MULTICAST => return None,
        _ => "unreachable or special route",
    };
    let mut words = format!("{kind} {network}");
    let device = out_devices(attributes).first().and_then(|ifindex| links.get(ifindex));
    if let Some(link) = device {
        words.push_str(&format!(" dev {}", link.name));
    }
    match table(body, attributes) {
        MAIN | LOCAL => {}
        table => words.push_str(&format!(" table {table}")),
    }
    Some((network, words))
}

fn dump_request(family: u8) -> Request {
    let mut header = [0; RTMSG];
    header[0] = family;
    Request::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &header)
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_overlap_when_one_holds_the_other() {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        for (a, b, expected) in [
            ("198.18.0.0/15", "198.18.0.0/15", true),
            ("198.18.0.0/15", "198.19.255.0/24", true),
            ("198.0.0.0/8", "198.18.0.0/15", true),
            ("198.18.0.0/15", "198.20.0.0/16", false),
            ("198.18.0.0/15", "10.0.0.0/8", false),
        ] {
            assert_eq!(overlap(net(a), net(b)), expected, "{a} {b}");
            assert_eq!(overlap(net(b), net(a)), expected, "{b} {a}");
        }
    }

    #[test]
    fn multipath_routes_name_every_device() {
        let hop = |ifindex: u32| {
            let mut bytes = vec![16, 0, 0, 0];
            bytes.extend_from_slice(&ifindex.to_ne_bytes());
            bytes.extend_from_slice(&[8, 0, 5, 0, 10, 0, 0, 1]);
            bytes
        };
        let hops = [hop(4), hop(9)].concat();
        let mut route = Vec::new();
        route.extend_from_slice(&(4 + hops.len() as u16).to_ne_bytes());
        route.extend_from_slice(&rta::MULTIPATH.to_ne_bytes());
        route.extend_from_slice(&hops);
        assert_eq!(out_devices(&route), [4, 9]);
        // A hop that claims no length must not hold the reader for ever.
        route[4..6].copy_from_slice(&[0, 0]);
        assert!(!out_devices(&route).is_empty());
    }
}
