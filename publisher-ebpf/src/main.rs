//! The TC programs: each looks at a packet through the windows of [`window`], asks `publisher_common`
//! what to do, and carries it out with the helpers in [`apply`] and [`pieces`], or for ICMP errors
//! in [`icmp`].
//!
//! An uplink gets [`uplink_ethernet`] or [`uplink_raw`], the loopback interface [`loopback`], the host's
//! side of a container's veth gets
//! [`container_veth`], a bridge or any other interface with containers behind it gets
//! [`container_bridge`], the end of the slow lane [`slow_lane`]. All sit at tc ingress, as tcx or clsact
//! programs.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(missing_docs, reason = "the classifier macro drops its function's documentation")]

mod apply;
mod hold;
mod icmp;
mod lane;
mod maps;
mod older;
mod pieces;
mod window;

use apply::{drop_packet, pass};
use aya_ebpf::{bindings::TC_ACT_SHOT, macros::classifier, programs::TcContext};
use maps::Kernel;
use publisher_common::decide::to_container::Extended;
use publisher_common::decide::{Answer, Stop, from_host, to_client, to_container};
use publisher_common::packet::Arrival;
use publisher_common::reason::Reason;
use publisher_common::wire::ETHERNET_LENGTH;
use window::{NEXT_HEADER, PROTOCOL, Window};

/// Beside all actions of the kernel's: from here on, the client is to be told an [`Answer`].
const TELL: i32 = 1_000;
/// The same: a copy of the packet is to be kept.
const HOLD: i32 = 999;

/// Clients' packets from an interface with Ethernet headers.
#[classifier]
pub fn uplink_ethernet(context: TcContext) -> i32 {
    from_uplink::<ETHERNET_LENGTH, false>(&context)
}

/// Clients' packets from an interface without link-layer headers (tun, WireGuard).
#[classifier]
pub fn uplink_raw(context: TcContext) -> i32 {
    from_uplink::<0, false>(&context)
}

/// Packets of the host's own processes, at the loopback interface.
#[classifier]
pub fn loopback(context: TcContext) -> i32 {
    from_uplink::<ETHERNET_LENGTH, true>(&context)
}

/// Whether changing a packet's family takes the route off it that the host has given it: where it doesn't,
/// [`loopback`] would have IPv4 packets handled as IPv6. A packet on an IPv6 route of the loopback interface
/// is turned to IPv4 and back, so it harms nothing either way, and arrives by its own route or by none.
#[classifier]
pub fn route_probe(context: TcContext) -> i32 {
    match apply::there_and_back(&context) {
        Ok(()) | Err(Stop::Pass) => pass(),
        Err(_) => TC_ACT_SHOT as i32,
    }
}

/// Containers' packets, from the host's side of a veth.
#[classifier]
pub fn container_veth(context: TcContext) -> i32 {
    container_verdict(&context, from_container::<false>(&context))
}

/// Containers' packets, from a bridge.
#[classifier]
pub fn container_bridge(context: TcContext) -> i32 {
    container_verdict(&context, from_container::<true>(&context))
}

/// Packets that have to be fragmented, at the end of the slow lane. Nothing but what was sent there by
/// [`container_veth`] or [`container_bridge`] goes on.
#[classifier]
pub fn slow_lane(context: TcContext) -> i32 {
    // What the host says there by itself (listener reports, where it forwards) is nobody's loss.
    // SAFETY: the kernel hands a valid __sk_buff to a classifier.
    if unsafe { (*context.skb.skb).mark } == 0 {
        return TC_ACT_SHOT as i32;
    }
    let action = lane::from_end(&context);
    if action == pass() { drop_packet(Reason::HelperFailed) } else { action }
}

/// What comes back from a function that handles a client's packet: an action, or that its sender is to
/// be told. A number, since a `Result` would come by way of the stack; and told by the caller, since
/// all the functions that are active share one stack.
#[inline(always)]
fn number(result: Result<i32, Stop>) -> i32 {
    match result {
        Ok(action) => action,
        Err(Stop::Drop(reason)) => drop_packet(reason),
        Err(Stop::Hold) => HOLD,
        Err(stop) => stop.answer().map_or(pass(), |answer| TELL + answer as i32),
    }
}

#[inline(always)]
fn container_verdict(context: &TcContext, result: Result<i32, Stop>) -> i32 {
    match result {
        Ok(action) => action,
        Err(Stop::Drop(reason)) => drop_packet(reason),
        Err(stop) => match stop.answer() {
            Some(answer) => icmp::answer_container(context, answer),
            None => pass(),
        },
    }
}

/// A client's packet; `HOST` says that the client is a process of this host.
#[inline(always)]
fn from_uplink<const L2: usize, const HOST: bool>(context: &TcContext) -> i32 {
    if !HOST {
        hold::fill::<L2>(context);
    }
    let Some(packet) = Window::<L2>::of_client(context) else {
        return if HOST { pass() } else { ipv4::<L2>(context) };
    };
    let kind = to_container::classify(&packet);
    match kind {
        to_container::Kind::Flow | to_container::Kind::Extended => {
            told::<L2>(context, flow::<L2, HOST>(context, kind == to_container::Kind::Flow))
        }
        to_container::Kind::Error => client_error::<L2, HOST>(context),
        to_container::Kind::Other => pass(),
    }
}

/// What the kernel says about a client's packet.
#[inline(always)]
fn arrival<const L2: usize, const HOST: bool>(
    packet: &Window<'_, L2>,
    context: &TcContext,
) -> Result<Arrival, Stop> {
    let arrival = packet.arrival();
    if HOST { from_host(packet, arrival, &Kernel::new(context)) } else { Ok(arrival) }
}

/// An IPv4 packet, or nothing of interest.
#[inline(never)]
fn ipv4<const L2: usize>(context: &TcContext) -> i32 {
    let Some(packet) = Window::<L2>::of_ipv4(context) else { return pass() };
    number(Err(to_container::ipv4(&packet, &Kernel::new(context))))
}

/// Does what `number` asks for, beside the kernel's actions.
#[inline(always)]
fn told<const L2: usize>(context: &TcContext, number: i32) -> i32 {
    if number == HOLD {
        hold::keep::<L2>(context);
        return pass();
    }
    match Answer::from_number(number.wrapping_sub(TELL) as u32) {
        Some(answer) => icmp::answer_client::<L2>(context, answer),
        None => number,
    }
}

/// TCP and UDP.
#[inline(never)]
fn flow<const L2: usize, const HOST: bool>(context: &TcContext, plain: bool) -> i32 {
    number(try_flow::<L2, HOST>(context, plain))
}

#[inline(never)]
fn client_error<const L2: usize, const HOST: bool>(context: &TcContext) -> i32 {
    number(icmp::from_client::<L2, HOST>(context))
}

#[inline(always)]
fn try_flow<const L2: usize, const HOST: bool>(
    context: &TcContext,
    plain: bool,
) -> Result<i32, Stop> {
    let packet = Window::<L2>::again(context);
    let Some(work) = maps::workspace() else { return Err(Stop::Pass) };
    let has_ports = if plain {
        work.extras.clear(packet.number(NEXT_HEADER));
        true
    } else {
        extended::<L2, HOST>(context)? == Extended::Flow
    };
    if has_ports {
        let mut tables = Kernel::new(context);
        let arrival = arrival::<L2, HOST>(&packet, context)?;
        to_container::decide(&packet, &arrival, work, &mut tables)?;
    }
    apply::to_container::<L2>(context, &work.to_container)
}

#[inline(never)]
fn extended<const L2: usize, const HOST: bool>(context: &TcContext) -> Result<Extended, Stop> {
    let packet = Window::<L2>::again(context);
    let Some(work) = maps::workspace() else { return Err(Stop::Pass) };
    let arrival = arrival::<L2, HOST>(&packet, context)?;
    to_container::look_behind(&packet, &arrival, work, &mut Kernel::new(context))
}

#[inline(always)]
fn from_container<const BRIDGE: bool>(context: &TcContext) -> Result<i32, Stop> {
    let Some(packet) = Window::<ETHERNET_LENGTH>::of_container(context) else {
        return Ok(pieces::again(context));
    };
    let mut tables = Kernel::new(context);
    let kind = to_client::classify(&packet, &tables)?;
    match kind {
        to_client::Kind::Flow | to_client::Kind::Extended => {
            let Some(work) = maps::workspace() else { return Err(Stop::Pass) };
            let flow = if kind == to_client::Kind::Flow {
                work.extras.clear(packet.number(PROTOCOL));
                true
            } else {
                extended_reply::<BRIDGE>(context)? == Extended::Flow
            };
            if flow {
                to_client::decide::<BRIDGE, _, _>(&packet, &packet.arrival(), work, &mut tables)?;
            }
            if work.to_client.pieces == 0 {
                apply::to_client(context, &work.to_client)
            } else {
                pieces::to_client(context)
            }
        }
        to_client::Kind::Error => icmp::from_container::<BRIDGE>(context),
    }
}

#[inline(never)]
fn extended_reply<const BRIDGE: bool>(context: &TcContext) -> Result<Extended, Stop> {
    let packet = Window::<ETHERNET_LENGTH>::again(context);
    let Some(work) = maps::workspace() else { return Err(Stop::Pass) };
    let mut tables = Kernel::new(context);
    to_client::look_behind::<BRIDGE, _, _>(&packet, &packet.arrival(), work, &mut tables)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
