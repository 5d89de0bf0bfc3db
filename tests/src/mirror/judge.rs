//! What a frame is, and what an outcome comes to.

use publisher_common::decide::Stop;
use publisher_common::native::{MemoryTables, Outcome};
use publisher_common::wire::{ETHERNET_LENGTH, IPV4_LENGTH, IPV6_LENGTH, protocol};

use crate::test_run::{DROP, PASS, REDIRECT};

/// Length and bytes of a frame, as far as its headers go.
pub fn hex(frame: &[u8]) -> String {
    let shown = frame.iter().take(130).map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{} bytes {shown}", frame.len())
}

pub(super) fn is(error: &std::io::Error, number: i32) -> bool {
    error.raw_os_error() == Some(number)
}

/// Whether a frame holds ICMP of either family.
pub(super) fn is_error(bytes: &[u8]) -> bool {
    match bytes.get(12..14) {
        Some([0x86, 0xdd]) => bytes.get(20) == Some(&protocol::ICMPV6),
        _ => bytes.get(23) == Some(&protocol::ICMP),
    }
}

/// Whether a frame is a container's fragment that may go out in pieces: cutting it changes the
/// length, with which the kernel forgets the sum.
pub(super) fn may_be_cut(bytes: &[u8]) -> bool {
    let fields = bytes.get(20..22).map_or(0, |at| u16::from_be_bytes([at[0], at[1]]));
    bytes.get(12..14) == Some(&[8, 0]) && fields & 0x3fff != 0 && bytes.len() > 1_232
}

/// Whether a frame ends before its network header does.
pub(super) fn is_stub(bytes: &[u8]) -> bool {
    let least = match bytes.get(12..14) {
        Some([0x86, 0xdd]) => IPV6_LENGTH,
        Some([8, 0]) => IPV4_LENGTH,
        _ => 1,
    };
    bytes.len() < ETHERNET_LENGTH + least
}

/// The verdict and the frame that an outcome comes to.
pub(super) fn expected(outcome: &Outcome, bytes: &[u8], tables: &MemoryTables) -> (i32, Vec<u8>) {
    let (packet, ethertype) = match outcome {
        Outcome::Stop(Stop::Pass | Stop::Hold) => return (PASS, bytes.to_vec()),
        Outcome::Stop(_) => return (DROP, bytes.to_vec()),
        Outcome::ToContainer(packet, _) => (packet, [8, 0]),
        Outcome::ToClient(packet, _) | Outcome::Detour(packet, ..) => (packet, [0x86, 0xdd]),
        // The others are clones, which come by the interface's queue.
        Outcome::Pieces(pieces, _) => (&pieces[0], [0x86, 0xdd]),
        Outcome::Answered(packet, _) => {
            let frame = [&bytes[6..12], &bytes[..6], &bytes[12..14], packet].concat();
            return (REDIRECT, frame);
        }
    };
    let mut addresses = bytes[..12].to_vec();
    if let Outcome::ToClient(_, uplink) = outcome
        && uplink.to_host
    {
        let mac = tables.uplinks.get(&uplink.ifindex).map_or([0; 6], |uplink| uplink.mac);
        addresses[..6].copy_from_slice(&mac);
    }
    (REDIRECT, [&addresses[..], &ethertype, packet].concat())
}
