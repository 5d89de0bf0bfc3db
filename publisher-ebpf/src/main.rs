//! The TC programs: each looks at a packet through the windows of [`window`], asks `publisher_common`
//! what to do, and carries it out with the helpers in [`apply`] and [`pieces`], or for ICMP errors
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
mod pieces;
mod window;

use apply::{drop_packet, pass};
use aya_ebpf::{macros::classifier, programs::TcContext};
use maps::Kernel;
use publisher_common::decide::to_container::Extended;
use publisher_common::decide::{Stop, to_client, to_container};
use publisher_common::wire::ETHERNET_LENGTH;
use window::{NEXT_HEADER, PROTOCOL, Window};

/// Clients' packets from an interface with Ethernet headers.
#[classifier]
pub fn uplink_ethernet(context: TcContext) -> i32 {
    verdict(from_uplink::<ETHERNET_LENGTH>(&context))
}

/// Clients' packets from an interface without link-layer headers (tun, WireGuard).
#[classifier]
pub fn uplink_raw(context: TcContext) -> i32 {
    verdict(from_uplink::<0>(&context))
}

/// Containers' packets, from the host's side of a veth.
#[classifier]
pub fn container_veth(context: TcContext) -> i32 {
    verdict(from_container::<false>(&context))
}

/// Containers' packets, from a bridge.
#[classifier]
pub fn container_bridge(context: TcContext) -> i32 {
    verdict(from_container::<true>(&context))
}

#[inline(always)]
fn verdict(result: Result<i32, Stop>) -> i32 {
    match result {
        Ok(action) => action,
        Err(Stop::Pass) => pass(),
        Err(Stop::Drop(reason)) => drop_packet(reason),
    }
}

#[inline(always)]
fn from_uplink<const L2: usize>(context: &TcContext) -> Result<i32, Stop> {
    let Some(packet) = Window::<L2>::of_client(context) else {
        return Err(Stop::Pass);
    };
    let kind = to_container::classify(&packet);
    match kind {
        to_container::Kind::Flow | to_container::Kind::Extended => {
            let Some(work) = maps::workspace() else { return Err(Stop::Pass) };
            let flow = if kind == to_container::Kind::Flow {
                work.extras.clear(packet.number(NEXT_HEADER));
                true
            } else {
                extended::<L2>(context)? == Extended::Flow
            };
            if flow {
                let mut tables = Kernel::new(context);
                to_container::decide(&packet, &packet.arrival(), work, &mut tables)?;
            }
            apply::to_container::<L2>(context, &work.to_container)
        }
        to_container::Kind::Error => icmp::from_client::<L2>(context),
        to_container::Kind::Other => Err(Stop::Pass),
    }
}

#[inline(never)]
fn extended<const L2: usize>(context: &TcContext) -> Result<Extended, Stop> {
    let Some(packet) = Window::<L2>::of_client(context) else {
        return Err(Stop::Pass);
    };
    let Some(work) = maps::workspace() else { return Err(Stop::Pass) };
    to_container::look_behind(&packet, &packet.arrival(), work, &mut Kernel::new(context))
}

#[inline(always)]
fn from_container<const BRIDGE: bool>(context: &TcContext) -> Result<i32, Stop> {
    let Some(packet) = Window::<ETHERNET_LENGTH>::of_container(context) else {
        return pieces::again(context);
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
    let Some(packet) = Window::<ETHERNET_LENGTH>::of_container(context) else {
        return Err(Stop::Pass);
    };
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
