//! The part of TCP and UDP headers that decisions need.

use super::{Decision, Stop};
use crate::packet::Packet;
use crate::wire::{TcpHeader, UdpHeader, protocol, tcp_flags};
use zerocopy::FromZeros;

/// A TCP or UDP header, as far as decisions need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
pub struct Transport {
    /// Source and destination port.
    pub ports: [u8; 4],
    /// TCP sequence number, host order; 0 for UDP.
    pub sequence: u32,
    /// TCP acknowledgment number, host order; 0 for UDP.
    pub acknowledgment: u32,
    /// Length of the header with its options.
    pub length: u16,
    /// TCP or UDP.
    pub protocol: u8,
    /// TCP flags; 0 for UDP.
    pub flags: u8,
    /// UDP without a checksum.
    pub unchecked: bool,
}

impl Transport {
    /// Reads the header behind an IP header of `START` bytes. `Stop::Pass` for other protocols, and
    /// for a packet that is too short to have ports: nobody can tell whose it is.
    #[inline(always)]
    pub fn read<const START: usize, P: Packet>(packet: &P, number: u8) -> Decision<Self> {
        match number {
            protocol::TCP => {
                let Some(bytes) = packet.view::<20>(START) else { return Err(Stop::Pass) };
                let tcp = TcpHeader::of(bytes);
                Ok(Self {
                    ports: tcp.ports,
                    sequence: u32::from_be_bytes(tcp.sequence),
                    acknowledgment: u32::from_be_bytes(tcp.acknowledgment),
                    length: tcp.length() as u16,
                    protocol: number,
                    flags: tcp.flags,
                    unchecked: false,
                })
            }
            protocol::UDP => {
                let Some(bytes) = packet.view::<8>(START) else { return Err(Stop::Pass) };
                let udp = UdpHeader::of(bytes);
                Ok(Self {
                    ports: udp.ports,
                    sequence: 0,
                    acknowledgment: 0,
                    length: 8,
                    protocol: number,
                    flags: 0,
                    unchecked: udp.checksum == [0; 2],
                })
            }
            _ => Err(Stop::Pass),
        }
    }

    /// The source port.
    #[inline(always)]
    #[must_use]
    pub const fn source_port(&self) -> [u8; 2] {
        [self.ports[0], self.ports[1]]
    }

    /// The destination port.
    #[inline(always)]
    #[must_use]
    pub const fn destination_port(&self) -> [u8; 2] {
        [self.ports[2], self.ports[3]]
    }

    /// Whether any of these TCP flags is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Whether this opens a TCP connection: SYN without ACK.
    #[inline(always)]
    #[must_use]
    pub const fn opens(&self) -> bool {
        self.flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN
    }

    /// Whether the header has its least length and fits into `payload` bytes.
    #[inline(always)]
    #[must_use]
    pub const fn fits(&self, payload: u16) -> bool {
        let least = if self.protocol == protocol::TCP { 20 } else { 8 };
        least <= self.length && self.length <= payload
    }
}
