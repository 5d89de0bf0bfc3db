//! What must hold of a container's packet before it changes anything.

use crate::checksum::checksum;
use crate::decide::extension::Obstacle;
use crate::decide::{Decision, Stop, Workspace, fragments};
use crate::layout::{Handle, Link};
use crate::packet::{Arrival, LONGEST_SUM, Packet};
use crate::reason::Reason;
use crate::tables::Tables;
use crate::wire::{IPV4_LENGTH, Ipv4Header, UDP_LENGTH};

/// A packet to an alias never reaches the host's stack; one to the gateway's own address may be
/// somebody else's.
#[inline(always)]
pub(in crate::decide) fn miss<T: Tables>(header: &Ipv4Header, tables: &T) -> Stop {
    if tables.config().is_some_and(|config| config.is_alias(header.destination)) {
        Stop::Drop(Reason::ReplyNoSession)
    } else {
        Stop::Pass
    }
}

/// What must hold of a packet before it changes a session.
#[inline(always)]
pub(super) fn check(bytes: &[u8; IPV4_LENGTH], work: &Workspace) -> Decision<()> {
    let Workspace { transport, extras, .. } = work;
    let header = Ipv4Header::of(bytes);
    let payload = header.total().saturating_sub(header.length());
    if !transport.fits(payload) {
        return Err(Stop::Drop(Reason::Truncated));
    }
    check_header(bytes, work)?;
    let fragment = extras.fragment;
    if fragment.is_some {
        fragments::check(fragment.more, 0, payload)?;
    }
    if transport.unchecked {
        if fragment.is_some {
            return Err(Stop::Drop(Reason::UdpZeroChecksum));
        }
        if transport.datagram < UDP_LENGTH as u16 || transport.datagram > payload {
            return Err(Stop::Drop(Reason::Truncated));
        }
        if u32::from(transport.datagram) > LONGEST_SUM {
            return Err(Stop::Drop(Reason::UdpZeroChecksum));
        }
    }
    Ok(())
}

/// What must hold of an IPv4 header, options included (rules G2, G7).
#[inline(always)]
pub(super) fn check_header(bytes: &[u8; IPV4_LENGTH], work: &Workspace) -> Decision<()> {
    let Workspace { extras, arrival, .. } = work;
    let header = Ipv4Header::of(bytes);
    if header.total() < header.length() || u32::from(header.total()) > arrival.length {
        return Err(Stop::Drop(Reason::Truncated));
    }
    if checksum(bytes, extras.sum) != [0; 2] {
        return Err(Stop::Drop(Reason::Ipv4Checksum));
    }
    // No error is sent about a fragment that isn't the first (RFC 7915 §4.4).
    let later = extras.fragment.offset != 0;
    if extras.obstacle == Obstacle::SourceRoute && !later {
        return Err(Stop::SourceRoute);
    }
    if extras.obstacle != Obstacle::None {
        return Err(Stop::Drop(Reason::Ipv4Options));
    }
    if header.ttl <= 1 {
        return Err(if later { Stop::Drop(Reason::HopLimit) } else { Stop::TimeExceeded });
    }
    Ok(())
}

/// A reply must come by its session's own container link: by the veth where it is known, else by the
/// bridge from the target's hardware address. A neighbour container can't answer in its place.
#[inline(always)]
pub(in crate::decide) fn check_link<const BRIDGE: bool, P: Packet>(
    packet: &P,
    arrival: &Arrival,
    expected: Handle,
    link: Option<&Link>,
) -> Decision<()> {
    let Some(link) = link else { return Err(Stop::Drop(Reason::TargetGone)) };
    if !link.serves(expected.generation) {
        return Err(Stop::Drop(Reason::TargetGone));
    }
    if is_own_link::<BRIDGE, P>(packet, arrival, link) {
        Ok(())
    } else {
        Err(Stop::Drop(Reason::ForgedReply))
    }
}

#[inline(always)]
fn is_own_link<const BRIDGE: bool, P: Packet>(packet: &P, arrival: &Arrival, link: &Link) -> bool {
    if !BRIDGE {
        return link.veth == arrival.ifindex;
    }
    let [a, b, c, d, e, f] = packet.ethernet_source().unwrap_or_default();
    let source = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    let [a, b, c, d, e, f] = link.mac;
    link.veth == 0
        && link.device == arrival.ifindex
        && source == u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}
