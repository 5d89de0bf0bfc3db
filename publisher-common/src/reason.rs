//! Why a packet was dropped.

use zerocopy::FromZeros;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:tt, $text:literal;)+) => {
        /// Why a packet was dropped. Each has a counter of its own; nothing is dropped silently.
        ///
        /// The numbers are indices of the map of counters: they are never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, FromZeros)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl Reason {
            /// All reasons, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The reason's name, as `publisherctl drops` prints it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What the reason means, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)+).trim_ascii_start(),)+ }
            }
        }
    };
}

reasons! {
    /// The packet ends before its headers do, or is shorter than they say.
    Truncated = 0, "truncated";
    /// An IPv6 extension header that can't be taken out: authentication, or one where none may stand.
    ExtensionHeader = 1, "extension_header";
    /// A fragment that no datagram has: empty, of a length that isn't a multiple of 8, or too far out.
    Fragment = 2, "fragment";
    /// An IPv4 source route in a reply that isn't used up, or options that can't be read.
    Ipv4Options = 3, "ipv4_options";
    /// The hop limit or TTL would reach 0 (RFC 7915 §4.1, §5.1).
    HopLimit = 4, "hop_limit";
    /// A source address that nobody can have there: a multicast, unspecified or loopback address, one of
    /// the host's own, or an alias.
    Source = 5, "source";
    /// A UDP datagram without a checksum, which IPv6 doesn't allow (RFC 8200 §8.1).
    UdpZeroChecksum = 6, "udp_zero_checksum";
    /// TCP without SYN that belongs to no session and to no socket of the host.
    NoSession = 7, "no_session";
    /// A packet from a container to an alias that belongs to no session.
    ReplyNoSession = 8, "reply_no_session";
    /// A packet from a container to an alias that is neither TCP, UDP nor a known ICMP error.
    ReplyProtocol = 9, "reply_protocol";
    /// A reply that came in by another link than its session's container link.
    ForgedReply = 10, "forged_reply";
    /// The session's container link is gone, or the target address moved to another one.
    TargetGone = 11, "target_gone";
    /// The publication's target can't be reached: no route, no neighbour or no link.
    TargetDown = 12, "target_down";
    /// No alias and port is left for one more session to this target.
    Exhausted = 13, "exhausted";
    /// An ICMP error about a session, of a kind that the other family doesn't have (RFC 7915 §4.2, §5.2).
    IcmpError = 14, "icmp_error";
    /// An ICMP error about a session whose own headers are malformed.
    IcmpMalformed = 15, "icmp_malformed";
    /// A kernel helper refused to rewrite or redirect the packet.
    HelperFailed = 16, "helper_failed";
    /// A TCP header with flags that no client sends: SYN with FIN or RST.
    TcpFlags = 17, "tcp_flags";
    /// A fragment that overlaps another one of its datagram, or belongs to a datagram where two did.
    FragmentOverlap = 18, "fragment_overlap";
    /// A fragment that brings nothing new.
    FragmentAgain = 19, "fragment_again";
    /// A fragment apart from all others of its datagram, when there are too many gaps already.
    FragmentTooFar = 20, "fragment_too_far";
    /// A packet with a routing header that isn't used up (RFC 7915 §5.1).
    RoutingHeader = 21, "routing_header";
    /// A reply whose IPv4 header has a wrong checksum.
    Ipv4Checksum = 22, "ipv4_checksum";
    /// An ICMP error about a session whose own checksum is wrong.
    IcmpChecksum = 23, "icmp_checksum";
    /// An ICMP error about a fragment.
    IcmpFragment = 24, "icmp_fragment";
    /// A packet larger than the next link carries; its sender is told (RFC 7915 §4.1, RFC 8200 §5).
    TooBig = 25, "too_big";
    /// An ICMP error of the host's own that wasn't sent, after many others (RFC 4443 §2.4).
    AnswerSuppressed = 26, "answer_suppressed";
    /// A new session of a client that the access rules keep out.
    Denied = 27, "denied";
    /// A new session of a publication that has as many as it may have.
    SessionLimit = 28, "session_limit";
    /// A new session of a client whose /64 has as many as it may have.
    SourceLimit = 29, "source_limit";
    /// A new session of a publication that has opened as many in this second as it may.
    Rate = 30, "rate";
    /// A new session of a client whose /64 has opened as many in this second as it may.
    SourceRate = 31, "source_rate";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_indices_and_names_are_unique() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert!(reason.meaning().ends_with('.'), "{}", reason.name());
            assert!(!Reason::ALL[..index].iter().any(|other| other.name() == reason.name()));
        }
        assert!(Reason::ALL.len() <= crate::layout::DROP_COUNTERS as usize);
    }
}
