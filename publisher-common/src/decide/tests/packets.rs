//! Packets of both sides, with checksums by etherparse.

use super::samples;
use crate::layout::{ForwardKey, ReplyKey};
use crate::wire::tcp_flags::{ACK, FIN, RST, SYN};
use etherparse::{PacketBuilder, TcpHeader};
use std::vec::Vec;

/// A container's initial sequence number.
pub const ISN: u32 = 0xffff_fffe;

/// A TCP segment without its ports.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    pub flags: u8,
    pub sequence: u32,
    pub acknowledgment: u32,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Segment {
    pub fn new(flags: u8) -> Self {
        Self { flags, sequence: 1_000, ..Self::default() }
    }

    pub fn syn() -> Self {
        Self::new(SYN)
    }

    /// A container's answer to a SYN.
    pub fn syn_ack() -> Self {
        Self { sequence: ISN, acknowledgment: 1_001, ..Self::new(SYN | ACK) }
    }

    /// A client's acknowledgment of everything up to `acknowledgment`.
    pub fn ack(acknowledgment: u32) -> Self {
        Self { acknowledgment, ..Self::new(ACK) }
    }

    /// Data of an open connection.
    pub fn data(length: usize) -> Self {
        let payload = (0..length).map(|index| index as u8 ^ 0x5a).collect();
        Self { payload, ..Self::ack(ISN.wrapping_add(1)) }
    }

    pub fn fin() -> Self {
        Self { flags: FIN | ACK, ..Self::data(0) }
    }

    pub fn rst() -> Self {
        Self::new(RST)
    }

    pub fn options(self, options: &[u8]) -> Self {
        Self { options: options.to_vec(), ..self }
    }
}

/// What stands behind the IP header.
#[derive(Clone, Debug)]
pub enum Body {
    Tcp(Segment),
    Udp(Vec<u8>),
}

impl Body {
    pub fn datagram(length: usize) -> Self {
        Self::Udp((0..length).map(|index| index as u8 ^ 0xa5).collect())
    }
}

impl Body {
    /// What is in it.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Tcp(segment) => segment.payload.clone(),
            Self::Udp(payload) => payload.clone(),
        }
    }
}

impl From<Segment> for Body {
    fn from(segment: Segment) -> Self {
        Self::Tcp(segment)
    }
}

macro_rules! finish {
    ($ip:expr, $from:expr, $to:expr, $body:expr) => {{
        let (from, to) = (u16::from_be_bytes($from), u16::from_be_bytes($to));
        let mut bytes = Vec::new();
        match $body {
            Body::Tcp(segment) => {
                $ip.tcp_header(header(segment, from, to)).write(&mut bytes, &segment.payload)
            }
            Body::Udp(payload) => $ip.udp(from, to).write(&mut bytes, payload),
        }
        .expect("a packet that can be built");
        bytes
    }};
}

/// A client's packet.
pub fn from_client(flow: &ForwardKey, body: &Body) -> Vec<u8> {
    finish!(PacketBuilder::ipv6(flow.client, flow.host, 64), flow.client_port, flow.host_port, body)
}

/// A container's frame, from the sample container's hardware address.
pub fn from_target(reply: &ReplyKey, body: &Body) -> Vec<u8> {
    finish!(
        PacketBuilder::ethernet2(samples::TARGET_MAC, samples::link().device_mac).ipv4(
            reply.target,
            reply.alias,
            64
        ),
        reply.target_port,
        reply.alias_port,
        body
    )
}

fn header(segment: &Segment, from: u16, to: u16) -> TcpHeader {
    let mut header = TcpHeader::new(from, to, segment.sequence, 64_240);
    header.acknowledgment_number = segment.acknowledgment;
    let has = |flag| segment.flags & flag != 0;
    (header.fin, header.syn, header.rst, header.ack) = (has(FIN), has(SYN), has(RST), has(ACK));
    header.set_options_raw(&segment.options).expect("at most 40 bytes of options");
    header
}

/// Sums the header checksum of an IPv4 packet again, after a change.
pub fn reseal(ipv4: &mut [u8]) {
    let sum = etherparse::Ipv4HeaderSlice::from_slice(ipv4)
        .expect("an IPv4 header")
        .to_header()
        .calc_header_checksum();
    ipv4[10..12].copy_from_slice(&sum.to_be_bytes());
}
