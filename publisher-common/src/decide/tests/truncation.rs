//! Packets cut at every byte: never translated where a length lies, as much of them as there is
//! where it doesn't, and no session knows of one that was dropped.

use super::error_contents::sum;
use super::kinds::{self, Kind, Side};
use super::packets::reseal;
use super::*;
use crate::native::MemoryTables;
use crate::wire::protocol;
use std::vec::Vec;

/// Sessions and datagrams, which a packet that is dropped doesn't change.
fn assert_unchanged(before: &MemoryTables, after: &MemoryTables, what: &str, length: usize) {
    assert_eq!(after.forward, before.forward, "{what} of {length} bytes");
    assert_eq!(after.reverse, before.reverse, "{what} of {length} bytes");
    assert_eq!(after.half_open, before.half_open, "{what} of {length} bytes");
    assert_eq!(after.closing, before.closing, "{what} of {length} bytes");
    assert_eq!(after.aliases, before.aliases, "{what} of {length} bytes");
    assert_eq!(after.fragments_in, before.fragments_in, "{what} of {length} bytes");
    assert_eq!(after.fragments_out, before.fragments_out, "{what} of {length} bytes");
}

fn translated(outcome: &Outcome) -> Option<&[u8]> {
    match outcome {
        Outcome::ToContainer(bytes, _) | Outcome::ToClient(bytes, _) => Some(bytes),
        _ => None,
    }
}

/// The IP header's length stays as it was.
fn ends_early(kinds: &[Kind]) {
    for kind in kinds {
        let mut host = kind.again();
        for length in 0..kind.bytes.len() {
            let outcome = kind.send(&mut host, &kind.bytes[..length]);
            assert!(kind.at(length).contains(&outcome), "{}, {length}: {outcome:?}", kind.name);
            assert_unchanged(&kind.host.tables, &host.tables, &kind.name, length);
        }
        // It is its length that stopped it.
        let outcome = kind.send(&mut host, &kind.bytes);
        match &kind.whole {
            Some(whole) => assert_eq!(outcome, *whole, "{}", kind.name),
            None => assert!(translated(&outcome).is_some(), "{}: {outcome:?}", kind.name),
        }
    }
}

/// The first `length` bytes, as they would be sent: with the length and the checksums of these.
fn shortened(kind: &Kind, length: usize) -> Vec<u8> {
    let mut bytes = kind.bytes[..length].to_vec();
    let number = match kind.side {
        Side::Uplink if length >= 40 => {
            bytes[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes());
            transport_of(&kind.bytes, kind.transport)
        }
        Side::Veth if length >= usize::from(kind.bytes[0] & 15) * 4 => {
            bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            reseal(&mut bytes);
            kind.bytes[9]
        }
        _ => return bytes,
    };
    if kind.fragment.is_some() || length < kind.least {
        return bytes;
    }
    let payload = ((length - kind.transport) as u16).to_be_bytes();
    let at = kind.transport
        + match number {
            protocol::TCP => 16,
            protocol::UDP => 6,
            _ => 2,
        };
    if number == protocol::UDP {
        bytes[at - 2..at].copy_from_slice(&payload);
    }
    bytes[at..at + 2].fill(0);
    let addresses = match (kind.side, number) {
        (_, protocol::ICMP) => &[][..],
        (Side::Uplink, _) => &bytes[8..40],
        (Side::Veth, _) => &bytes[12..20],
    };
    let lengths =
        if number == protocol::ICMP { [0; 4] } else { [payload[0], payload[1], 0, number] };
    let all = [addresses, &lengths, &bytes[kind.transport..]].concat();
    let checksum = !(sum(&all) as u16);
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// The number of what stands at `transport`, behind IPv6 and extension headers.
fn transport_of(bytes: &[u8], transport: usize) -> u8 {
    let (mut number, mut at) = (bytes[6], 40);
    while at < transport {
        let length = if number == protocol::FRAGMENT { 0 } else { usize::from(bytes[at + 1]) };
        (number, at) = (bytes[at], at + 8 * (length + 1));
    }
    number
}

/// Lengths and checksums of what was translated, by another parser and by a plain sum.
pub fn judge(bytes: &[u8], what: &str) {
    if bytes[0] >> 4 == 4 {
        let header = etherparse::Ipv4HeaderSlice::from_slice(bytes).expect("an IPv4 header");
        assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum(), "{what}");
        assert_eq!(usize::from(header.total_len()), bytes.len(), "{what}");
        if bytes[9] == protocol::ICMP {
            assert_eq!(sum(&bytes[20..]), 0xffff, "{what}");
        } else if !header.is_fragmenting_payload() {
            let _ = Seen::of(bytes);
        }
        return;
    }
    let header = etherparse::Ipv6HeaderSlice::from_slice(bytes).expect("an IPv6 header");
    assert_eq!(usize::from(header.payload_length()) + 40, bytes.len(), "{what}");
    match bytes[6] {
        protocol::ICMPV6 => {
            let [high, low] = header.payload_length().to_be_bytes();
            let pseudo_header = [&bytes[8..40], &[0, 0, high, low, 0, 0, 0, protocol::ICMPV6]];
            assert_eq!(sum(&[&pseudo_header.concat(), &bytes[40..]].concat()), 0xffff, "{what}");
        }
        protocol::FRAGMENT => assert!(bytes.len() > 48, "{what}"),
        _ => {
            let _ = Seen::of(bytes);
        }
    }
}

/// The IP header's length is that of what is left.
fn is_shorter(kinds: &[Kind]) {
    for kind in kinds {
        for length in 0..=kind.bytes.len() {
            let what = &kind.name;
            let mut host = kind.again();
            let outcome = kind.send(&mut host, &shortened(kind, length));
            let carried = length.saturating_sub(kind.transport);
            let malformed =
                kind.fragment.is_some_and(|more| carried == 0 || more && carried % 8 != 0);
            if length < kind.least {
                assert!(kind.at(length).contains(&outcome), "{what}, {length}: {outcome:?}");
            } else if malformed {
                assert_eq!(outcome, dropped(Reason::Fragment), "{what}, {length}");
            } else if let Some(whole) = &kind.whole {
                assert_eq!(outcome, *whole, "{what}, {length}");
            } else {
                let Some(bytes) = translated(&outcome) else {
                    panic!("{what}, {length}: {outcome:?}")
                };
                judge(bytes, what);
                continue;
            }
            assert_unchanged(&kind.host.tables, &host.tables, what, length);
        }
    }
}

#[test]
fn h1_a_clients_packet_that_ends_early() {
    ends_early(&kinds::of_clients());
}

#[test]
fn h1_a_clients_packet_of_every_length() {
    is_shorter(&kinds::of_clients());
}

#[test]
fn h5_h7_a_packet_that_ends_early_behind_extension_headers() {
    ends_early(&kinds::of_clients_extended());
}

#[test]
fn h5_h7_a_packet_of_every_length_behind_extension_headers() {
    is_shorter(&kinds::of_clients_extended());
}

#[test]
fn s14_a_clients_fragment_that_ends_early() {
    ends_early(&kinds::fragments_of_clients());
}

#[test]
fn s14_a_clients_fragment_of_every_length() {
    is_shorter(&kinds::fragments_of_clients());
}

#[test]
fn i9_an_error_of_the_clients_side_that_ends_early() {
    ends_early(&kinds::errors_of_clients());
}

#[test]
fn i9_i11_an_error_of_the_clients_side_of_every_length() {
    is_shorter(&kinds::errors_of_clients());
}

#[test]
fn g1_a_containers_packet_that_ends_early() {
    ends_early(&kinds::of_containers());
}

#[test]
fn g1_g2_a_containers_packet_of_every_length() {
    is_shorter(&kinds::of_containers());
}

#[test]
fn g6_s14_a_containers_fragment_that_ends_early() {
    ends_early(&kinds::fragments_of_containers());
}

#[test]
fn g6_s14_a_containers_fragment_of_every_length() {
    is_shorter(&kinds::fragments_of_containers());
}

#[test]
fn i9_an_error_of_the_containers_side_that_ends_early() {
    ends_early(&kinds::errors_of_containers());
}

#[test]
fn i9_i11_an_error_of_the_containers_side_of_every_length() {
    is_shorter(&kinds::errors_of_containers());
}

#[test]
fn g10_a_datagram_that_can_not_be_summed_changes_no_session() {
    for kind in kinds::of_containers() {
        if kind.bytes[9] != protocol::UDP {
            continue;
        }
        let lengths = [0, 7, (kind.bytes.len() - kind.transport) as u16 + 1, u16::MAX];
        for length in lengths {
            let mut bytes = kind.bytes.clone();
            let at = kind.transport + 4;
            bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
            bytes[at + 2..at + 4].fill(0);
            let mut host = kind.again();
            let outcome = kind.send(&mut host, &bytes);
            assert!(matches!(outcome, Outcome::Stop(Stop::Drop(_))), "{}: {outcome:?}", kind.name);
            assert_unchanged(&kind.host.tables, &host.tables, &kind.name, bytes.len());
        }
    }
}
