//! Frames of which only the source, its port and TCP's numbers change: built once, then patched, with
//! a checksum that is summed up from what changes (RFC 1071 §2).

use std::net::Ipv6Addr;

/// Longest frame that is built here.
pub const LONGEST: usize = 128;

const ETHERNET: usize = 14;
const TRANSPORT: usize = ETHERNET + 40;
const SYN: u8 = 2;
const ACK: u8 = 16;
/// MSS 1440, as a client on Ethernet says.
const MSS_OPTION: [u8; 4] = [2, 4, 0x05, 0xa0];

/// Where frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct To {
    /// The sender's MAC address.
    pub from_mac: [u8; 6],
    /// The receiver's MAC address.
    pub mac: [u8; 6],
    /// The receiver's address.
    pub address: Ipv6Addr,
    /// The receiver's port.
    pub port: u16,
}

/// What differs from frame to frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vary {
    /// The source address.
    pub source: [u8; 16],
    /// The source port.
    pub port: u16,
    /// TCP: sequence and acknowledgment number, in the low and the high half. UDP: the payload.
    pub number: u64,
}

/// A frame of one kind to one place.
#[derive(Debug, Clone)]
pub struct Template {
    bytes: [u8; LONGEST],
    length: usize,
    /// The sum of what doesn't change, pseudo-header included.
    sum: u64,
    checksum_at: usize,
    number_at: usize,
    /// SYNs acknowledge nothing.
    number_mask: u64,
}

impl Template {
    /// A SYN with an MSS option.
    pub fn syn(to: &To) -> Self {
        Self::tcp(to, SYN, &MSS_OPTION)
    }

    /// An ACK without data.
    pub fn ack(to: &To) -> Self {
        Self::tcp(to, ACK, &[])
    }

    /// A datagram of 8 bytes.
    pub fn udp(to: &To) -> Self {
        let [high, low] = to.port.to_be_bytes();
        let header = [0, 0, high, low, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        Self::new(to, 17, &header, TRANSPORT + 6, TRANSPORT + 8, u64::MAX)
    }

    fn tcp(to: &To, flags: u8, options: &[u8]) -> Self {
        let [high, low] = to.port.to_be_bytes();
        let words = (5 + options.len() / 4) as u8;
        let mut header = vec![0, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0];
        header.extend([words << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        header.extend(options);
        let mask = if flags == SYN { 0xffff_ffff_0000_0000 } else { u64::MAX };
        Self::new(to, 6, &header, TRANSPORT + 16, TRANSPORT + 4, mask)
    }

    fn new(
        to: &To,
        protocol: u8,
        transport: &[u8],
        checksum_at: usize,
        number_at: usize,
        number_mask: u64,
    ) -> Self {
        let mut bytes = [0; LONGEST];
        let length = TRANSPORT + transport.len();
        let payload = transport.len() as u16;
        bytes[..6].copy_from_slice(&to.mac);
        bytes[6..12].copy_from_slice(&to.from_mac);
        bytes[12..16].copy_from_slice(&[0x86, 0xdd, 0x60, 0]);
        bytes[18..20].copy_from_slice(&payload.to_be_bytes());
        bytes[20..22].copy_from_slice(&[protocol, 64]);
        bytes[38..54].copy_from_slice(&to.address.octets());
        bytes[TRANSPORT..length].copy_from_slice(transport);
        // Destination, transport, and of the pseudo-header the length and the protocol.
        let sum = sum_of(&bytes[38..length]) + u64::from(payload) + u64::from(protocol);
        Self { bytes, length, sum, checksum_at, number_at, number_mask }
    }

    /// Writes the frame into `room` and returns its length.
    pub fn write(&self, vary: &Vary, room: &mut [u8; LONGEST]) -> usize {
        *room = self.bytes;
        let number = (vary.number & self.number_mask).to_be_bytes();
        room[22..38].copy_from_slice(&vary.source);
        room[TRANSPORT..TRANSPORT + 2].copy_from_slice(&vary.port.to_be_bytes());
        room[self.number_at..self.number_at + 8].copy_from_slice(&number);
        let sum = self.sum + sum_of(&vary.source) + u64::from(vary.port) + sum_of(&number);
        // 0 would say that there is none (RFC 768); TCP doesn't mind the other zero of one's complement.
        let checksum = match !folded(sum) {
            0 => [0xff; 2],
            checksum => checksum.to_be_bytes(),
        };
        room[self.checksum_at..self.checksum_at + 2].copy_from_slice(&checksum);
        self.length
    }
}

/// The sum of 16-bit words, taken four bytes at a time: the carries are folded in later.
fn sum_of(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_be_bytes(last))
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::frames::checksum;

    #[test]
    fn every_kind_has_its_right_checksum() {
        let to = To {
            from_mac: [2; 6],
            mac: [4; 6],
            address: "2001:db8:1::1".parse().unwrap(),
            port: 8080,
        };
        let kinds = [(Template::syn(&to), 6), (Template::ack(&to), 6), (Template::udp(&to), 17)];
        for (template, protocol) in kinds {
            for number in 0..1_000 {
                let vary = Vary {
                    source: super::super::sources::Sources::FLOOD.address(number),
                    port: number as u16 ^ 0x5555,
                    number: super::super::sources::mixed(number),
                };
                let mut room = [0; LONGEST];
                let length = template.write(&vary, &mut room);
                let content = &room[TRANSPORT..length];
                let from = Ipv6Addr::from(vary.source);
                // Over a packet with its right checksum it comes to 0.
                assert_eq!(checksum(from, to.address, protocol, content), 0);
                assert_eq!(usize::from(u16::from_be_bytes([room[18], room[19]])), content.len());
            }
        }
    }
}
