//! ICMP errors of every kind, about sessions for the most part.

use super::Traffic;
use super::frames::{Embedding, client_error, container_error};
use publisher::datapath::Hook;
use publisher_common::wire::{ETHERNET_LENGTH, IPV4_LENGTH, IPV6_LENGTH};

impl Traffic {
    pub(super) fn error_of_client(&mut self) -> (Hook, Vec<u8>) {
        let flow = self.flow();
        let kind = self.random.pick(&[2u8, 2, 1, 1, 3, 4, 128, 135]);
        let code = self.random.pick(&[0u8, 0, 1, 2, 3, 4, 5]);
        let mut second = match kind {
            2 => self.random.pick(&[0u32, 1_279, 1_280, 1_400, 65_556, u32::MAX]),
            4 => self.random.below(48) as u32,
            _ => 0,
        };
        let length = self.random.pick(&[48usize, 57, 60, 500, 1_000, 1_232]);
        let mut embedding = Embedding::of(length);
        if matches!(kind, 1 | 3) && self.random.percent(30) {
            let units = self.random.pick(&[1u32, 15, 16, 17, 20, 140, 255]);
            second = units << 24;
            self.extend_error(&mut embedding, units as usize * 8);
        }
        if self.random.percent(8) {
            embedding.fragment = Some(self.random.pick(&[0u16, 1, 8, 9]));
        }
        let mut bytes = client_error(&flow, (kind, code), second, &embedding);
        self.spoil(&mut bytes, IPV6_LENGTH);
        (self.hook_of(&flow, &mut bytes), bytes)
    }

    pub(super) fn error_of_container(&mut self) -> (Hook, Vec<u8>) {
        let reply = self.reply();
        let kind = self.random.pick(&[3u8, 3, 3, 11, 12, 4, 5, 8]);
        let code = self.random.pick(&[4u8, 4, 3, 0, 1, 2, 9, 13, 14, 16]);
        let mtu = self.random.pick(&[0u16, 576, 1_260, 1_400, u16::MAX]);
        let [high, low] = mtu.to_be_bytes();
        let pointer = if kind == 12 { self.random.below(24) as u8 } else { 0 };
        let length = self.random.pick(&[28usize, 28, 37, 38, 548, 1_300]);
        let (mut embedding, mut units) = (Embedding::of(length), 0);
        if self.random.percent(30) {
            units = self.random.pick(&[1u8, 31, 32, 33, 40, 137, 255]);
            self.extend_error(&mut embedding, usize::from(units) * 4);
        }
        if self.random.percent(8) {
            embedding.fragment = Some(self.random.pick(&[0x2000u16, 0x2001, 1, 0x4000]));
        }
        let (hook, source) = self.link_of(&reply);
        let second = [pointer, units, high, low];
        let mut bytes = container_error(&reply, source, (kind, code), second, &embedding);
        self.spoil(&mut bytes, IPV4_LENGTH);
        (hook, bytes)
    }

    /// Puts an extension behind the embedded packet, mostly where the error says that it is.
    fn extend_error(&mut self, embedding: &mut Embedding, declared: usize) {
        embedding.extension = self.random.pick(&[0usize, 3, 4, 12, 13, 300, 450]);
        if self.random.percent(80) {
            embedding.length = declared.clamp(48, 1_300);
        }
    }

    /// Makes the checksum of an error wrong, sometimes.
    fn spoil(&mut self, bytes: &mut [u8], header: usize) {
        if self.random.percent(6) {
            bytes[ETHERNET_LENGTH + header + 2] ^= 0x10;
        }
    }
}
