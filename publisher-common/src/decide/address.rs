//! Whose an address is: what a client may ask, and what it may come from (rule H12).

use super::Decision;
use super::Stop;
use crate::layout::{LOOPBACK, address_scope, origin};
use crate::packet::{Arrival, Packet};
use crate::tables::Tables;
use crate::wire::{IPV6_LENGTH, Ipv6Header};

/// Whether an address of this scope is the host's own, as a client at `origin` sees it: `::1` is so for the
/// host alone.
#[inline(always)]
pub(super) fn is_hosts<T: Tables>(address: &[u8; 16], scope: u32, origin: u8, tables: &T) -> bool {
    if origin == origin::HOST && is_loopback(address) {
        return true;
    }
    tables.is_local(address, scope)
}

/// Whether a client at `origin` can have a source address. On the host those are its own; on the other
/// side of an uplink nobody has one of these.
#[inline(always)]
pub(super) fn is_somebody<T: Tables>(
    address: &[u8; 16],
    ifindex: u32,
    origin: u8,
    tables: &T,
) -> bool {
    let scope = address_scope(address, ifindex);
    if origin == origin::HOST {
        return is_hosts(address, scope, origin, tables);
    }
    let upper = u128::from_be_bytes(*address) >> 32;
    // ::/96 holds the unspecified and the loopback address, ::ffff:0:0/96 the IPv4-mapped ones.
    if address[0] == 0xff || upper == 0 || upper == 0xffff {
        return false;
    }
    !tables.is_local(address, scope)
}

/// How a packet at the loopback interface came, and how its answers go back: by the interface that has a
/// link-local destination, which alone the client's socket listens to, else by the loopback interface.
///
/// The kernel's own note of the interface that has the address isn't to be had, and is lost in translation.
/// Where several have a link-local one, or only the source is link-local, the packet stays the stack's.
///
/// # Errors
/// [`Stop::Pass`].
#[inline(always)]
pub fn from_host<P: Packet, T: Tables>(
    packet: &P,
    arrival: Arrival,
    tables: &T,
) -> Decision<Arrival> {
    let Some(bytes) = packet.view::<IPV6_LENGTH>(0) else { return Err(Stop::Pass) };
    let header = Ipv6Header::of(bytes);
    let mut ifindex = LOOPBACK;
    if address_scope(&header.destination, LOOPBACK) != 0 {
        ifindex = tables.interface_of(&header.destination);
        if ifindex == 0 {
            return Err(Stop::Pass);
        }
    } else if address_scope(&header.source, LOOPBACK) != 0 {
        return Err(Stop::Pass);
    }
    Ok(Arrival { ifindex, from_host: true, ..arrival })
}

#[inline(always)]
fn is_loopback(address: &[u8; 16]) -> bool {
    u128::from_be_bytes(*address) == 1
}
