//! The translation rules, a row each. The numbers are what tests and comments call them by.

use super::Rule;

/// All rows, in the order in which the map shows them.
pub const RULES: &[Rule] = &[
    // IPv6 to IPv4 (RFC 7915 §5).
    Rule::tested("H1", "an IPv4 header of 20 bytes, with its own length and checksum"),
    Rule::tested("H2", "the traffic class becomes the type of service, all 8 bits"),
    Rule::tested("H3", "one hop less; where none is left, a drop and an ICMPv6 error 3/0"),
    Rule::tested("H4", "DF above 1260 bytes on the wire, an identification of its own below"),
    Rule::tested("H5", "options and used-up routing headers are taken out"),
    Rule::tested("H6", "a routing header with segments left is answered with ICMPv6 4/0"),
    Rule::tested("H7", "a Fragment header becomes IPv4's fields"),
    Rule::tested(
        "H8",
        "authentication, and extension headers behind a Fragment header, are refused",
    ),
    Rule::tested("H9", "what is too big for the container's link is answered with ICMPv6 2/0"),
    Rule::tested("H10", "protocols other than TCP and UDP are left to the host"),
    Rule::tested("H11", "ICMP of IPv4 inside IPv6 is never translated"),
    Rule::tested("H12", "sources that no client can have open no session"),
    Rule::tested("H13", "no jumbograms, and no length that wraps in 16 bits"),
    // IPv4 to IPv6 (RFC 7915 §4).
    Rule::tested("G1", "the type of service is kept, one hop less, the flow label is 0"),
    Rule::tested("G2", "options are ignored, unexpired source routes answered with ICMP 3/5"),
    Rule::tested("G3", "a packet with DF that is too big for the uplink is answered with ICMP 3/4"),
    Rule::tested("G4", "without DF, what is too big for the uplink is sent in fragments"),
    Rule::tested("G5", "no Fragment header on what isn't a fragment"),
    Rule::tested("G6", "fragments stay fragments, in pieces that every IPv6 link carries"),
    Rule::tested("G7", "a wrong IPv4 header checksum is a drop"),
    Rule::tested("G8", "protocol numbers of IPv6 headers are no IPv4 protocols"),
    Rule::tested("G9", "a wrong transport checksum stays equally wrong"),
    Rule::tested("G10", "a container's UDP without a checksum is given one, a client's is dropped"),
    Rule::tested("G11", "a fragmented datagram without a checksum is dropped"),
    Rule::tested("G12", "a UDP checksum that comes to 0 is sent as 0xffff"),
    // ICMP (RFC 7915 §4.2, §5.2).
    Rule::tested("I1", "echo is the host's own"),
    Rule::tested("I2", "destination unreachable for the container"),
    Rule::tested("I3", "packet too big becomes fragmentation needed"),
    Rule::tested("I4", "time exceeded and parameter problem for the container"),
    Rule::tested("I5", "the container's errors for the client"),
    Rule::tested("I6", "fragmentation needed becomes packet too big"),
    Rule::tested("I7", "everything else of ICMP is left alone, or ends here"),
    Rule::tested("I8", "the embedded packet is translated back, its hops are kept"),
    Rule::tested("I9", "8 bytes of the embedded transport header are enough"),
    Rule::tested("I10", "an error is at most 1280 bytes long in IPv6, 576 in IPv4"),
    Rule::tested("I11", "extensions of errors are passed on, with their length in the other unit"),
    Rule::tested("I12", "errors that are nobody's are dropped, or the host's"),
    Rule::tested("I13", "an error neither ends nor refreshes a session"),
    Rule::tested(
        "I14",
        "errors of our own are limited in rate, and never about errors or later fragments",
    ),
    // State (RFC 6146).
    Rule::tested("S14", "fragments in any order once the first has come, in bounded memory"),
    Rule::tested(
        "S15",
        "containers are clients too, where their network has IPv6 (the host isn't yet)",
    ),
    Rule::tested("S16", "spoofed sources open no session, and no target is the host itself"),
    Rule::tested("S19", "the MSS is clamped to what both sides carry"),
];
