//! The TC programs: each looks at a packet through the windows of [`window`], asks `publisher_common`
//! what to do, and carries it out with the helpers in [`apply`], or for ICMP errors
//! in [`icmp`].
//!
//! An uplink gets [`uplink_ethernet`] or [`uplink_raw`], the host's side of a container's veth gets
//! [`container_veth`], a bridge or any other interface with containers behind it gets
//! [`container_bridge`]. All sit at tc ingress, as tcx or clsact programs.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the classifier macro drops its function's documentation")]

mod apply;
mod icmp;
mod maps;
mod window;

use apply::{drop_packet, pass};
use aya_ebpf::{macros::classifier, programs::TcContext};
use maps::Kernel;
use publisher_common::decide::{Stop, to_client, to_container};
use publisher_common::wire::ETHERNET_LENGTH;
use window::Window;

/// Clients' packets from an interface with Ethernet headers.
#[classifier]
pub fn uplink_ethernet(context: TcContext) -> i32 {
    client_verdict::<ETHERNET_LENGTH>(&context, from_uplink::<ETHERNET_LENGTH>(&context))
}

/// Clients' packets from an interface without link-layer headers (tun, WireGuard).
#[classifier]
pub fn uplink_raw(context: TcContext) -> i32 {
    client_verdict::<0>(&context, from_uplink::<0>(&context))
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

#[inline(always)]
fn client_verdict<const L2: usize>(context: &TcContext, result: Result<i32, Stop>) -> i32 {
    match result {
        Ok(action) => action,
        Err(Stop::Pass) => pass(),
        Err(Stop::Drop(reason)) => drop_packet(reason),
        Err(Stop::Answer(answer)) => icmp::answer_client::<L2>(context, answer),
    }
}

#[inline(always)]
fn container_verdict(context: &TcContext, result: Result<i32, Stop>) -> i32 {
    match result {
        Ok(action) => action,
        Err(Stop::Pass) => pass(),
        Err(Stop::Drop(reason)) => drop_packet(reason),
        Err(Stop::Answer(answer)) => icmp::answer_container(context, answer),
    }
}

#[inline(always)]
fn from_uplink<const L2: usize>(context: &TcContext) -> Result<i32, Stop> {
    let Some(packet) = Window::<L2>::of_client(context) else {
        return Err(Stop::Pass);
    };
    let mut tables = Kernel::new(context);
    match to_container::classify(&packet) {
        to_container::Kind::Flow => {
            let arrival = packet.arrival();
            let Some(work) = maps::workspace() else { return Err(Stop::Pass) };
            to_container::decide(&packet, &arrival, work, &mut tables)?;
            apply::to_container::<L2>(context, &work.to_container)
        }
        to_container::Kind::Error => icmp::from_client::<L2>(context),
        to_container::Kind::Extended => Err(extended::<L2>(context)),
        to_container::Kind::Other => Err(Stop::Pass),
    }
}

#[inline(never)]
fn extended<const L2: usize>(context: &TcContext) -> Stop {
    let Some(packet) = Window::<L2>::of_client(context) else {
        return Stop::Pass;
    };
    to_container::decide_extended(&packet, &packet.arrival(), &mut Kernel::new(context))
}

#[inline(always)]
fn from_container<const BRIDGE: bool>(context: &TcContext) -> Result<i32, Stop> {
    let Some(packet) = Window::<ETHERNET_LENGTH>::of_container(context) else {
        return Err(Stop::Pass);
    };
    let mut tables = Kernel::new(context);
    match to_client::classify(&packet, &tables)? {
        to_client::Kind::Flow => {
            let arrival = packet.arrival();
            let Some(work) = maps::workspace() else { return Err(Stop::Pass) };
            to_client::decide::<BRIDGE, _, _>(&packet, &arrival, work, &mut tables)?;
            apply::to_client(context, &work.to_client)
        }
        to_client::Kind::Error => icmp::from_container::<BRIDGE>(context),
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
