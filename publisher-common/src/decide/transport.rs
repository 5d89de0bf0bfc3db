//! The part of TCP and UDP headers that decisions need.

use super::{Decision, Extras, Stop};
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
    /// Length of the UDP datagram, header included, as it says itself; 0 for TCP.
    pub datagram: u16,
}

impl Transport {
    /// Reads the header behind an IP header of `START` bytes and what `extras` says. `Stop::Pass` for
    /// other protocols, and for a packet that is too short to have ports: nobody can tell whose it
    /// is. A function of its own: what differs between TCP and UDP would be followed by the verifier
    /// through everything that comes later, once for each.
    #[inline(never)]
    pub fn read<const START: usize, P: Packet>(
        &mut self,
        packet: &P,
        extras: &Extras,
    ) -> Decision<()> {
        if extras.length != 0 {
            return self.load(packet, START + extras.length as usize, extras.next);
        }
        match extras.next {
            protocol::TCP => {
                let Some(bytes) = packet.view::<20>(START) else { return Err(Stop::Pass) };
                self.set_tcp(bytes);
            }
            protocol::UDP => {
                let Some(bytes) = packet.view::<8>(START) else { return Err(Stop::Pass) };
                self.set_udp(bytes);
            }
            _ => return Err(Stop::Pass),
        }
        Ok(())
    }

    /// As [`read`](Self::read), at an offset that the packet itself named.
    #[inline(always)]
    fn load<P: Packet>(&mut self, packet: &P, start: usize, number: u8) -> Decision<()> {
        match number {
            protocol::TCP => {
                let Some(bytes) = packet.load::<20>(start) else { return Err(Stop::Pass) };
                self.set_tcp(&bytes);
            }
            protocol::UDP => {
                let Some(bytes) = packet.load::<8>(start) else { return Err(Stop::Pass) };
                self.set_udp(&bytes);
            }
            _ => return Err(Stop::Pass),
        }
        Ok(())
    }

    #[inline(always)]
    fn set_tcp(&mut self, bytes: &[u8; 20]) {
        let tcp = TcpHeader::of(bytes);
        self.ports = tcp.ports;
        self.sequence = u32::from_be_bytes(tcp.sequence);
        self.acknowledgment = u32::from_be_bytes(tcp.acknowledgment);
        self.length = tcp.length() as u16;
        self.protocol = protocol::TCP;
        self.flags = tcp.flags;
        self.unchecked = false;
        self.datagram = 0;
    }

    #[inline(always)]
    fn set_udp(&mut self, bytes: &[u8; 8]) {
        let udp = UdpHeader::of(bytes);
        self.ports = udp.ports;
        self.sequence = 0;
        self.acknowledgment = 0;
        self.length = 8;
        self.protocol = protocol::UDP;
        self.flags = 0;
        self.unchecked = udp.checksum == [0; 2];
        self.datagram = u16::from_be_bytes(udp.length);
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
