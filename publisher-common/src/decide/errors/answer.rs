//! Errors that the translator sends itself, about a packet of a session that goes no further.
//!
//! Only TCP and UDP packets between one client and one container come to this: never an ICMP error, a
//! fragment without ports, or a multicast (RFC 4443 §2.4 e). How often is the program's business.

use super::{ErrorWorkspace, from_container};
use crate::checksum::{Difference, checksum};
use crate::decide::{Answer, Decision, Stop};
use crate::layout::ReplyKey;
use crate::packet::{Arrival, Packet};
use crate::reason::Reason;
use crate::tables::Tables;
use crate::translate::icmp::{IPV4_ERROR, IPV6_ERROR};
use crate::wire::{
    HEADER_GROWTH, ICMP_LENGTH, IPV4_LENGTH, IPV6_LENGTH, Ipv4Header, icmpv4, icmpv6, protocol,
};

/// Hop limit and TTL of an error that is made here.
const HOPS: u8 = 64;
/// Where an ICMPv6 error's embedded packet starts.
const EMBEDDED6: usize = IPV6_LENGTH + ICMP_LENGTH;
/// Where an ICMPv4 error's embedded packet starts.
const EMBEDDED4: usize = IPV4_LENGTH + ICMP_LENGTH;

/// Tells a client what became of its packet: [`ErrorWorkspace::error`] goes back to it, from the host's
/// address that it asked (RFC 7915 §5.1, §5.4). `told` is what [`crate::decide::Workspace::told`] says.
#[inline(always)]
pub fn answer_client<P: Packet>(
    packet: &P,
    arrival: &Arrival,
    (answer, told): (Answer, u32),
    work: &mut ErrorWorkspace,
) -> Decision<()> {
    work.arrival = *arrival;
    work.mtu = told;
    embed_ipv6(packet, answer, work)
}

/// Embeds a client's packet in an ICMPv6 error about it.
#[inline(never)]
fn embed_ipv6<P: Packet>(packet: &P, answer: Answer, work: &mut ErrorWorkspace) -> Decision<()> {
    let gone: Decision<()> = Err(Stop::Drop(answer.reason()));
    let length = work.arrival.length.min((IPV6_ERROR - EMBEDDED6) as u32);
    let message = &mut work.message;
    let Some(room) = message[EMBEDDED6..].first_chunk_mut::<{ IPV6_ERROR - EMBEDDED6 }>() else {
        return gone;
    };
    if !packet.copy(0, length, room) {
        return gone;
    }
    let Some(sum) = packet.sum(0, length) else { return gone };
    // Read from what was copied: source and destination are the error's, the other way round.
    let Some(addresses) = message[EMBEDDED6 + 8..].first_chunk::<32>() else { return gone };
    let addresses = *addresses;
    message[8..24].copy_from_slice(&addresses[16..]);
    message[24..40].copy_from_slice(&addresses[..16]);
    let payload = ICMP_LENGTH as u32 + length;
    let [_, _, high, low] = payload.to_be_bytes();
    message[..8].copy_from_slice(&[0x60, 0, 0, 0, high, low, protocol::ICMPV6, HOPS]);
    let (kind, code) = match answer {
        Answer::TooBig => (icmpv6::PACKET_TOO_BIG, 0),
        Answer::RoutingHeader => (icmpv6::PARAMETER_PROBLEM, 0),
        Answer::Exhausted => (icmpv6::UNREACHABLE, icmpv6::ADDRESS),
        Answer::TimeExceeded | Answer::SourceRoute => (icmpv6::TIME_EXCEEDED, 0),
    };
    let [a, b, c, d] = work.mtu.to_be_bytes();
    let start = [kind, code, 0, 0, a, b, c, d];
    let mut total =
        Difference::new().add_sum(sum).add(payload.to_be_bytes()).add([0, 0, 0, protocol::ICMPV6]);
    let (words, _) = addresses.as_chunks::<4>();
    for word in words {
        total = total.add(*word);
    }
    let sum = checksum(&start, total);
    message[40..48].copy_from_slice(&start);
    message[42..44].copy_from_slice(&sum);
    work.length = IPV6_LENGTH as u32 + payload;
    Ok(())
}

/// Tells a container what became of its packet: [`ErrorWorkspace::error`] goes back to it, from the
/// host's address on its link (RFC 7915 §4.1, §4.4). `may` is asked last whether one more may be sent.
#[inline(always)]
pub fn answer_container<P: Packet, T: Tables>(
    packet: &P,
    arrival: &Arrival,
    answer: Answer,
    work: &mut ErrorWorkspace,
    tables: &mut T,
    may: impl FnOnce() -> bool,
) -> Decision<()> {
    let gone: Decision<()> = Err(Stop::Drop(answer.reason()));
    work.arrival = *arrival;
    let Some(bytes) = packet.view::<IPV4_LENGTH>(0) else { return gone };
    let header = Ipv4Header::of(bytes);
    let Some(ports) = packet.load::<4>(header.length() as usize) else { return gone };
    work.reply = ReplyKey {
        target: header.source,
        alias: header.destination,
        target_port: [ports[0], ports[1]],
        alias_port: [ports[2], ports[3]],
        protocol: header.protocol,
        reserved: [0; 3],
    };
    if !from_container::find(work, tables) {
        return gone;
    }
    let Some(link) = tables.link(work.link.index) else { return gone };
    work.gateway = link.gateway;
    work.mtu = 0;
    if answer == Answer::TooBig {
        let Some(uplink) = tables.uplink(work.uplink.ifindex) else { return gone };
        work.mtu = uplink.mtu.saturating_sub(HEADER_GROWTH).min(u32::from(u16::MAX));
    }
    if !may() {
        return Err(Stop::Drop(Reason::AnswerSuppressed));
    }
    embed_ipv4(packet, answer, work)
}

/// Embeds a container's packet in an ICMPv4 error about it.
#[inline(never)]
fn embed_ipv4<P: Packet>(packet: &P, answer: Answer, work: &mut ErrorWorkspace) -> Decision<()> {
    let gone: Decision<()> = Err(Stop::Drop(answer.reason()));
    let length = work.arrival.length.min((IPV4_ERROR - EMBEDDED4) as u32);
    let message = &mut work.message;
    let Some(room) = message[EMBEDDED4..].first_chunk_mut::<{ IPV4_ERROR - EMBEDDED4 }>() else {
        return gone;
    };
    if !packet.copy(0, length, room) {
        return gone;
    }
    let Some(sum) = packet.sum(0, length) else { return gone };
    let total = EMBEDDED4 as u32 + length;
    let header = Ipv4Header {
        version_length: Ipv4Header::VERSION_LENGTH,
        tos: 0,
        total_length: (total as u16).to_be_bytes(),
        identification: [0; 2],
        flags_offset: Ipv4Header::DONT_FRAGMENT.to_be_bytes(),
        ttl: HOPS,
        protocol: protocol::ICMP,
        checksum: [0; 2],
        source: work.gateway,
        destination: work.reply.target,
    };
    message[..20].copy_from_slice(&header.sealed());
    let (kind, code) = match answer {
        Answer::TimeExceeded | Answer::RoutingHeader | Answer::Exhausted => {
            (icmpv4::TIME_EXCEEDED, 0)
        }
        Answer::SourceRoute => (icmpv4::UNREACHABLE, icmpv4::SOURCE_ROUTE_FAILED),
        Answer::TooBig => (icmpv4::UNREACHABLE, icmpv4::FRAGMENTATION_NEEDED),
    };
    let [_, _, high, low] = work.mtu.to_be_bytes();
    let start = [kind, code, 0, 0, 0, 0, high, low];
    let sum = checksum(&start, Difference::new().add_sum(sum));
    message[20..28].copy_from_slice(&start);
    message[22..24].copy_from_slice(&sum);
    work.length = total;
    Ok(())
}
