//! What is rare and well-formed: damage alone would seldom come to it.

use publisher_common::wire::{ETHERNET_LENGTH, IPV4_LENGTH};

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

    /// Puts options behind an IPv4 header.
    pub(super) fn add_options(&mut self, bytes: &mut Vec<u8>) {
        let words = self.random.pick(&[1, 1, 3, 10]);
        let end = ETHERNET_LENGTH + IPV4_LENGTH;
        // "No operation", and a source route that leads nowhere further.
        let mut options = [1; 40];
        options[..4].copy_from_slice(&self.random.pick(&[[1, 1, 1, 1], [131, 3, 4, 0]]));
        bytes.splice(end..end, options[..words * 4].iter().copied());
        bytes[ETHERNET_LENGTH] += words as u8;
        let total = (bytes.len() - ETHERNET_LENGTH) as u16;
        bytes[ETHERNET_LENGTH + 2..ETHERNET_LENGTH + 4].copy_from_slice(&total.to_be_bytes());
        reseal(bytes);
    }
}

/// Sums the header checksum of a container's frame again.
fn reseal(frame: &mut [u8]) {
    let header = etherparse::Ipv4HeaderSlice::from_slice(&frame[ETHERNET_LENGTH..]);
    let sum = header.expect("an IPv4 header").to_header().calc_header_checksum();
    frame[ETHERNET_LENGTH + 10..ETHERNET_LENGTH + 12].copy_from_slice(&sum.to_be_bytes());
}
