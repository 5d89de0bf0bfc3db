//! The IP header of the other family (RFC 7915 §4.1, §5.1).

use crate::decide::Fragment;
use crate::layout::{ForwardKey, ReplyKey};
use crate::wire::{IPV4_LENGTH, Ipv4Header, Ipv6Header};

/// Largest IPv4 packet that may be fragmented on its way: 1280 less what the header shrinks by
/// (RFC 7915 §5.1, "Flags").
const FRAGMENTABLE: u32 = 1260;

/// The fields of an IPv4 header that are about fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragmentation {
    /// Flags and offset, as in [`Ipv4Header::flags_offset`], host order.
    flags_offset: u16,
    /// Identification, host order.
    identification: u16,
}

impl Fragmentation {
    /// A packet without a Fragment header (RFC 7915 §5.1).
    ///
    /// `wire_length` is the length of the largest IPv4 packet on the wire, which for a super-packet
    /// is a segment's; it decides "don't fragment". `identification` should not repeat soon
    /// (RFC 6864 §4.3).
    #[inline(always)]
    #[must_use]
    pub const fn of_whole(wire_length: u32, identification: u16) -> Self {
        if wire_length <= FRAGMENTABLE {
            Self { flags_offset: 0, identification }
        } else {
            Self { flags_offset: Ipv4Header::DONT_FRAGMENT, identification: 0 }
        }
    }

    /// A packet with a Fragment header, which may be fragmented further (RFC 7915 §5.1.1): offset
    /// and "more fragments" are copied, and the lower half of the identification.
    #[inline(always)]
    #[must_use]
    pub const fn of_fragment(fragment: &Fragment) -> Self {
        let [_, _, high, low] = fragment.identification;
        let more = if fragment.more { Ipv4Header::MORE_FRAGMENTS } else { 0 };
        Self {
            flags_offset: more | (fragment.offset / 8),
            identification: u16::from_be_bytes([high, low]),
        }
    }
}

/// The IPv4 header for an IPv6 packet that has `payload` bytes from the transport header on
/// (RFC 7915 §5.1).
///
/// The caller has seen that the hop limit is above 1 and the payload below 65,516 bytes.
#[inline(always)]
#[must_use]
pub fn ipv4_header(
    ipv6: &Ipv6Header,
    reply: &ReplyKey,
    payload: u16,
    fragmentation: Fragmentation,
) -> [u8; 20] {
    Ipv4Header {
        version_length: Ipv4Header::VERSION_LENGTH,
        tos: ipv6.traffic_class(),
        total_length: payload.wrapping_add(IPV4_LENGTH as u16).to_be_bytes(),
        identification: fragmentation.identification.to_be_bytes(),
        flags_offset: fragmentation.flags_offset.to_be_bytes(),
        ttl: ipv6.hop_limit.wrapping_sub(1),
        protocol: reply.protocol,
        checksum: [0; 2],
        source: reply.alias,
        destination: reply.target,
    }
    .sealed()
}

/// The IPv6 header for an IPv4 packet (RFC 7915 §4.1), with `payload` bytes of `next` behind it.
///
/// The caller has seen that the TTL is above 1.
#[inline(always)]
#[must_use]
pub fn ipv6_header(ipv4: &Ipv4Header, flow: &ForwardKey, payload: u16, next: u8) -> [u8; 40] {
    zerocopy::transmute!(Ipv6Header {
        version_class_flow: [0x60 | ipv4.tos >> 4, ipv4.tos << 4, 0, 0],
        payload_length: payload.to_be_bytes(),
        next_header: next,
        hop_limit: ipv4.ttl.wrapping_sub(1),
        source: flow.host,
        destination: flow.client,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::samples;
    use etherparse::Ipv4HeaderSlice;

    fn ipv6(class: u8, payload: u16, hop_limit: u8) -> Ipv6Header {
        Ipv6Header {
            version_class_flow: [0x60 | class >> 4, class << 4 | 0x0a, 0xbc, 0xde],
            payload_length: payload.to_be_bytes(),
            next_header: 6,
            hop_limit,
            source: samples::CLIENT,
            destination: samples::HOST,
        }
    }

    #[test]
    fn h1_h2_fields_and_checksum_by_another_parser() {
        for class in 0..=255u8 {
            for (payload, hops) in [(20u16, 2u8), (1240, 64), (1241, 255), (65_515, 3)] {
                let total = u32::from(payload) + 20;
                let bytes = ipv4_header(
                    &ipv6(class, payload, hops),
                    &samples::reply(),
                    payload,
                    Fragmentation::of_whole(total, 77),
                );
                let parsed = Ipv4HeaderSlice::from_slice(&bytes).expect("a valid header");
                assert_eq!(parsed.dcp().value() << 2 | parsed.ecn().value(), class);
                assert_eq!(u32::from(parsed.total_len()), total);
                assert_eq!(parsed.ttl(), hops - 1);
                assert_eq!(parsed.header_checksum(), parsed.to_header().calc_header_checksum());
                assert_eq!(parsed.source(), samples::reply().alias);
                assert_eq!(parsed.destination(), samples::reply().target);
            }
        }
    }

    #[test]
    fn h4_up_to_1260_bytes_may_be_fragmented_and_has_an_identification() {
        for (length, dont_fragment) in
            [(40, false), (1259, false), (1260, false), (1261, true), (1500, true)]
        {
            let fragmentation = Fragmentation::of_whole(length, 0x1234);
            let bytes = ipv4_header(&ipv6(0, 20, 64), &samples::reply(), 20, fragmentation);
            let header = Ipv4Header::of(&bytes);
            let flags = u16::from_be_bytes(header.flags_offset);
            assert_eq!(flags == Ipv4Header::DONT_FRAGMENT, dont_fragment, "{length}");
            assert_eq!(header.identification == [0x12, 0x34], !dont_fragment, "{length}");
        }
    }

    #[test]
    fn g1_g5_reply_header_for_every_type_of_service() {
        for tos in 0..=255u8 {
            let ipv4 = Ipv4Header {
                version_length: 0x45,
                tos,
                total_length: 1500u16.to_be_bytes(),
                identification: [9, 9],
                flags_offset: [0x40, 0],
                ttl: 64,
                protocol: 17,
                checksum: [0; 2],
                source: [172, 17, 0, 2],
                destination: [198, 18, 0, 1],
            };
            let bytes = ipv6_header(&ipv4, &samples::flow(), 1480, ipv4.protocol);
            let header = Ipv6Header::of(&bytes);
            assert_eq!(header.version(), 6);
            assert_eq!(header.traffic_class(), tos);
            assert_eq!([header.version_class_flow[1] & 0x0f, header.version_class_flow[2]], [0, 0]);
            assert_eq!(header.payload(), 1480);
            assert_eq!((header.next_header, header.hop_limit), (17, 63));
            assert_eq!((header.source, header.destination), (samples::HOST, samples::CLIENT));
        }
    }

    #[test]
    fn h7_fragment_fields_of_every_offset() {
        for offset in (0..=0xfff8u16).step_by(8) {
            for more in [false, true] {
                let fragment =
                    Fragment { is_some: true, more, offset, identification: [1, 2, 0xab, 0xcd] };
                let fragmentation = Fragmentation::of_fragment(&fragment);
                let bytes = ipv4_header(&ipv6(0, 20, 64), &samples::reply(), 20, fragmentation);
                let parsed = Ipv4HeaderSlice::from_slice(&bytes).expect("a valid header");
                assert_eq!(parsed.fragments_offset().byte_offset(), offset);
                assert_eq!((parsed.more_fragments(), parsed.dont_fragment()), (more, false));
                assert_eq!(parsed.identification(), 0xabcd);
            }
        }
    }
}
