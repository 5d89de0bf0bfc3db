//! The decisions without a kernel: packets as byte slices, maps as tables in memory.
//!
//! Tests run the same functions here as the datapath runs in the kernel, and compare.

mod apply;
mod memory;
pub mod samples;

pub use apply::{Outcome, from_container, from_uplink};
pub use memory::MemoryTables;

use crate::packet::Packet;

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

    fn ethernet_source(&self) -> Option<[u8; 6]> {
        self.source
    }
}
