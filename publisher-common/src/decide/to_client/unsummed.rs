//! Datagrams of a container that have no checksum.

use crate::checksum::{Difference, checksum};
use crate::decide::{Decision, Stop, Workspace};
use crate::packet::Packet;
use crate::reason::Reason;
use crate::wire::{IPV4_LENGTH, protocol};

/// The checksum that a UDP datagram would have had in IPv4, had its sender summed it: IPv6 allows none
/// without (RFC 7915 §4.5).
#[inline(never)]
pub(super) fn seed<P: Packet>(packet: &P, work: &mut Workspace) -> Decision<()> {
    let Workspace { reply, transport, extras, seed, .. } = work;
    let length = transport.datagram;
    let start = IPV4_LENGTH as u32 + u32::from(extras.length);
    let Some(sum) = packet.sum(start, u32::from(length)) else {
        return Err(Stop::Drop(Reason::UdpZeroChecksum));
    };
    let [high, low] = length.to_be_bytes();
    let pseudo_header = [0, protocol::UDP, high, low];
    let whole = Difference::new().add(reply.target).add(reply.alias).add(pseudo_header);
    let sum = checksum(&[0; 4], whole.add_sum(sum));
    *seed = if sum == [0; 2] { [0xff; 2] } else { sum };
    Ok(())
}
