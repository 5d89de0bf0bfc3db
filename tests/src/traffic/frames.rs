//! Frames of every kind that the datapath must leave alone, built byte by byte.

use std::net::Ipv6Addr;

use etherparse::PacketBuilder;

use crate::traffic::icmp::{ESP, GRE};

/// Where a frame comes from and goes to.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// The sender's MAC address.
    pub from_mac: [u8; 6],
    /// The receiver's MAC address.
    pub to_mac: [u8; 6],
    /// The sender's address.
    pub from: Ipv6Addr,
    /// The receiver's address.
    pub to: Ipv6Addr,
}

impl Ends {
    fn builder(&self) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        PacketBuilder::ethernet2(self.from_mac, self.to_mac).ipv6(
            self.from.octets(),
            self.to.octets(),
            64,
        )
    }

    /// A UDP datagram.
    pub fn udp(&self, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let builder = self.builder().udp(from, to);
        let mut frame = Vec::with_capacity(builder.size(payload.len()));
        builder.write(&mut frame, payload).expect("writing to memory");
        frame
    }

    /// A TCP segment with these flags: SYN, or ACK with data.
    pub fn tcp(&self, from: u16, to: u16, syn: bool, payload: &[u8]) -> Vec<u8> {
        let mut builder = self.builder().tcp(from, to, 0x0102_0304, 64_000);
        builder = if syn { builder.syn() } else { builder.ack(0x0506_0708) };
        let mut frame = Vec::with_capacity(builder.size(payload.len()));
        builder.write(&mut frame, payload).expect("writing to memory");
        frame
    }

    /// Any protocol, or extension header, with what follows the IPv6 header as it is.
    pub fn protocol(&self, number: u8, content: &[u8]) -> Vec<u8> {
        let mut frame = [self.to_mac, self.from_mac].concat();
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((content.len() as u16).to_be_bytes());
        frame.extend([number, 64]);
        frame.extend([self.from.octets(), self.to.octets()].concat());
        frame.extend(content);
        frame
    }

    /// An ICMPv6 message with its right checksum. `content` is type, code, two bytes for the
    /// checksum, and the rest.
    pub fn icmpv6(&self, content: &[u8]) -> Vec<u8> {
        let mut content = content.to_vec();
        content[2..4].fill(0);
        let sum = checksum(self.from, self.to, 58, &content);
        content[2..4].copy_from_slice(&sum.to_be_bytes());
        self.protocol(58, &content)
    }

    /// "Packet too big" about a packet whose IPv6 header and first bytes are `about`.
    pub fn packet_too_big(&self, mtu: u32, about: &[u8]) -> Vec<u8> {
        let content = [&[2, 0, 0, 0], mtu.to_be_bytes().as_slice(), about].concat();
        self.icmpv6(&content)
    }

    /// The UDP datagram in two fragments.
    pub fn udp_fragments(&self, from: u16, to: u16, payload: &[u8]) -> [Vec<u8>; 2] {
        let whole = self.udp(from, to, payload);
        let content = &whole[54..];
        let half = content.len() / 2 / 8 * 8;
        let fragment = |offset: usize, more: u16, part: &[u8]| {
            let place = (offset as u16) | more;
            let header = [&[17, 0], place.to_be_bytes().as_slice(), &[9, 8, 7, 6], part].concat();
            self.protocol(44, &header)
        };
        [fragment(0, 1, &content[..half]), fragment(half, 0, &content[half..])]
    }

    /// A UDP datagram to port 8080 in fragments of `size` bytes (a multiple of 8) but the last.
    pub fn fragments(&self, from: u16, payload: &[u8], size: usize, id: u32) -> Vec<Vec<u8>> {
        let whole = self.udp(from, 8080, payload);
        let parts: Vec<_> = whole[54..].chunks(size).collect();
        let fragment = |(index, part): (usize, &&[u8])| {
            let more = u16::from(index + 1 < parts.len());
            self.fragment((index * size) as u16 | more, id, part)
        };
        parts.iter().enumerate().map(fragment).collect()
    }

    /// One fragment of UDP. `place` is its offset in bytes, a multiple of 8; 1 is added to it for
    /// all but the last.
    pub fn fragment(&self, place: u16, id: u32, part: &[u8]) -> Vec<u8> {
        let header = [&[17, 0][..], &place.to_be_bytes(), &id.to_be_bytes(), part].concat();
        self.protocol(44, &header)
    }

    /// Every kind of packet that mentions port 8080, or could be taken for one that does.
    pub fn zoo(&self) -> Vec<(&'static str, Vec<u8>)> {
        let udp = self.udp(5000, 8080, b"an inner datagram");
        let [first, second] = self.udp_fragments(5001, 8080, &[0x66; 600]);
        let mut hop_by_hop = vec![17, 0, 1, 4, 0, 0, 0, 0];
        hop_by_hop.extend(&udp[54..]);
        let about_tcp = &self.tcp(8080, 5002, false, b"about")[14..];
        let mut odd = self.udp(5003, 8080, b"traffic class and flow label");
        odd[14..18].copy_from_slice(&[0x6b, 0x9a, 0xbc, 0xde]);
        let mut wrong = self.udp(5004, 8080, b"a wrong checksum");
        wrong[60] ^= 0xff;
        vec![
            ("TCP SYN", self.tcp(5005, 8080, true, b"")),
            ("TCP data", self.tcp(5006, 8080, false, b"a segment of some connection")),
            ("TCP from 8080", self.tcp(8080, 5007, false, b"an answer")),
            ("UDP", udp.clone()),
            ("UDP with class and label", odd),
            ("UDP with a wrong checksum", wrong),
            ("first fragment", first),
            ("second fragment", second),
            ("hop-by-hop header", self.protocol(0, &hop_by_hop)),
            ("ESP", self.protocol(ESP, &udp[54..])),
            ("AH", self.protocol(51, &[17, 4, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2])),
            ("GRE", self.protocol(GRE, &[&[0, 0, 0x86, 0xdd], &udp[14..]].concat())),
            ("SCTP", self.protocol(132, &[0x13, 0x88, 0x1f, 0x90, 0, 0, 0, 1, 0, 0, 0, 0])),
            ("IPv6 in IPv6", self.protocol(41, &udp[14..])),
            ("no next header", self.protocol(59, b"")),
            ("echo request", self.icmpv6(b"\x80\x00\x00\x00\x12\x34\x00\x01ping")),
            ("packet too big", self.packet_too_big(1280, about_tcp)),
            ("port unreachable", self.icmpv6(&[&[1, 4, 0, 0, 0, 0, 0, 0], about_tcp].concat())),
        ]
    }
}

/// The Internet checksum over an upper-layer packet with its IPv6 pseudo-header (RFC 8200 §8.1).
pub fn checksum(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, content: &[u8]) -> u16 {
    let length = (content.len() as u32).to_be_bytes();
    let pseudo =
        [&from.octets()[..], &to.octets()[..], &length[..], &[0, 0, 0, protocol][..], content];
    let bytes = pseudo.concat();
    let words = bytes.chunks(2).map(|pair| {
        u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]))
    });
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded + (folded >> 16)) as u16)
}

/// `frame` with a VLAN tag of 802.1Q.
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let tag = [[0x81, 0x00], vlan.to_be_bytes()].concat();
    frame.splice(12..12, tag);
    frame
}
