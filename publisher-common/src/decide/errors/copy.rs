//! What of an error's message goes into the other family's as it is.

use super::ErrorWorkspace;
use crate::decide::{Decision, Stop};
use crate::packet::Packet;
use crate::reason::Reason;
use crate::translate::icmp::{ESSENTIAL, IPV4_BODY, IPV4_ERROR, IPV6_BODY, IPV6_ERROR, Shape};
use crate::wire::{ICMP_LENGTH, IPV4_LENGTH, IPV6_LENGTH};

/// Where an ICMPv4 error's extension stands.
const IPV4_EXTENSION: usize = IPV4_LENGTH + ICMP_LENGTH + ESSENTIAL as usize;
/// Where an ICMPv6 error's extension stands.
const IPV6_EXTENSION: usize = IPV6_LENGTH + ICMP_LENGTH + ESSENTIAL as usize;

/// Copies from an ICMPv6 error what goes into an ICMPv4 error.
#[inline(never)]
pub(super) fn into_ipv4<P: Packet>(packet: &P, work: &mut ErrorWorkspace) -> Decision<()> {
    const BODY: usize = IPV4_ERROR - IPV4_BODY;
    const EXTENSION: usize = IPV4_ERROR - IPV4_EXTENSION;
    into::<IPV6_BODY, IPV6_LENGTH, IPV4_BODY, IPV4_EXTENSION, BODY, EXTENSION, P>(packet, work)
}

/// Copies from an ICMPv4 error what goes into an ICMPv6 error.
#[inline(never)]
pub(super) fn into_ipv6<P: Packet>(packet: &P, work: &mut ErrorWorkspace) -> Decision<()> {
    const BODY: usize = IPV6_ERROR - IPV6_BODY;
    const EXTENSION: usize = IPV6_ERROR - IPV6_EXTENSION;
    into::<IPV4_BODY, IPV4_LENGTH, IPV6_BODY, IPV6_EXTENSION, BODY, EXTENSION, P>(packet, work)
}

/// From a message whose body starts at `FROM` behind an IP header of `OLD` bytes, to one whose body
/// and extension start at `TO` and `AFTER` and have room for `BODY` and `EXTENSION` bytes.
#[inline(always)]
fn into<
    const FROM: usize,
    const OLD: usize,
    const TO: usize,
    const AFTER: usize,
    const BODY: usize,
    const EXTENSION: usize,
    P: Packet,
>(
    packet: &P,
    work: &mut ErrorWorkspace,
) -> Decision<()> {
    const MALFORMED: Decision<()> = Err(Stop::Drop(Reason::IcmpMalformed));
    let Shape { kept, extension_at, extension } = work.shape;
    let message = &mut work.message;
    // Behind what is kept the essential part is padded.
    message[TO..AFTER].fill(0);
    let Some(body) = message[TO..].first_chunk_mut::<BODY>() else { return MALFORMED };
    if !packet.copy(FROM as u32, kept, body) {
        return MALFORMED;
    }
    let Some(body) = packet.sum(FROM as u32, kept) else { return MALFORMED };
    work.copied = body;
    if extension == 0 {
        return Ok(());
    }
    let at = OLD as u32 + extension_at;
    let Some(place) = message[AFTER..].first_chunk_mut::<EXTENSION>() else { return MALFORMED };
    if !packet.copy(at, extension, place) {
        return MALFORMED;
    }
    let Some(extension) = packet.sum(at, extension) else { return MALFORMED };
    // Unfolded sums of up to 32 bits each: the carry is added back.
    let (sum, carry) = body.overflowing_add(extension);
    work.copied = sum.wrapping_add(carry as u32);
    Ok(())
}
