//! Types and codes of ICMP errors, of both families.

/// Length of an ICMP header, in both families.
pub const ICMP_LENGTH: usize = 8;

/// ICMP for IPv4 (RFC 792).
pub mod icmpv4 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Source quench, deprecated (RFC 6633).
    pub const SOURCE_QUENCH: u8 = 4;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;

    /// Code of [`UNREACHABLE`]: the host is.
    pub const HOST: u8 = 1;
    /// Code of [`UNREACHABLE`]: the protocol is.
    pub const PROTOCOL: u8 = 2;
    /// Code of [`UNREACHABLE`]: the port is.
    pub const PORT: u8 = 3;
    /// Code of [`UNREACHABLE`]: fragmentation needed and "don't fragment" set.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Unreachable: a source route that can't be followed.
    pub const SOURCE_ROUTE_FAILED: u8 = 5;
    /// Code of [`UNREACHABLE`]: communication with the host is prohibited (RFC 1122 §3.2.2.1).
    pub const HOST_PROHIBITED: u8 = 10;
}

/// ICMP for IPv6 (RFC 4443).
pub mod icmpv6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;

    /// Code of [`UNREACHABLE`]: no route.
    pub const NO_ROUTE: u8 = 0;
    /// Code of [`UNREACHABLE`]: administratively prohibited.
    pub const PROHIBITED: u8 = 1;
    /// Code of [`UNREACHABLE`]: beyond the scope of the source address.
    pub const BEYOND_SCOPE: u8 = 2;
    /// Code of [`UNREACHABLE`]: the address is.
    pub const ADDRESS: u8 = 3;
    /// Code of [`UNREACHABLE`]: the port is.
    pub const PORT: u8 = 4;
    /// Code of [`PARAMETER_PROBLEM`]: a field is wrong.
    pub const ERRONEOUS_FIELD: u8 = 0;
    /// Code of [`PARAMETER_PROBLEM`]: the next header isn't known.
    pub const UNKNOWN_NEXT_HEADER: u8 = 1;
}
