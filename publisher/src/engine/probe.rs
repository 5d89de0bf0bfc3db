//! Asking a container whether an idle connection is still there (RFC 6146 §3.5.2.2, rule S8): a TCP segment
//! with ACK only and the sequence and acknowledgment numbers 0, as if from the client. A container that
//! knows the connection answers with an ACK, which establishes the session again.

use crate::datapath::Entry;
use publisher_common::layout::{Link, ReplyKey, link_flags};
use publisher_common::wire::protocol;
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};
use std::io;

/// Bytes of Ethernet, IPv4 and TCP headers.
const LENGTH: usize = 14 + 20 + 20;
const ETHERTYPE_IPV4: u16 = 0x0800;

/// Sends a probe for each of these sessions whose link is known, and returns for how many.
pub(super) fn send_all<'a>(
    entries: &[Entry],
    link_of: impl Fn(u32) -> Option<&'a Link>,
) -> io::Result<usize> {
    let mut sent = 0;
    if entries.is_empty() {
        return Ok(sent);
    }
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    for entry in entries {
        let link = link_of(entry.session.link.index).filter(|link| {
            link.flags & link_flags::UP != 0
                && link.generation == entry.session.link.generation
                && link.mac != [0; 6]
        });
        let Some(link) = link else { continue };
        let device = if link.veth != 0 { link.veth } else { link.device };
        // An interface that has just gone has no container behind it.
        if socket.send_to(&frame(link, &entry.reply), &address(device, link.mac)).is_ok() {
            sent += 1;
        }
    }
    Ok(sent)
}

fn address(ifindex: u32, mac: [u8; 6]) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    let mut to = [0; 8];
    to[..6].copy_from_slice(&mac);
    let link = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ETHERTYPE_IPV4.to_be(),
        sll_ifindex: ifindex.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: to,
    };
    // SAFETY: a `sockaddr_ll` fits into any socket address storage.
    unsafe { *storage.view_as::<libc::sockaddr_ll>() = link };
    // SAFETY: the storage holds an address of this family and length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

fn frame(link: &Link, reply: &ReplyKey) -> [u8; LENGTH] {
    let mut frame = [0; LENGTH];
    frame[..6].copy_from_slice(&link.mac);
    frame[6..12].copy_from_slice(&link.device_mac);
    frame[12..14].copy_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
    let ip = &mut frame[14..34];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&40u16.to_be_bytes());
    // Don't fragment: needs no identification.
    ip[6] = 0x40;
    (ip[8], ip[9]) = (64, protocol::TCP);
    ip[12..16].copy_from_slice(&reply.alias);
    ip[16..20].copy_from_slice(&reply.target);
    let sum = checksum(ip, 0);
    ip[10..12].copy_from_slice(&sum);
    let addresses: [u8; 8] = std::array::from_fn(|at| frame[26 + at]);
    let tcp = &mut frame[34..];
    tcp[..2].copy_from_slice(&reply.alias_port);
    tcp[2..4].copy_from_slice(&reply.target_port);
    (tcp[12], tcp[13]) = (5 << 4, publisher_common::wire::tcp_flags::ACK);
    let pseudo = u32::from(protocol::TCP) + 20 + sum_of(&addresses);
    let sum = checksum(tcp, pseudo);
    tcp[16..18].copy_from_slice(&sum);
    frame
}

fn sum_of(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum()
}

/// The Internet checksum (RFC 1071) of an even number of bytes and what was summed before.
fn checksum(bytes: &[u8], before: u32) -> [u8; 2] {
    let mut sum = before + sum_of(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s8_a_probe_is_a_bare_ack_with_right_checksums() {
        let link = Link { mac: [2; 6], device_mac: [4; 6], ..Link::default() };
        let reply = ReplyKey {
            target: [172, 17, 0, 2],
            alias: [198, 18, 3, 4],
            target_port: [0, 80],
            alias_port: [0x9c, 0x40],
            protocol: protocol::TCP,
            reserved: [0; 3],
        };
        let frame = frame(&link, &reply);
        assert_eq!((&frame[..6], &frame[6..12]), (&[2; 6][..], &[4; 6][..]));
        assert_eq!((&frame[26..30], &frame[30..34]), (&reply.alias[..], &reply.target[..]));
        assert_eq!((&frame[34..36], &frame[36..38]), (&[0x9c, 0x40][..], &[0, 80][..]));
        assert_eq!(frame[38..46], [0; 8], "sequence and acknowledgment number");
        assert_eq!(frame[46..48], [0x50, 0x10]);
        // A sum over everything, its checksum included, is 0.
        assert_eq!(checksum(&frame[14..34], 0), [0, 0]);
        let pseudo = u32::from(protocol::TCP) + 20 + sum_of(&frame[26..34]);
        assert_eq!(checksum(&frame[34..], pseudo), [0, 0]);
    }
}
