//! Reads the interfaces of a network namespace.

use std::{collections::BTreeMap, io};

use super::{
    netlink::{Client, Request, attribute, attributes, string, u16_at, u32_at},
    types::LinkInfo,
    uapi::{ifa, ifla},
};

/// Size of `struct ifinfomsg`.
const IFINFOMSG: usize = 16;
/// Size of `struct ifaddrmsg`.
const IFADDRMSG: usize = 8;
const AF_INET6: u8 = libc::AF_INET6 as u8;

/// All interfaces by index, with what their IPv6 addresses say; default routes aren't filled in.
pub fn all(netlink: &Client) -> io::Result<BTreeMap<u32, LinkInfo>> {
    let request = Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; IFINFOMSG]);
    let mut links: BTreeMap<u32, LinkInfo> = netlink
        .dump(&request)?
        .iter()
        .filter_map(|body| parse(body))
        .map(|link| (link.ifindex, link))
        .collect();
    for (ifindex, link_local) in addresses(netlink)? {
        if let Some(link) = links.get_mut(&ifindex) {
            link.has_address = true;
            link.has_global_address |= !link_local;
        }
    }
    Ok(links)
}

/// One interface; addresses and default routes aren't filled in.
///
/// # Errors
/// `ENODEV` when there is none of that index.
pub fn one(netlink: &Client, ifindex: u32) -> io::Result<LinkInfo> {
    let mut header = [0; IFINFOMSG];
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    let body = netlink.request(Request::new(libc::RTM_GETLINK, 0, &header))?;
    parse(&body).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

fn parse(body: &[u8]) -> Option<LinkInfo> {
    let mut link = LinkInfo {
        arphrd: u16_at(body, 2)?,
        ifindex: u32_at(body, 4)?,
        flags: u32_at(body, 8)?,
        ..LinkInfo::default()
    };
    for (kind, value) in attributes(body.get(IFINFOMSG..)?) {
        match kind {
            ifla::IFNAME => link.name = string(value),
            ifla::MTU => link.mtu = u32_at(value, 0)?,
            ifla::ADDRESS => link.mac = value.try_into().ok(),
            ifla::LINK => link.link = u32_at(value, 0),
            ifla::MASTER => link.master = u32_at(value, 0),
            ifla::QDISC => link.qdisc = Some(string(value)),
            ifla::LINK_NETNSID => link.link_netnsid = u32_at(value, 0).map(|id| id as i32),
            ifla::LINKINFO => link.kind = attribute(value, ifla::INFO_KIND).map(string),
            ifla::XDP => link.native_xdp = native_xdp(value),
            ifla::AF_SPEC => link.ipv6 = ipv6_enabled(value),
            _ => {}
        }
    }
    Some(link)
}

fn native_xdp(value: &[u8]) -> bool {
    let mode = attribute(value, ifla::XDP_ATTACHED).and_then(|mode| mode.first());
    matches!(
        mode,
        Some(&ifla::XDP_ATTACHED_DRV | &ifla::XDP_ATTACHED_HW | &ifla::XDP_ATTACHED_MULTI)
    )
}

/// An interface without IPv6 (switched off for good, or MTU below 1280) has no such attribute.
fn ipv6_enabled(af_spec: &[u8]) -> bool {
    attribute(af_spec, u16::from(AF_INET6))
        .and_then(|inet6| attribute(inet6, ifla::INET6_CONF))
        .is_some_and(|conf| u32_at(conf, ifla::DEVCONF_DISABLE_IPV6 * 4) == Some(0))
}

/// Interface index of each IPv6 address, and whether the address is link-local.
fn addresses(netlink: &Client) -> io::Result<Vec<(u32, bool)>> {
    let mut header = [0; IFADDRMSG];
    header[0] = AF_INET6;
    let bodies = netlink.dump(&Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &header))?;
    let parse = |body: &Vec<u8>| {
        let attributes = body.get(IFADDRMSG..)?;
        // With a peer address, ADDRESS is the peer's and LOCAL is ours.
        let address =
            attribute(attributes, ifa::LOCAL).or_else(|| attribute(attributes, ifa::ADDRESS))?;
        Some((u32_at(body, 4)?, address.starts_with(&[0xfe, 0x80])))
    };
    Ok(bodies.iter().filter_map(parse).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut header = [0; IFINFOMSG];
        header[2..4].copy_from_slice(&libc::ARPHRD_ETHER.to_ne_bytes());
        header[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        header[8..12].copy_from_slice(&1_u32.to_ne_bytes());
        let mut body = header.to_vec();
        body.extend(nested(attributes));
        body
    }

    fn nested(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, value) in attributes {
            bytes.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn reads_a_container_veth() {
        let mut conf = vec![0_u8; 30 * 4];
        let inet6 = nested(&[(ifla::INET6_CONF, &conf)]);
        let af_spec = nested(&[(10, &inet6)]);
        let body = message(&[
            (ifla::IFNAME, b"veth0\0"),
            (ifla::MTU, &1500_u32.to_ne_bytes()),
            (ifla::ADDRESS, &[2, 0, 0, 0, 0, 1]),
            (0x8000 | ifla::LINKINFO, &nested(&[(ifla::INFO_KIND, b"veth\0")])),
            (ifla::LINK_NETNSID, &3_i32.to_ne_bytes()),
            (ifla::AF_SPEC, &af_spec),
            (4000, b"unknown to us"),
        ]);
        let link = parse(&body).unwrap();
        assert_eq!((link.name.as_str(), link.ifindex, link.mtu), ("veth0", 7, 1500));
        assert_eq!(link.mac, Some([2, 0, 0, 0, 0, 1]));
        assert!(link.is_container_veth() && link.is_up() && link.ipv6 && !link.native_xdp);

        conf[ifla::DEVCONF_DISABLE_IPV6 * 4] = 1;
        let inet6 = nested(&[(ifla::INET6_CONF, &conf)]);
        let body = message(&[(ifla::AF_SPEC, &nested(&[(10, &inet6)]))]);
        assert!(!parse(&body).unwrap().ipv6);
    }

    #[test]
    fn tells_native_from_generic_xdp() {
        for (mode, native) in [(0, false), (1, true), (2, false), (3, true), (4, true)] {
            assert_eq!(native_xdp(&nested(&[(ifla::XDP_ATTACHED, &[mode])])), native, "{mode}");
        }
    }

    #[test]
    fn a_truncated_message_is_no_link() {
        let body = message(&[(ifla::IFNAME, b"eth0\0")]);
        assert!(parse(&body[..IFINFOMSG - 1]).is_none());
        assert_eq!(parse(&body[..IFINFOMSG + 3]).unwrap().name, "");
    }
}
