//! What is rare and well-formed: damage alone would seldom come to it.

use publisher_common::wire::ETHERNET_LENGTH;

use super::Traffic;

impl Traffic {
    /// Lets a packet come with its last hop, or with none left.
    pub(super) fn tire(&mut self, bytes: &mut [u8]) {
        let hops = self.random.pick(&[0, 1, 2]);
        match bytes[ETHERNET_LENGTH] >> 4 {
            6 => bytes[ETHERNET_LENGTH + 7] = hops,
            _ => {
                bytes[ETHERNET_LENGTH + 8] = hops;
                reseal(bytes);
            }
        }
    }
}

/// Sums the header checksum of a container's frame again.
fn reseal(frame: &mut [u8]) {
    let header = etherparse::Ipv4HeaderSlice::from_slice(&frame[ETHERNET_LENGTH..]);
    let sum = header.expect("an IPv4 header").to_header().calc_header_checksum();
    frame[ETHERNET_LENGTH + 10..ETHERNET_LENGTH + 12].copy_from_slice(&sum.to_be_bytes());
}
