//! Packets of a container that are too big for the client's uplink.

use crate::decide::{Decision, Detour, Stop, Uplink, Workspace};
use crate::packet::Arrival;
use crate::reason::Reason;
use crate::tables::Tables;
use crate::wire::{HEADER_GROWTH, IPV6_MINIMUM_MTU, Ipv4Header};

/// Whether a packet is larger on the wire than the uplink carries; `headers` are the bytes that each
/// segment of a super-packet repeats. To a process of the host everything goes.
#[inline(always)]
pub(super) fn exceeds_uplink<T: Tables>(
    header: &Ipv4Header,
    arrival: &Arrival,
    headers: u32,
    uplink: Uplink,
    tables: &T,
) -> bool {
    let wire = arrival.wire_length(u32::from(header.total()), headers) + HEADER_GROWTH;
    wire > IPV6_MINIMUM_MTU
        && !uplink.to_host
        && tables.uplink(uplink.ifindex).is_some_and(|uplink| wire > uplink.mtu)
}

/// What becomes of a packet that is too big for the uplink: its sender is told, or, where it lets its
/// packets be fragmented, it is fragmented (RFC 7915 §4.1).
#[inline(never)]
pub(super) fn find_detour<T: Tables>(
    header: &Ipv4Header,
    arrival: &Arrival,
    work: &mut Workspace,
    tables: &T,
) -> Decision<()> {
    if header.must_not_fragment() {
        return Err(Stop::TooBig);
    }
    let ifindex = tables.config().map_or(0, |config| config.slow_lane);
    if ifindex == 0 {
        return Err(Stop::Drop(Reason::TooBig));
    }
    let segmented = arrival.gso_size != 0;
    work.detour = Detour { ifindex, identification: header.identification, segmented };
    Ok(())
}
