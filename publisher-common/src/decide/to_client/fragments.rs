//! Fragments of a container, on their way to the client.

use super::checks::{check_header, check_link, miss};
use super::uplink_of;
use crate::decide::fragments::{self, Way};
use crate::decide::{Decision, Detour, Stop, ToClient, Uplink, Workspace};
use crate::layout::ReplyKey;
use crate::packet::Packet;
use crate::reason::Reason;
use crate::tables::Tables;
use crate::translate::{TransportRewrite, fragment_header, ipv6_header, pieces};
use crate::wire::{FRAGMENT_LENGTH, IPV4_LENGTH, Ipv4Header, protocol};

/// The first fragment of a datagram: it has the ports. The caller has set where it goes.
#[inline(never)]
pub(super) fn first_fragment<T: Tables>(work: &mut Workspace, tables: &mut T) -> Decision<()> {
    let Workspace { flow, reply, extras, payload, fragment_key, datagram, .. } = work;
    fragments::key_of_ipv4(fragment_key, reply, extras.fragment.identification);
    datagram.forward = *flow;
    datagram.reply = *reply;
    let payload = *payload;
    fragments::begin(Way::Out, payload, work, tables)
}

/// A later fragment: it has no ports, and goes where the first one of its datagram went.
#[inline(always)]
pub(super) fn later_fragment<const BRIDGE: bool, P: Packet, T: Tables>(
    packet: &P,
    work: &mut Workspace,
    tables: &mut T,
) -> Decision<()> {
    let Some(bytes) = packet.view::<IPV4_LENGTH>(0) else { return Err(Stop::Pass) };
    let header = Ipv4Header::of(bytes);
    work.reply = ReplyKey {
        target: header.source,
        alias: header.destination,
        target_port: [0; 2],
        alias_port: [0; 2],
        protocol: header.protocol,
        reserved: [0; 3],
    };
    let Workspace { reply, extras, fragment_key, arrival, .. } = work;
    fragments::key_of_ipv4(fragment_key, reply, extras.fragment.identification);
    let Some(known) = tables.datagram(Way::Out, fragment_key) else {
        return Err(miss(header, tables));
    };
    let link = known.link;
    check_link::<BRIDGE, P>(packet, arrival, link, tables.link(link.index))?;
    check_header(bytes, work)?;
    let payload = header.total().wrapping_sub(header.length());
    if let Err(stop) = fragments::follow(Way::Out, payload, work, tables) {
        return Err(if stop == Stop::Pass { miss(header, tables) } else { stop });
    }
    work.flow = work.datagram.forward;
    let uplink = uplink_of(work.datagram.uplink, work.datagram.flags, &work.flow);
    set_fragment(header, payload, uplink, TransportRewrite::NONE, work)
}

/// How a fragment of `payload` bytes goes to the client (RFC 7915 §4.1).
#[inline(always)]
pub(super) fn set_fragment(
    header: &Ipv4Header,
    payload: u16,
    uplink: Uplink,
    transport: TransportRewrite,
    work: &mut Workspace,
) -> Decision<()> {
    // What stays on the host need not fit into the smallest link.
    let pieces = if uplink.to_host { 1 } else { pieces(payload) };
    if pieces == 0 {
        return Err(Stop::Drop(Reason::Fragment));
    }
    let length = payload.wrapping_add(FRAGMENT_LENGTH as u16);
    work.to_client = ToClient {
        header: ipv6_header(header, &work.flow, length, protocol::FRAGMENT),
        extra: work.extras.length,
        pieces,
        fragment: fragment_header(&work.extras.fragment, header.protocol),
        transport,
        uplink,
        detour: Detour::NONE,
    };
    Ok(())
}
