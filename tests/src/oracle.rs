//! An independent opinion on translated packets: etherparse compares each with the one that it was
//! made of.
//!
//! It knows nothing of sessions. It knows that lengths have to fit, that what stood behind the ports
//! has to stand there still, and that checksums have to be right; or, in TCP and UDP, off by as much
//! as they were before (rule G9).

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::checksum::Sum16BitWords;
use etherparse::{Ipv4Slice, Ipv6Slice};
use publisher_common::wire::protocol;

/// A packet as etherparse reads it.
#[derive(Clone, Copy)]
struct Seen<'a> {
    source: &'a [u8],
    destination: &'a [u8],
    class: u8,
    flow_label: u32,
    /// By how much IPv4's header checksum is off.
    header_sum: u16,
    hops: u8,
    number: u8,
    fragment: bool,
    transport: &'a [u8],
    /// Bytes behind the end that the IP header names: the link layer's padding.
    padding: usize,
}

/// Compares a packet with its translation, both from their IP headers on.
///
/// # Errors
/// When the translation isn't valid, or isn't that packet's.
pub fn check(before: &[u8], after: &[u8]) -> Result<()> {
    let new = read(after).context("the translation doesn't parse")?;
    ensure!(new.header_sum == 0, "header checksum off by {:#x}", new.header_sum);
    ensure!(new.flow_label == 0, "flow label {:#x} (rule G1)", new.flow_label);
    if matches!(new.number, protocol::ICMP | protocol::ICMPV6) && !new.fragment {
        return check_error(before, &new);
    }
    let old = read(before).context("what was translated doesn't parse")?;
    ensure!((old.number, old.fragment) == (new.number, new.fragment), "another protocol");
    ensure!(old.hops.checked_sub(1) == Some(new.hops), "{} hops of {}", new.hops, old.hops);
    ensure!(old.class == new.class, "traffic class {:#x}, not {:#x}", new.class, old.class);
    ensure!(old.padding == new.padding, "{} bytes of padding, not {}", new.padding, old.padding);
    ensure!(old.transport.len() == new.transport.len(), "another length");
    if !new.fragment {
        let (was, is) = match summed_anew(&old, &new) {
            Some(is) => (0, is),
            None => (sum(&old), sum(&new)),
        };
        ensure!(was == is, "off by {is:#x}, not {was:#x}");
        check_transport(new.number, old.transport, new.transport)?;
    }
    Ok(())
}

/// An error is made anew: it ends where it says, and its sums are right.
fn check_error(before: &[u8], new: &Seen<'_>) -> Result<()> {
    ensure!(new.padding == 0, "{} bytes too many", new.padding);
    // One that came with a wrong sum may be passed on with one.
    let was_right = read(before).is_ok_and(|old| sum(&old) == 0);
    ensure!(sum(new) == 0 || !was_right, "ICMP checksum off by {:#x}", sum(new));
    let embedded = new.transport.get(8..).context("an error without an embedded packet")?;
    match (new.number, embedded.first().map(|byte| byte >> 4)) {
        (protocol::ICMP, Some(4)) => {
            let header = embedded.get(..20).context("an embedded header that is cut off")?;
            let sum = total(Sum16BitWords::new().add_slice(header));
            ensure!(sum == 0 || header[0] != 0x45, "embedded header off by {sum:#x}");
        }
        (protocol::ICMPV6, Some(6)) => ensure!(embedded.len() >= 40, "embedded header cut off"),
        other => bail!("embedded packet of another family: {other:?}"),
    }
    Ok(())
}

/// Nothing but ports, checksum and a lowered MSS may differ.
fn check_transport(number: u8, old: &[u8], new: &[u8]) -> Result<()> {
    let checksum = if number == protocol::UDP { 6..8 } else { 16..18 };
    let options = match number {
        protocol::TCP => 20..usize::from(old.get(12).context("no TCP header")? >> 4) * 4,
        _ => 0..0,
    };
    ensure!(number != protocol::UDP || new.get(6..8) != Some(&[0, 0]), "UDP without a checksum");
    let differs = |at: &usize| old[*at] != new[*at];
    let changed: Vec<usize> =
        (4..old.len()).filter(|at| !checksum.contains(at)).filter(differs).collect();
    let (Some(first), Some(last)) = (changed.first(), changed.last()) else { return Ok(()) };
    // The value of an MSS option: one or both of the two bytes behind its kind and its length.
    let is_mss = |at: usize| {
        let value = |bytes: &[u8]| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        options.contains(&at)
            && options.contains(&(at + 1))
            && at >= 22
            && (at..at + 2).contains(first)
            && (at..at + 2).contains(last)
            && old[at - 2..at] == [2, 4]
            && value(new) < value(old)
    };
    ensure!(is_mss(*first) || is_mss(first - 1), "changed at {changed:?}");
    Ok(())
}

fn read(packet: &[u8]) -> Result<Seen<'_>> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => {
            let slice = Ipv4Slice::from_slice(packet)?;
            let (header, payload) = (slice.header(), slice.payload());
            Ok(Seen {
                source: &packet[12..16],
                destination: &packet[16..20],
                class: packet[1],
                flow_label: 0,
                header_sum: total(Sum16BitWords::new().add_slice(header.slice())),
                hops: header.ttl(),
                number: payload.ip_number.0,
                fragment: payload.fragmented,
                transport: payload.payload,
                padding: packet.len() - usize::from(header.total_len()),
            })
        }
        Some(6) => {
            let slice = Ipv6Slice::from_slice(packet)?;
            let (header, payload) = (slice.header(), slice.payload());
            Ok(Seen {
                source: &packet[8..24],
                destination: &packet[24..40],
                class: header.traffic_class(),
                flow_label: header.flow_label().value(),
                header_sum: 0,
                hops: header.hop_limit(),
                number: payload.ip_number.0,
                fragment: payload.fragmented,
                transport: payload.payload,
                padding: packet.len() - 40 - usize::from(header.payload_length()),
            })
        }
        other => bail!("no IP: {other:?}"),
    }
}

/// By how much the checksum is off that a UDP datagram without one was given (rule G10); `None` where it
/// had one. It covers as much as the datagram itself says.
fn summed_anew(old: &Seen<'_>, new: &Seen<'_>) -> Option<u16> {
    let had_none = old.number == protocol::UDP && old.transport.get(6..8)? == [0, 0];
    let length = u16::from_be_bytes([*new.transport.get(4)?, *new.transport.get(5)?]);
    let transport = new.transport.get(..usize::from(length))?;
    had_none.then(|| sum(&Seen { transport, ..*new }))
}

/// By how much a packet's transport checksum is off, in ones' complement; 0 where it is right.
fn sum(seen: &Seen<'_>) -> u16 {
    let transport = Sum16BitWords::new().add_slice(seen.transport);
    // ICMP of IPv4 is the one without a pseudo-header.
    if seen.number == protocol::ICMP {
        return total(transport);
    }
    let length = seen.transport.len() as u32;
    let transport = transport
        .add_slice(seen.source)
        .add_slice(seen.destination)
        .add_4bytes(length.to_be_bytes())
        .add_2bytes([0, seen.number]);
    total(transport)
}

/// A sum, with the two forms of 0 taken as one.
fn total(sum: Sum16BitWords) -> u16 {
    match sum.ones_complement() {
        0xffff => 0,
        sum => sum,
    }
}

#[cfg(test)]
mod tests;
