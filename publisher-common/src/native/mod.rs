//! The decisions without a kernel: packets as byte slices, maps as tables in memory.
//!
//! Tests run the same functions here as the datapath runs in the kernel, and compare.

mod apply;
mod memory;
pub mod samples;

pub use apply::{Outcome, from_container, from_host, from_uplink, split};
pub use memory::MemoryTables;

use crate::checksum::Difference;
use crate::packet::{LONGEST_SUM, Packet};

/// A packet in memory, from its network header on.
#[derive(Clone, Copy, Debug)]
pub struct SlicePacket<'a> {
    bytes: &'a [u8],
    source: Option<[u8; 6]>,
}

impl<'a> SlicePacket<'a> {
    /// A packet without a link-layer header.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, source: None }
    }

    /// An Ethernet frame; `None` where it is shorter than its header.
    #[must_use]
    pub fn of_frame(frame: &'a [u8]) -> Option<Self> {
        let source = frame.get(6..12)?.try_into().ok()?;
        Some(Self { bytes: frame.get(crate::wire::ETHERNET_LENGTH..)?, source: Some(source) })
    }
}

impl Packet for SlicePacket<'_> {
    fn view<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }

    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.view::<N>(offset).copied()
    }

    fn copy<const N: usize>(&self, offset: u32, length: u32, into: &mut [u8; N]) -> bool {
        let (offset, length) = (offset as usize, length as usize);
        let (Some(from), Some(to)) =
            (self.bytes.get(offset..offset + length), into.get_mut(..length))
        else {
            return false;
        };
        to.copy_from_slice(from);
        true
    }

    fn sum(&self, offset: u32, length: u32) -> Option<u32> {
        if length > LONGEST_SUM {
            return None;
        }
        let (offset, length) = (offset as usize, length as usize);
        let (words, rest) = self.bytes.get(offset..offset + length)?.as_chunks::<4>();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        let sum = words.iter().fold(Difference::new(), |sum, word| sum.add(*word));
        Some(sum.add(last).value())
    }

    fn ethernet_source(&self) -> Option<[u8; 6]> {
        self.source
    }
}
