//! Neighbour entries (ARP) and the forwarding tables of bridges.

use std::{io, net::IpAddr};

use super::{
    netlink::{Client, Request, attribute, u16_at, u32_at},
    uapi::nda,
};

/// Size of `struct ndmsg`.
const NDMSG: usize = 12;
const AF_BRIDGE: u8 = libc::AF_BRIDGE as u8;

/// A neighbour entry of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Hardware address, once it is known and isn't known to be dead.
    pub mac: Option<[u8; 6]>,
    /// Set by hand: the kernel never asks for it.
    pub permanent: bool,
}

/// The entry of `address` on an interface; none when the kernel has none.
pub fn get(netlink: &Client, ifindex: u32, address: IpAddr) -> io::Result<Option<Neighbour>> {
    let request = request(libc::RTM_GETNEIGH, 0, ifindex, address, 0);
    match netlink.request(request) {
        Ok(body) => Ok(parse(&body)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the kernel ask for the hardware address now, from scratch: an entry that is there is
/// removed first, since asking the old hardware address alone takes three seconds to fail.
pub fn ask(netlink: &Client, ifindex: u32, address: IpAddr) -> io::Result<()> {
    let forget = request(libc::RTM_DELNEIGH, libc::NLM_F_ACK, ifindex, address, 0);
    match netlink.request(forget) {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        Err(error) => return Err(error),
    }
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE;
    netlink.request(request(libc::RTM_NEWNEIGH, flags, ifindex, address, nda::NTF_USE))?;
    Ok(())
}

fn request(kind: u16, flags: i32, ifindex: u32, address: IpAddr, ndm_flags: u8) -> Request {
    let mut header = [0; NDMSG];
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    header[10] = ndm_flags;
    match address {
        IpAddr::V4(address) => {
            header[0] = libc::AF_INET as u8;
            Request::new(kind, flags, &header).attr(nda::DST, &address.octets())
        }
        IpAddr::V6(address) => {
            header[0] = libc::AF_INET6 as u8;
            Request::new(kind, flags, &header).attr(nda::DST, &address.octets())
        }
    }
}

fn parse(body: &[u8]) -> Option<Neighbour> {
    let state = u16_at(body, 8)?;
    let mac = attribute(body.get(NDMSG..)?, nda::LLADDR).and_then(|mac| mac.try_into().ok());
    Some(Neighbour {
        mac: if state & nda::NUD_VALID != 0 { mac } else { None },
        permanent: state & nda::NUD_PERMANENT != 0,
    })
}

/// The bridge port that frames to `mac` leave by; none when the bridge would flood them.
pub fn bridge_port(netlink: &Client, bridge: u32, mac: [u8; 6]) -> io::Result<Option<u32>> {
    let mut header = [0; NDMSG];
    header[0] = AF_BRIDGE;
    let get = Request::new(libc::RTM_GETNEIGH, 0, &header)
        .attr(nda::LLADDR, &mac)
        .attr(nda::MASTER, &bridge.to_ne_bytes());
    // One entry can be asked for only without VLAN; a bridge that filters VLANs has its entries
    // under their identifiers, so that a miss here decides nothing.
    if let Ok(body) = netlink.request(get)
        && let Some((port, _, _)) = forwarding_entry(&body)
        && port != bridge
    {
        return Ok(Some(port));
    }
    let dump = netlink.dump(&Request::new(libc::RTM_GETNEIGH, libc::NLM_F_DUMP, &header))?;
    Ok(port_in_dump(&dump, bridge, mac))
}

fn port_in_dump(dump: &[Vec<u8>], bridge: u32, mac: [u8; 6]) -> Option<u32> {
    let mut entries = dump.iter().filter_map(|body| forwarding_entry(body));
    let found = entries.find(|(port, entry_mac, master)| {
        *entry_mac == mac && *master == Some(bridge) && *port != bridge
    });
    found.map(|(port, _, _)| port)
}

/// Port, hardware address and bridge of a forwarding entry. Addresses of the bridge's own ports
/// are in the table as well, as permanent entries: no target has one of them.
fn forwarding_entry(body: &[u8]) -> Option<(u32, [u8; 6], Option<u32>)> {
    let attributes = body.get(NDMSG..)?;
    let mac = attribute(attributes, nda::LLADDR)?.try_into().ok()?;
    let master = attribute(attributes, nda::MASTER).and_then(|value| u32_at(value, 0));
    let own = u16_at(body, 8)? & nda::NUD_PERMANENT != 0;
    if own { None } else { Some((u32_at(body, 4)?, mac, master)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry as a bridge that filters VLANs gives it.
    fn entry(port: u32, mac: [u8; 6], master: u32, state: u16) -> Vec<u8> {
        let mut body = vec![AF_BRIDGE, 0, 0, 0];
        body.extend_from_slice(&port.to_ne_bytes());
        body.extend_from_slice(&state.to_ne_bytes());
        body.extend_from_slice(&[0, 0]);
        let vlan = [6, 0, 5, 0, 1, 0, 0, 0];
        body.extend_from_slice(&[10, 0, 2, 0]);
        body.extend_from_slice(&mac);
        body.extend_from_slice(&[0, 0]);
        body.extend_from_slice(&vlan);
        body.extend_from_slice(&[8, 0, 9, 0]);
        body.extend_from_slice(&master.to_ne_bytes());
        body
    }

    #[test]
    fn finds_the_port_of_an_address_on_its_own_bridge() {
        let mac = [2, 0, 0, 0, 0, 1];
        let other = [2, 0, 0, 0, 0, 2];
        for (entries, expected) in [
            (vec![entry(7, mac, 3, 2)], Some(7)),
            (vec![entry(6, other, 3, 2), entry(8, mac, 4, 2), entry(7, mac, 3, 2)], Some(7)),
            (vec![entry(8, mac, 4, 2)], None),
            (vec![entry(7, mac, 3, nda::NUD_PERMANENT)], None),
            (vec![entry(3, mac, 3, 2)], None),
            (vec![vec![AF_BRIDGE; 5]], None),
        ] {
            assert_eq!(port_in_dump(&entries, 3, mac), expected, "{entries:?}");
        }
    }
}
