//! Protocol headers as windows over packet bytes: the shapes, and the few numbers that go with them.

mod extension;
mod icmp;
mod ip;
mod transport;

pub use extension::FragmentHeader;
pub use icmp::{ICMP_LENGTH, icmpv4, icmpv6};
pub use ip::{Ipv4Header, Ipv6Header};
pub use transport::{TcpHeader, UdpHeader, tcp_flags};

/// Length of an Ethernet header without tags.
pub const ETHERNET_LENGTH: usize = 14;
/// Length of an IPv6 header.
pub const IPV6_LENGTH: usize = 40;
/// Length of an IPv4 header without options.
pub const IPV4_LENGTH: usize = 20;
/// Length of a TCP header without options.
pub const TCP_LENGTH: usize = 20;
/// Length of a UDP header.
pub const UDP_LENGTH: usize = 8;
/// Length of an IPv6 Fragment header.
pub const FRAGMENT_LENGTH: usize = 8;
/// The smallest MTU of an IPv6 link (RFC 8200 §5).
pub const IPV6_MINIMUM_MTU: u32 = 1280;
/// By how much the smallest header grows from IPv4 to IPv6.
pub const HEADER_GROWTH: u32 = 20;

/// IANA protocol numbers.
pub mod protocol {
    use network_types::ip::IpProto;

    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
    /// ICMP for IPv4.
    pub const ICMP: u8 = IpProto::Icmp as u8;
    /// TCP.
    pub const TCP: u8 = IpProto::Tcp as u8;
    /// UDP.
    pub const UDP: u8 = IpProto::Udp as u8;
    /// IPv6 routing header.
    pub const ROUTING: u8 = IpProto::Ipv6Route as u8;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
    /// Authentication header.
    pub const AUTHENTICATION: u8 = IpProto::Ah as u8;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = IpProto::Ipv6Opts as u8;
}
