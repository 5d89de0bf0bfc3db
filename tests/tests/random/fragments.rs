//! Frames in fragments, some of which overlap, come twice or out of order.

use publisher_common::checksum::{Difference, checksum};
use publisher_common::wire::{ETHERNET_LENGTH, IPV4_LENGTH, IPV6_LENGTH, protocol};

use super::Random;

/// The fragments of an Ethernet frame with IPv6 or IPv4 and no more headers, in the order of their
/// arrival.
pub fn fragments(random: &mut Random, frame: &[u8]) -> Vec<Vec<u8>> {
    let version = frame.get(ETHERNET_LENGTH).map_or(0, |byte| byte >> 4);
    let header = ETHERNET_LENGTH + if version == 6 { IPV6_LENGTH } else { IPV4_LENGTH };
    let Some((header, payload)) = frame.split_at_checked(header) else { return Vec::new() };
    let identification = random.below(4) as u8;
    let size = random.pick(&[8usize, 24, 64, 512, 1_240, 1_360]);
    let count = payload.len().div_ceil(size);
    let mut all = Vec::new();
    for (index, part) in payload.chunks(size).enumerate().take(12) {
        let more = index + 1 < count;
        let mut offset = index * size;
        match random.below(30) {
            0 => offset = offset.saturating_sub(8),
            1 => offset += 8,
            2 => offset = 65_520,
            _ => {}
        }
        let build = if version == 6 { ipv6 } else { ipv4 };
        all.push(build(header, part, offset as u16, more, identification));
        if random.percent(6) {
            all.push(all[all.len() - 1].clone());
        }
    }
    // The first stays first, for the most part.
    let from = usize::from(!random.percent(10));
    for index in from..all.len() {
        if random.percent(15) {
            let other = from + random.below((all.len() - from) as u64) as usize;
            all.swap(index, other);
        }
    }
    all
}

fn ipv6(header: &[u8], part: &[u8], offset: u16, more: bool, identification: u8) -> Vec<u8> {
    let mut bytes = header.to_vec();
    let start = ETHERNET_LENGTH;
    let next = std::mem::replace(&mut bytes[start + 6], protocol::FRAGMENT);
    bytes[start + 4..start + 6].copy_from_slice(&(part.len() as u16 + 8).to_be_bytes());
    let [high, low] = (offset & !7 | u16::from(more)).to_be_bytes();
    bytes.extend_from_slice(&[next, 0, high, low, 1, 2, 3, identification]);
    bytes.extend_from_slice(part);
    bytes
}

fn ipv4(header: &[u8], part: &[u8], offset: u16, more: bool, identification: u8) -> Vec<u8> {
    let mut bytes = header.to_vec();
    let start = ETHERNET_LENGTH;
    bytes[start + 2..start + 4].copy_from_slice(&(part.len() as u16 + 20).to_be_bytes());
    let [high, low] = ((offset / 8) | if more { 0x2000 } else { 0 }).to_be_bytes();
    bytes[start + 4..start + 8].copy_from_slice(&[0, identification, high, low]);
    seal(&mut bytes);
    bytes.extend_from_slice(part);
    bytes
}

/// Puts options behind a container's IPv4 header, some of which lie.
pub fn add_options(random: &mut Random, frame: &mut Vec<u8>) {
    let start = ETHERNET_LENGTH;
    if frame.get(start) != Some(&0x45) {
        return;
    }
    let options: &[u8] = random.pick(&[
        &[1u8, 1, 1, 0][..],
        &[131, 7, 4, 10, 0, 0, 1, 0],
        &[137, 7, 8, 10, 0, 0, 1, 0],
        &[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[7, 0, 4, 0],
        &[68, 40, 5, 0, 0, 0, 0, 0],
    ]);
    frame[start] += (options.len() / 4) as u8;
    frame.splice(start + IPV4_LENGTH..start + IPV4_LENGTH, options.iter().copied());
    let total = (frame.len() - start) as u16;
    frame[start + 2..start + 4].copy_from_slice(&total.to_be_bytes());
    seal(frame);
}

/// Whether a frame has neither extension headers nor options nor fragment fields.
pub fn is_plain(frame: &[u8]) -> bool {
    let Some(ip) = frame.get(ETHERNET_LENGTH..).filter(|ip| ip.len() >= IPV4_LENGTH) else {
        return true;
    };
    match ip[0] >> 4 {
        6 => matches!(ip[6], protocol::TCP | protocol::UDP | protocol::ICMPV6),
        _ => ip[0] & 15 <= 5 && u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff == 0,
    }
}

/// Makes the checksum of an IPv4 header right, options included.
pub fn seal(frame: &mut [u8]) {
    let start = ETHERNET_LENGTH;
    let Some(first) = frame.get(start).copied().filter(|first| first >> 4 == 4) else { return };
    let Some(header) = frame.get_mut(start..start + usize::from(first & 15) * 4) else { return };
    if header.len() < IPV4_LENGTH {
        return;
    }
    header[10..12].fill(0);
    let (words, _) = header.as_chunks::<4>();
    let sum = words.iter().fold(Difference::new(), |sum, word| sum.add(*word));
    let sum = checksum(&[0; 4], sum);
    header[10..12].copy_from_slice(&sum);
}
