//! Headers and errors of one family out of those of the other (RFC 7915): pure functions of bytes.

mod fragment;
mod header;
pub mod icmp;
mod mss;

pub use fragment::{PIECES, Piece, fragment_header, make_fragment, piece, pieces};
pub use header::{Fragmentation, ipv4_header, ipv6_header};
pub use mss::{MssPatch, clamp_mss, mss_limit};

use crate::checksum::Difference;
use crate::layout::ReplyKey;
use zerocopy::FromZeros;

/// What changes behind the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
pub struct TransportRewrite {
    /// TCP or UDP; 0 where nothing changes.
    pub protocol: u8,
    /// The new source and destination port.
    pub ports: [u8; 4],
    /// By how much the pseudo-header changes. Kept apart from `fields`: where a checksum is still to
    /// be completed by the sender's offload, the field holds the sum of the pseudo-header only.
    pub pseudo_header: Difference,
    /// By how much the transport header itself changes: ports and MSS.
    pub fields: Difference,
    /// A new MSS option, where it has to be lowered.
    pub mss: MssPatch,
    /// The checksum that a UDP datagram without one is given before it is corrected; 0 for none.
    pub seed: [u8; 2],
}

impl TransportRewrite {
    /// Nothing to change: a later fragment has no transport header.
    pub const NONE: Self = Self {
        protocol: 0,
        ports: [0; 4],
        pseudo_header: Difference::new(),
        fields: Difference::new(),
        mss: MssPatch::NONE,
        seed: [0; 2],
    };

    /// The rewrite of a client's packet.
    #[inline(always)]
    #[must_use]
    pub fn to_container(
        reply: &ReplyKey,
        client: &[u8; 16],
        host: &[u8; 16],
        old_ports: [u8; 4],
    ) -> Self {
        let [a, b] = reply.alias_port;
        let [c, d] = reply.target_port;
        let ports = [a, b, c, d];
        Self {
            protocol: reply.protocol,
            ports,
            pseudo_header: Difference::new()
                .remove_ipv6(client)
                .remove_ipv6(host)
                .add(reply.alias)
                .add(reply.target),
            fields: Difference::new().remove(old_ports).add(ports),
            mss: MssPatch::NONE,
            seed: [0; 2],
        }
    }

    /// The rewrite of a container's packet.
    #[inline(always)]
    #[must_use]
    pub fn to_client(
        reply: &ReplyKey,
        client: &[u8; 16],
        host: &[u8; 16],
        old_ports: [u8; 4],
        ports: [u8; 4],
    ) -> Self {
        Self {
            protocol: reply.protocol,
            ports,
            pseudo_header: Difference::new()
                .remove(reply.alias)
                .remove(reply.target)
                .add_ipv6(client)
                .add_ipv6(host),
            fields: Difference::new().remove(old_ports).add(ports),
            mss: MssPatch::NONE,
            seed: [0; 2],
        }
    }

    /// Gives the datagram a checksum first.
    #[inline(always)]
    #[must_use]
    pub const fn with_seed(mut self, seed: [u8; 2]) -> Self {
        self.seed = seed;
        self
    }

    /// Lowers the MSS option too.
    #[inline(always)]
    #[must_use]
    pub fn with_mss(mut self, patch: MssPatch) -> Self {
        if patch.is_some() {
            self.fields = patch.note(self.fields);
            self.mss = patch;
        }
        self
    }
}
