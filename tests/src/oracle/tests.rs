//! The judge is judged: it accepts what the core makes, and notices every bit that is changed.

use super::*;
use etherparse::PacketBuilder;
use publisher_common::layout::ReplyKey;
use publisher_common::native::{MemoryTables, Outcome, from_container, from_uplink, samples};

/// Maximum segment size 1460, at an odd offset.
const OPTIONS: &[u8] = &[1, 2, 4, 0x05, 0xb4, 1, 1, 0];

fn client(
    build: impl FnOnce(etherparse::PacketBuilderStep<etherparse::IpHeaders>) -> Vec<u8>,
) -> Vec<u8> {
    let mut bytes = build(PacketBuilder::ipv6(samples::CLIENT, samples::HOST, 64));
    // A traffic class; a flow label that has to go.
    (bytes[0], bytes[1], bytes[3]) = (0x6b, 0x80, 0x77);
    bytes
}

fn written(
    result: Result<(), etherparse::err::packet::BuildWriteError>,
    bytes: Vec<u8>,
) -> Vec<u8> {
    result.expect("a packet that can be built");
    bytes
}

fn uplink(bytes: &[u8], tables: &mut MemoryTables) -> Vec<u8> {
    match from_uplink(bytes, &samples::arrival(samples::UPLINK, bytes.len()), tables) {
        Outcome::ToContainer(after, _) => after,
        other => panic!("{other:?}"),
    }
}

fn veth(bytes: &[u8], tables: &mut MemoryTables) -> Vec<u8> {
    let arrival = samples::arrival(samples::VETH, bytes.len() - 14);
    match from_container::<false>(bytes, &arrival, tables) {
        Outcome::ToClient(after, _) => after,
        other => panic!("{other:?}"),
    }
}

fn syn() -> Vec<u8> {
    client(|ip| {
        let mut bytes = Vec::new();
        let tcp = ip.tcp(50_000, 8080, 7, 64_000).syn().options_raw(OPTIONS).expect("options");
        written(tcp.write(&mut bytes, b"early"), bytes)
    })
}

fn datagram() -> Vec<u8> {
    client(|ip| {
        let mut bytes = Vec::new();
        written(ip.udp(50_000, 8080).write(&mut bytes, b"hello"), bytes)
    })
}

/// A packet and its translation each: TCP and UDP, to the container and to the client.
fn pairs() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut tables = samples::tables();
    let mut pairs = Vec::new();
    for before in [syn(), datagram()] {
        let after = uplink(&before, &mut tables);
        let (alias, port) = ([after[12], after[13], after[14], after[15]], &after[20..22]);
        let port = u16::from_be_bytes([port[0], port[1]]);
        pairs.push((before, after.clone()));
        let ip =
            PacketBuilder::ethernet2(samples::TARGET_MAC, [2; 6]).ipv4(samples::TARGET, alias, 64);
        let mut frame = Vec::new();
        let result = if after[9] == protocol::TCP {
            let tcp = ip.tcp(80, port, 9, 64_000).syn().ack(8);
            tcp.options_raw(OPTIONS).expect("options").write(&mut frame, b"")
        } else {
            ip.udp(80, port).write(&mut frame, b"world!")
        };
        let frame = written(result, frame);
        let after = veth(&frame, &mut tables);
        pairs.push((frame[14..].to_vec(), after));
    }
    pairs
}

/// Errors of both sides about an established session, and what the core makes of them.
fn errors() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut tables = samples::tables();
    let there = uplink(&datagram(), &mut tables);
    let reply = ReplyKey {
        target: samples::TARGET,
        alias: [there[12], there[13], there[14], there[15]],
        target_port: samples::TARGET_PORT,
        alias_port: [there[20], there[21]],
        protocol: protocol::UDP,
        reserved: [0; 3],
    };
    let mut frame = Vec::new();
    let port = u16::from_be_bytes(reply.alias_port);
    let ethernet = || PacketBuilder::ethernet2(samples::TARGET_MAC, [2; 6]);
    let answer = ethernet().ipv4(reply.target, reply.alias, 64).udp(80, port);
    let result = answer.write(&mut frame, b"world!");
    let frame = written(result, frame);
    let back = veth(&frame, &mut tables);
    let _ = uplink(&datagram(), &mut tables);

    let mut too_big = Vec::new();
    let result = PacketBuilder::ipv6([0x20; 16], samples::HOST, 60)
        .icmpv6_raw(2, 0, 1_400u32.to_be_bytes())
        .write(&mut too_big, &back);
    let too_big = written(result, too_big);
    let mut needed = Vec::new();
    let result = ethernet()
        .ipv4(reply.target, reply.alias, 64)
        .icmpv4_raw(3, 4, [0, 0, 5, 0])
        .write(&mut needed, &there);
    let needed = written(result, needed);
    let (to_container, to_client) = (uplink(&too_big, &mut tables), veth(&needed, &mut tables));
    vec![(too_big, to_container), (needed[14..].to_vec(), to_client)]
}

/// A datagram without a checksum, which gets one: the right one, that its neighbour has kept.
fn unsummed() -> (Vec<u8>, Vec<u8>) {
    let (mut before, after) = pairs().pop().expect("a container's datagram");
    before[26..28].fill(0);
    (before, after)
}

#[test]
fn every_changed_bit_is_noticed() {
    for (before, after) in pairs().into_iter().chain([unsummed()]) {
        check(&before, &after).expect("the core's translation");
        for bit in 0..after.len() * 8 {
            let mut changed = after.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&before, &changed).is_err(), "bit {bit} of {after:02x?}");
        }
    }
}

#[test]
fn every_changed_bit_of_an_error_is_noticed() {
    for (before, after) in errors() {
        check(&before, &after).expect("the core's error");
        for bit in 0..after.len() * 8 {
            let mut changed = after.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // An error's own class and hop limit are its maker's choice; no sum covers IPv6's.
            let free = after[0] >> 4 == 6 && (matches!(bit / 8, 0 | 1 | 7));
            assert!(free || check(&before, &changed).is_err(), "bit {bit} of {after:02x?}");
        }
    }
}

#[test]
fn another_length_is_noticed() {
    for (before, after) in pairs().into_iter().chain(errors()) {
        for length in 0..after.len() {
            assert!(check(&before, &after[..length]).is_err(), "{length}");
        }
        let longer = [&after[..], &[0]].concat();
        assert!(check(&before, &longer).is_err(), "one byte more");
    }
}

#[test]
fn g9_a_wrong_sum_has_to_stay_as_wrong() {
    for (mut before, mut after) in pairs() {
        let transport = |bytes: &[u8]| if bytes[0] >> 4 == 4 { 20 } else { 40 };
        let at = if after[transport(&after)..].len() < 20 { 6 } else { 16 };
        let (old, new) = (transport(&before) + at, transport(&after) + at);
        let shift = |bytes: &mut [u8], at: usize| {
            let sum = u16::from_be_bytes([bytes[at], bytes[at + 1]]).wrapping_add(0x100);
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        };
        shift(&mut before, old);
        assert!(check(&before, &after).is_err(), "repaired");
        shift(&mut after, new);
        check(&before, &after).expect("as wrong as it was");
    }
}

#[test]
fn a_raised_mss_is_noticed() {
    let (before, mut after) = pairs().swap_remove(0);
    assert_eq!(after[43..45], 1_440u16.to_be_bytes(), "lowered");
    for (value, right) in [(1_440u16, true), (1_000, true), (1_460, true), (1_461, false)] {
        let difference =
            u32::from(u16::from_be_bytes([after[43], after[44]])) + 0xffff - u32::from(value);
        // Both bytes lie on odd offsets: their share of the sum is turned round.
        let share = ((difference % 0xffff) as u16).swap_bytes();
        let sum = u32::from(u16::from_be_bytes([after[36], after[37]])) + u32::from(share);
        after[36..38].copy_from_slice(&((sum % 0xffff) as u16).to_be_bytes());
        after[43..45].copy_from_slice(&value.to_be_bytes());
        assert_eq!(check(&before, &after).is_ok(), right, "{value}");
    }
}
