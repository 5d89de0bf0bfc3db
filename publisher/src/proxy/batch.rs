//! Datagrams that are received and sent many at a time.
//!
//! One receive call brings up to [`BATCH_SIZE`] pieces. What of one sender and of one length comes in a row is
//! sent on in one piece: the way through the kernel is paid once for all of it.

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

/// The most that the kernel hands over in one piece: a datagram, or several of one sender (GRO).
const LARGEST: usize = 65_535;
/// A datagram of this size needs no fragments on any IPv6 link (RFC 8200 §5). Several of them can be sent in one
/// piece (GSO); the kernel refuses that for those that would need some.
const FITS: usize = 1_280 - 40 - 8;
/// Datagrams that are put together (UDP_MAX_SEGMENTS of kernels before 6.9).
const TOGETHER: usize = 64;

/// Room for what one receive call brings.
pub(super) struct Batch {
    memory: Box<[u8]>,
    meta: [RecvMeta; BATCH_SIZE],
    /// Where datagrams are put together.
    joined: Vec<u8>,
}

impl Batch {
    pub fn new() -> Self {
        Self {
            memory: vec![0; LARGEST * BATCH_SIZE].into(),
            meta: [RecvMeta::default(); BATCH_SIZE],
            joined: Vec::with_capacity(FITS * TOGETHER),
        }
    }

    /// Receives what waits; says how many pieces that are.
    pub fn receive(&mut self, state: &UdpSocketState, socket: UdpSockRef<'_>) -> io::Result<usize> {
        let mut pieces = self.memory.chunks_exact_mut(LARGEST);
        let mut pieces: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(pieces.next().unwrap_or_default()));
        state.recv(socket, &mut pieces, &mut self.meta)
    }

    /// Hands on the first `count` pieces: who sent each, and its bytes. Datagrams in a row that can be sent on
    /// together come as one piece.
    pub fn each(&mut self, count: usize, mut take: impl FnMut(&RecvMeta, &[u8])) {
        let Self { memory, meta, joined } = self;
        let bytes = |index: usize| {
            let start = index * LARGEST;
            &memory[start..start + meta[index].len]
        };
        let mut first = 0;
        while first < count {
            let end = first + row(&meta[first..count]);
            if end == first + 1 {
                take(&meta[first], bytes(first));
            } else {
                joined.clear();
                (first..end).for_each(|index| joined.extend_from_slice(bytes(index)));
                let mut all = meta[first];
                (all.len, all.stride) = (joined.len(), meta[first].len);
                take(&all, joined);
            }
            first = end;
        }
    }
}

/// How many of these pieces, from the first on, are datagrams that can be sent as one: of one sender to one
/// address, all of one length but for the last, which may be shorter.
fn row(meta: &[RecvMeta]) -> usize {
    let Some((first, others)) = meta.split_first() else { return 0 };
    let is_single = |it: &RecvMeta| it.len > 0 && it.len <= it.stride;
    if !is_single(first) || first.len > FITS {
        return 1;
    }
    let mut count = 1;
    for other in others.iter().take(TOGETHER - 1) {
        let same = (other.addr, other.dst_ip, other.ecn) == (first.addr, first.dst_ip, first.ecn);
        if !same || !is_single(other) || other.len > first.len {
            break;
        }
        count += 1;
        if other.len < first.len {
            break;
        }
    }
    count
}

/// Datagrams in one piece.
pub(super) fn datagrams(meta: &RecvMeta) -> u64 {
    meta.len.div_ceil(meta.stride.max(1)).max(1) as u64
}

/// What was received, to be sent on.
pub(super) fn transmit<'a>(
    destination: SocketAddr,
    meta: &RecvMeta,
    contents: &'a [u8],
    src_ip: Option<IpAddr>,
) -> Transmit<'a> {
    let segment_size = (meta.len > meta.stride).then_some(meta.stride);
    Transmit { destination, ecn: meta.ecn, contents, segment_size, src_ip }
}

/// Sends one datagram, or several of the same length: in one piece where that is sure to be taken.
pub(super) fn send<'a>(
    state: &UdpSocketState,
    socket: impl Fn() -> UdpSockRef<'a>,
    transmit: Transmit<'_>,
) -> io::Result<()> {
    let Some(stride) = transmit.segment_size else { return state.try_send(socket(), &transmit) };
    if stride <= FITS && state.max_gso_segments() > 1 {
        return state.try_send(socket(), &transmit);
    }
    // Otherwise each by itself, in fragments if need be.
    for contents in transmit.contents.chunks(stride) {
        let Transmit { destination, ecn, src_ip, .. } = transmit;
        let one = Transmit { destination, ecn, contents, segment_size: None, src_ip };
        state.try_send(socket(), &one)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(sender: u16, len: usize, stride: usize) -> RecvMeta {
        let mut meta = RecvMeta::default();
        meta.addr = ([0; 16], sender).into();
        (meta.len, meta.stride) = (len, stride);
        meta
    }

    #[test]
    fn only_what_can_be_sent_as_one_is_put_together() {
        let one = |len| meta(1, len, len.max(1));
        for (pieces, expected) in [
            (vec![], 0),
            (vec![one(10)], 1),
            (vec![one(10), one(10), one(10)], 3),
            // A shorter one is the last; a longer one begins anew.
            (vec![one(10), one(4), one(4)], 2),
            (vec![one(10), one(11)], 1),
            // Of another sender; with nothing in it; many in one already; too large.
            (vec![one(10), meta(2, 10, 10)], 1),
            (vec![one(0), one(0)], 1),
            (vec![one(10), one(0)], 1),
            (vec![meta(1, 20, 10), one(10)], 1),
            (vec![one(10), meta(1, 20, 10)], 1),
            (vec![one(FITS + 1), one(FITS + 1)], 1),
            (vec![one(FITS); 70], TOGETHER),
        ] {
            assert_eq!(row(&pieces), expected, "{pieces:?}");
        }
    }

    #[test]
    fn every_byte_is_handed_on_once_and_in_order() {
        let mut batch = Batch::new();
        let lengths = [3, 3, 2, 3, 0, 1];
        for (index, length) in lengths.into_iter().enumerate() {
            batch.meta[index] = meta(1, length, length.max(1));
            batch.memory[index * LARGEST..][..length].fill(index as u8);
        }
        let mut got = Vec::new();
        batch.each(lengths.len(), |meta, bytes| {
            got.push((meta.stride, datagrams(meta), bytes.to_vec()))
        });
        let expected = [
            (3, 3, vec![0, 0, 0, 1, 1, 1, 2, 2]),
            (3, 1, vec![3, 3, 3]),
            (1, 1, vec![]),
            (1, 1, vec![5]),
        ];
        assert_eq!(got, expected);
    }
}
