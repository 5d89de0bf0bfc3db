//! Frames, built by etherparse.

use etherparse::{PacketBuilder, TcpHeader};
use publisher_common::layout::{ForwardKey, ReplyKey, origin};
use publisher_common::native::samples;
use publisher_common::wire::{ETHERNET_LENGTH, IPV6_LENGTH, protocol, tcp_flags};
use publisher_tests::mirror::MAC;

/// Hardware address of the client's router.
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
/// A router on the client's path.
const ROUTER: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe];

/// What stands behind the IP header.
#[derive(Clone, Debug)]
pub enum Body {
    Tcp { flags: u8, sequence: u32, acknowledgment: u32, options: Vec<u8>, payload: usize },
    Udp { payload: usize },
}

macro_rules! finish {
    ($ip:expr, $from:expr, $to:expr, $body:expr) => {{
        let (from, to) = (u16::from_be_bytes($from), u16::from_be_bytes($to));
        let mut bytes = Vec::new();
        match $body {
            Body::Tcp { flags, sequence, acknowledgment, options, payload } => {
                let mut header = TcpHeader::new(from, to, *sequence, 64_240);
                header.acknowledgment_number = *acknowledgment;
                header.fin = flags & tcp_flags::FIN != 0;
                header.syn = flags & tcp_flags::SYN != 0;
                header.rst = flags & tcp_flags::RST != 0;
                header.ack = flags & tcp_flags::ACK != 0;
                header.set_options_raw(options).expect("options of at most 40 bytes");
                $ip.tcp_header(header).write(&mut bytes, &vec![0x5a; *payload])
            }
            Body::Udp { payload } => $ip.udp(from, to).write(&mut bytes, &vec![0xa5; *payload]),
        }
        .expect("a packet that can be built");
        bytes
    }};
}

/// A client's frame.
pub fn client_packet(flow: &ForwardKey, body: &Body) -> Vec<u8> {
    let ip = PacketBuilder::ethernet2(ROUTER_MAC, MAC).ipv6(flow.client, flow.host, 64);
    finish!(ip, flow.client_port, flow.host_port, body)
}

/// A container's frame.
pub fn container_packet(reply: &ReplyKey, source: [u8; 6], body: &Body) -> Vec<u8> {
    let ip = PacketBuilder::ethernet2(source, MAC).ipv4(reply.target, reply.alias, 64);
    finish!(ip, reply.target_port, reply.alias_port, body)
}

/// What a flow's packet looks like that is embedded in an error.
fn embedded(number: u8) -> Body {
    if number == protocol::UDP {
        return Body::Udp { payload: 1_300 };
    }
    let options = Vec::new();
    Body::Tcp { flags: tcp_flags::ACK, sequence: 77, acknowledgment: 78, options, payload: 1_300 }
}

/// How a packet is embedded in an error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Embedding {
    /// Bytes of it.
    pub length: usize,
    /// Offset and flags of a fragment; `None` for a whole packet.
    pub fragment: Option<u16>,
    /// Bytes of an extension behind it.
    pub extension: usize,
}

impl Embedding {
    /// A whole packet's first bytes.
    pub fn of(length: usize) -> Self {
        Self { length, ..Self::default() }
    }

    fn append(&self, mut packet: Vec<u8>) -> Vec<u8> {
        packet.resize(self.length, 0);
        packet.extend((0..self.extension).map(|index| index as u8 ^ 0x3c));
        packet
    }
}

/// An ICMPv6 error about the packet that the flow's client got. `second` is the word behind the
/// checksum.
pub fn client_error(
    flow: &ForwardKey,
    (kind, code): (u8, u8),
    second: u32,
    embedding: &Embedding,
) -> Vec<u8> {
    let from = if flow.origin == origin::HOST { flow.client } else { ROUTER };
    let got = ForwardKey {
        client: flow.host,
        host: flow.client,
        client_port: flow.host_port,
        host_port: flow.client_port,
        ..*flow
    };
    let mut got = client_packet(&got, &embedded(flow.protocol)).split_off(ETHERNET_LENGTH);
    if let Some(place) = embedding.fragment {
        let [high, low] = place.to_be_bytes();
        got.splice(IPV6_LENGTH..IPV6_LENGTH, [got[6], 0, high, low, 1, 2, 3, 4]);
        got[6] = protocol::FRAGMENT;
    }
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(ROUTER_MAC, MAC)
        .ipv6(from, flow.host, 61)
        .icmpv6_raw(kind, code, second.to_be_bytes())
        .write(&mut bytes, &embedding.append(got))
        .expect("an ICMPv6 error");
    bytes
}

/// An ICMP error about the packet that the container got.
pub fn container_error(
    reply: &ReplyKey,
    source: [u8; 6],
    (kind, code): (u8, u8),
    second: [u8; 4],
    embedding: &Embedding,
) -> Vec<u8> {
    let got = ReplyKey {
        target: reply.alias,
        alias: reply.target,
        target_port: reply.alias_port,
        alias_port: reply.target_port,
        ..*reply
    };
    let got = container_packet(&got, samples::TARGET_MAC, &embedded(reply.protocol));
    let mut got = got[ETHERNET_LENGTH..].to_vec();
    if let Some(place) = embedding.fragment {
        got[6..8].copy_from_slice(&place.to_be_bytes());
    }
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(source, MAC)
        .ipv4(reply.target, reply.alias, 64)
        .icmpv4_raw(kind, code, second)
        .write(&mut bytes, &embedding.append(got))
        .expect("an ICMP error");
    bytes
}
