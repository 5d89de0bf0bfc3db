//! A decision carried out on bytes in memory, as `publisher-ebpf` does on a packet in the kernel.

use super::{MemoryTables, SlicePacket};
use crate::checksum::Difference;
use crate::decide::errors::ErrorWorkspace;
use crate::decide::to_container::Extended;
use crate::decide::{
    self, Answer, Decision, Detour, Exit, Stop, ToClient, Uplink, Workspace, errors, to_client,
    to_container,
};
use crate::packet::Arrival;
use crate::reason::Reason;
use crate::translate::{Piece, TransportRewrite, piece};
use crate::wire::protocol;
use std::vec::Vec;

/// What became of a packet; the bytes start with the network header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was done.
    Stop(Stop),
    /// It goes to the container.
    ToContainer(Vec<u8>, Exit),
    /// It goes to the client.
    ToClient(Vec<u8>, Uplink),
    /// It goes to the slow lane, which sends it on to the client in fragments.
    Detour(Vec<u8>, Detour, Uplink),
    /// It goes to the client in pieces, in this order.
    Pieces(Vec<Vec<u8>>, Uplink),
    /// It was dropped for this reason, and an error about it goes back.
    Answered(Vec<u8>, Reason),
}

/// What an uplink's program does with a packet.
pub fn from_uplink(bytes: &[u8], arrival: &Arrival, tables: &mut MemoryTables) -> Outcome {
    let packet = SlicePacket::new(bytes);
    let mut work = Workspace::new();
    let result = match to_container::classify(&packet) {
        kind @ (to_container::Kind::Flow | to_container::Kind::Extended) => {
            let looked = if kind == to_container::Kind::Flow {
                work.extras.clear(bytes[6]);
                Ok(Extended::Flow)
            } else {
                to_container::look_behind(&packet, arrival, &mut work, tables)
            };
            let decided = looked.and_then(|found| match found {
                Extended::Flow => to_container::decide(&packet, arrival, &mut work, tables),
                Extended::Fragment => Ok(()),
            });
            decided.map(|()| {
                let to = &work.to_container;
                let old = 40 + usize::from(to.extra);
                Outcome::ToContainer(translate(bytes, old, &to.header, &to.transport), to.exit)
            })
        }
        to_container::Kind::Error => {
            let mut work = ErrorWorkspace::new();
            errors::from_client(&packet, arrival, &mut work, tables)
                .map(|()| Outcome::ToContainer(work.error().to_vec(), work.exit))
        }
        to_container::Kind::Other => Err(Stop::Pass),
    };
    match result {
        Ok(outcome) => outcome,
        Err(stop) => {
            let Some(answer) = stop.answer() else { return Outcome::Stop(stop) };
            let mut error = ErrorWorkspace::new();
            let told = work.told(answer);
            let made = errors::answer_client(&packet, arrival, (answer, told), &mut error);
            answered(made, answer, &error)
        }
    }
}

/// What the loopback interface's program does with a packet.
pub fn from_host(bytes: &[u8], arrival: &Arrival, tables: &mut MemoryTables) -> Outcome {
    match decide::from_host(&SlicePacket::new(bytes), *arrival, tables) {
        Ok(arrival) => from_uplink(bytes, &arrival, tables),
        Err(stop) => Outcome::Stop(stop),
    }
}

fn answered(made: Decision<()>, answer: Answer, work: &ErrorWorkspace) -> Outcome {
    match made {
        Ok(()) => Outcome::Answered(work.error().to_vec(), answer.reason()),
        Err(stop) => Outcome::Stop(stop),
    }
}

/// What a container link's program does with an Ethernet frame; `BRIDGE` as in
/// [`to_client::decide`].
pub fn from_container<const BRIDGE: bool>(
    frame: &[u8],
    arrival: &Arrival,
    tables: &mut MemoryTables,
) -> Outcome {
    let Some(packet) = SlicePacket::of_frame(frame) else { return Outcome::Stop(Stop::Pass) };
    let result = to_client::classify(&packet, tables).and_then(|kind| match kind {
        to_client::Kind::Flow | to_client::Kind::Extended => {
            let mut work = Workspace::new();
            let looked = if kind == to_client::Kind::Flow {
                work.extras.clear(packet.bytes[9]);
                Ok(Extended::Flow)
            } else {
                to_client::look_behind::<BRIDGE, _, _>(&packet, arrival, &mut work, tables)
            };
            let decided = looked.and_then(|found| match found {
                Extended::Flow => {
                    to_client::decide::<BRIDGE, _, _>(&packet, arrival, &mut work, tables)
                }
                Extended::Fragment => Ok(()),
            });
            decided.map(|()| to_client(packet.bytes, &work.to_client))
        }
        to_client::Kind::Error => {
            let mut work = ErrorWorkspace::new();
            errors::from_container::<BRIDGE, _, _>(&packet, arrival, &mut work, tables)
                .map(|()| Outcome::ToClient(work.error().to_vec(), work.uplink))
        }
    });
    match result {
        Ok(outcome) => outcome,
        Err(stop) => {
            let Some(answer) = stop.answer() else { return Outcome::Stop(stop) };
            let mut work = ErrorWorkspace::new();
            let made =
                errors::answer_container(&packet, arrival, answer, &mut work, tables, || true);
            answered(made, answer, &work)
        }
    }
}

/// A container's packet as the client gets it, in one piece or several.
fn to_client(bytes: &[u8], to: &ToClient) -> Outcome {
    let old = 20 + usize::from(to.extra);
    if to.pieces == 0 {
        let whole = translate(bytes, old, &to.header, &to.transport);
        return match to.detour.ifindex {
            0 => Outcome::ToClient(whole, to.uplink),
            _ => Outcome::Detour(whole, to.detour, to.uplink),
        };
    }
    let headers = [&to.header[..], &to.fragment[..]].concat();
    let whole = translate(bytes, old, &headers, &to.transport);
    if to.pieces == 1 {
        return Outcome::ToClient(whole, to.uplink);
    }
    let pieces = (0..to.pieces).map(|index| split(&whole, index)).collect();
    Outcome::Pieces(pieces, to.uplink)
}

/// Piece `index` of an IPv6 fragment.
#[must_use]
pub fn split(whole: &[u8], index: u16) -> Vec<u8> {
    let mut headers: [u8; 48] = core::array::from_fn(|at| whole[at]);
    let mut part = Piece { skip: 0, length: 0 };
    assert!(piece(&mut headers, index, &mut part), "no piece {index}");
    let start = 48 + usize::from(part.skip);
    let mut bytes = headers.to_vec();
    bytes.extend_from_slice(&whole[start..start + usize::from(part.length)]);
    bytes
}

fn translate(bytes: &[u8], old: usize, header: &[u8], rewrite: &TransportRewrite) -> Vec<u8> {
    let mut result = header.to_vec();
    result.extend_from_slice(&bytes[old..]);
    if *rewrite == TransportRewrite::NONE {
        return result;
    }
    let transport = &mut result[header.len()..];
    transport[..4].copy_from_slice(&rewrite.ports);
    let patch = rewrite.mss;
    if patch.is_some() {
        let at = patch.offset as usize;
        transport[at..at + 2].copy_from_slice(&patch.new);
    }
    let at = if rewrite.protocol == protocol::UDP { 6 } else { 16 };
    if rewrite.seed != [0; 2] {
        transport[at..at + 2].copy_from_slice(&rewrite.seed);
    }
    // Two corrections, as the kernel makes them; the first may leave 0 in between.
    for difference in [rewrite.pseudo_header, rewrite.fields] {
        let field = [transport[at], transport[at + 1]];
        let mut corrected = Difference::apply(difference, field);
        if rewrite.protocol == protocol::UDP && corrected == [0, 0] {
            corrected = [0xff, 0xff];
        }
        transport[at..at + 2].copy_from_slice(&corrected);
    }
    result
}
