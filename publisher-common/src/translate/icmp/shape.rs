//! How much of an error's message goes along, and where its extension lies (RFC 4884).

use crate::wire::ICMP_LENGTH;
use zerocopy::FromZeros;

/// Bytes that the embedded packet has at least where an extension follows it (RFC 4884 §3), and
/// exactly in an error that is made here: essential part, then extension, then nothing.
pub const ESSENTIAL: u32 = 128;
/// Length of an extension's own header (RFC 4884 §7).
const EXTENSION_HEADER: u32 = 4;
/// Bytes of the embedded transport header that go along with the IP header, always.
const TRANSPORT: u32 = 8;

/// What of an error's message is copied behind the embedded IP header and 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
pub struct Shape {
    /// Bytes of the embedded packet behind those.
    pub kept: u32,
    /// Where the extension starts in the message that came, ICMP header included.
    pub extension_at: u32,
    /// Bytes of the extension; 0 without one.
    pub extension: u32,
}

impl Shape {
    /// For a message of `length` bytes, which says that its embedded packet has `declared` bytes (0 if
    /// it says nothing), with an IP header of `old` bytes that becomes one of `new`. `room` is what
    /// may stand behind the new ICMP header, `extends` whether an error of the new type may have an
    /// extension. The caller has seen that headers and 8 bytes are there.
    ///
    /// A length that isn't possible is no length: routers older than RFC 4884 don't clear the field.
    #[inline(always)]
    #[must_use]
    pub const fn of(
        length: u32,
        declared: u32,
        [old, new]: [usize; 2],
        room: u32,
        extends: bool,
    ) -> Self {
        let all = length - ICMP_LENGTH as u32;
        let has_extension = declared >= ESSENTIAL && declared + EXTENSION_HEADER <= all;
        let datagram = if has_extension { declared } else { all };
        let (here, there) = (datagram - old as u32 - TRANSPORT, new as u32 + TRANSPORT);
        if has_extension && extends {
            Self {
                kept: least(here, ESSENTIAL - there),
                extension_at: ICMP_LENGTH as u32 + datagram,
                extension: least(all - datagram, room - ESSENTIAL),
            }
        } else {
            Self { kept: least(here, room - there), extension_at: 0, extension: 0 }
        }
    }

    /// Bytes behind the ICMP header of the error that is made, with an embedded IP header of `new`
    /// bytes.
    #[inline(always)]
    #[must_use]
    pub const fn body(&self, new: usize) -> u32 {
        if self.extension == 0 {
            new as u32 + TRANSPORT + self.kept
        } else {
            ESSENTIAL + self.extension
        }
    }
}

#[inline(always)]
const fn least(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What may follow the ICMPv4 header: 576 bytes less 28.
    const IPV4_ROOM: u32 = 548;
    /// What may follow the ICMPv6 header: 1280 bytes less 48.
    const IPV6_ROOM: u32 = 1_232;

    #[test]
    fn i10_as_much_goes_along_as_fits() {
        for (length, kept, body) in [(56, 0, 28), (57, 1, 29), (576, 520, 548), (1_240, 520, 548)] {
            let shape = Shape::of(length, 0, [40, 20], IPV4_ROOM, true);
            assert_eq!((shape.kept, shape.extension), (kept, 0), "{length}");
            assert_eq!(shape.body(20), body, "{length}");
        }
        for (length, kept, body) in [(36, 0, 48), (556, 520, 568), (1_220, 1_184, 1_232)] {
            let shape = Shape::of(length, 0, [20, 40], IPV6_ROOM, true);
            assert_eq!((shape.kept, shape.extension), (kept, 0), "{length}");
            assert_eq!(shape.body(40), body, "{length}");
        }
        assert_eq!(Shape::of(1_500, 0, [20, 40], IPV6_ROOM, true).body(40), IPV6_ROOM);
    }

    #[test]
    fn i11_an_extension_follows_128_bytes() {
        // The embedded packet of 128 bytes is 20 bytes shorter in IPv4; the gap is padded.
        let shape = Shape::of(8 + 128 + 16, 128, [40, 20], IPV4_ROOM, true);
        assert_eq!(shape, Shape { kept: 80, extension_at: 136, extension: 16 });
        assert_eq!(shape.body(20), 128 + 16);
        let shape = Shape::of(8 + 1_000 + 16, 1_000, [40, 20], IPV4_ROOM, true);
        assert_eq!(shape, Shape { kept: 100, extension_at: 1_008, extension: 16 });
        let shape = Shape::of(8 + 128 + 16, 128, [20, 40], IPV6_ROOM, true);
        assert_eq!(shape, Shape { kept: 80, extension_at: 136, extension: 16 });
        assert_eq!(shape.body(40), 128 + 16);
    }

    #[test]
    fn i11_an_extension_that_doesnt_fit_is_cut() {
        let shape = Shape::of(8 + 128 + 1_000, 128, [40, 20], IPV4_ROOM, true);
        assert_eq!((shape.extension, shape.body(20)), (420, IPV4_ROOM));
        let shape = Shape::of(8 + 128 + 1_200, 128, [20, 40], IPV6_ROOM, true);
        assert_eq!((shape.extension, shape.body(40)), (1_104, IPV6_ROOM));
    }

    #[test]
    fn i11_where_the_new_type_has_no_extension_it_is_left_out() {
        let shape = Shape::of(8 + 200 + 16, 200, [20, 40], IPV6_ROOM, false);
        assert_eq!(shape, Shape { kept: 200 - 28, extension_at: 0, extension: 0 });
    }

    #[test]
    fn i11_an_impossible_length_is_none() {
        for declared in [1, 4, 120, 127, 129, 132, 1_020] {
            let shape = Shape::of(8 + 132, declared, [40, 20], IPV4_ROOM, true);
            assert_eq!(
                shape,
                Shape { kept: 132 - 48, extension_at: 0, extension: 0 },
                "{declared}"
            );
        }
        assert_eq!(Shape::of(8 + 132, 128, [40, 20], IPV4_ROOM, true).extension, 4);
    }

    #[test]
    fn i10_i11_nothing_is_read_behind_the_message_or_written_behind_the_room() {
        for length in 56..=1_536 {
            for declared in (0..=2_040).step_by(4) {
                for (headers, room) in [([40, 20], IPV4_ROOM), ([20, 40], IPV6_ROOM)] {
                    let shape = Shape::of(length, declared, headers, room, true);
                    let [old, new] = headers;
                    assert!(8 + old as u32 + 8 + shape.kept <= length);
                    assert!(shape.extension_at + shape.extension <= length);
                    assert!(shape.body(new) <= room);
                    assert!(shape.extension == 0 || new as u32 + 8 + shape.kept <= ESSENTIAL);
                }
            }
        }
    }
}
