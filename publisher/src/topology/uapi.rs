//! Numbers of the kernel's netlink interface (`include/uapi/linux/*.h`) that this module uses.
//! Only the attributes named here are read, so one that a newer kernel adds can't hide an
//! interface or a route from us.

/// linux/if_link.h
pub mod ifla {
    pub const ADDRESS: u16 = 1;
    pub const IFNAME: u16 = 3;
    pub const MTU: u16 = 4;
    pub const LINK: u16 = 5;
    pub const QDISC: u16 = 6;
    pub const MASTER: u16 = 10;
    pub const LINKINFO: u16 = 18;
    pub const INFO_KIND: u16 = 1;
    pub const INFO_DATA: u16 = 2;
    /// linux/veth.h
    pub const VETH_INFO_PEER: u16 = 1;
    pub const AF_SPEC: u16 = 26;
    pub const LINK_NETNSID: u16 = 37;
    pub const XDP: u16 = 43;
    pub const XDP_ATTACHED: u16 = 2;
    pub const XDP_ATTACHED_DRV: u8 = 1;
    pub const XDP_ATTACHED_HW: u8 = 3;
    pub const XDP_ATTACHED_MULTI: u8 = 4;
    pub const INET6_CONF: u16 = 2;
    pub const INET6_ADDR_GEN_MODE: u16 = 8;
    pub const ADDR_GEN_MODE_NONE: u8 = 1;
    /// Index of `disable_ipv6` among the 32-bit words of `INET6_CONF` (linux/ipv6.h).
    pub const DEVCONF_DISABLE_IPV6: usize = 26;
}

/// linux/ethtool.h, linux/sockios.h
pub mod ethtool {
    pub const SIOCETHTOOL: libc::Ioctl = 0x8946;
    pub const STXCSUM: u32 = 0x17;
    pub const STSO: u32 = 0x1f;
    pub const SGSO: u32 = 0x24;
}

/// linux/if_addr.h
pub mod ifa {
    pub const ADDRESS: u16 = 1;
    pub const LOCAL: u16 = 2;
    /// `IFA_F_NODAD`
    pub const NODAD: u8 = 0x02;
}

/// linux/rtnetlink.h, attributes of routes
pub mod rta {
    pub const DST: u16 = 1;
    pub const SRC: u16 = 2;
    pub const OIF: u16 = 4;
    pub const GATEWAY: u16 = 5;
    pub const PREFSRC: u16 = 7;
    pub const METRICS: u16 = 8;
    pub const MULTIPATH: u16 = 9;
    pub const TABLE: u16 = 15;
    pub const VIA: u16 = 18;
    pub const RTAX_MTU: u16 = 2;
}

/// linux/rtnetlink.h, route types
pub mod rtn {
    pub const UNICAST: u8 = 1;
    pub const LOCAL: u8 = 2;
    pub const BROADCAST: u8 = 3;
    pub const ANYCAST: u8 = 4;
    pub const MULTICAST: u8 = 5;
}

/// linux/neighbour.h
pub mod nda {
    pub const DST: u16 = 1;
    pub const LLADDR: u16 = 2;
    pub const MASTER: u16 = 9;
    /// `NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_NOARP | NUD_PERMANENT`
    pub const NUD_VALID: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;
    pub const NUD_PERMANENT: u16 = 0x80;
    pub const NTF_USE: u8 = 0x01;
}

/// linux/net_namespace.h
pub mod nsa {
    pub const NSID: u16 = 1;
    pub const FD: u16 = 3;
}

/// linux/pkt_sched.h
pub mod tc {
    /// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)`
    pub const CLSACT_EGRESS: u32 = 0xffff_fff3;
    pub const TCA_KIND: u16 = 1;
}

/// linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h
pub mod nft {
    const SUBSYS: u16 = 10 << 8;
    pub const MSG_GETCHAIN: u16 = SUBSYS | 4;
    pub const MSG_GETRULE: u16 = SUBSYS | 7;
    pub const MSG_GETSETELEM: u16 = SUBSYS | 13;
    pub const CHAIN_TABLE: u16 = 1;
    pub const CHAIN_NAME: u16 = 3;
    pub const CHAIN_HOOK: u16 = 4;
    pub const CHAIN_POLICY: u16 = 5;
    pub const HOOK_HOOKNUM: u16 = 1;
    pub const RULE_TABLE: u16 = 1;
    pub const RULE_CHAIN: u16 = 2;
    pub const RULE_EXPRESSIONS: u16 = 4;
    pub const EXPR_NAME: u16 = 1;
    pub const EXPR_DATA: u16 = 2;
    pub const IMMEDIATE_DATA: u16 = 2;
    pub const DATA_VERDICT: u16 = 2;
    pub const VERDICT_CODE: u16 = 1;
    pub const VERDICT_CHAIN: u16 = 2;
    pub const TARGET_NAME: u16 = 1;
    pub const LOOKUP_SET: u16 = 1;
    pub const LOOKUP_DREG: u16 = 3;
    pub const REG_VERDICT: u32 = 0;
    pub const SETELEM_LIST_TABLE: u16 = 1;
    pub const SETELEM_LIST_SET: u16 = 2;
    pub const SETELEM_LIST_ELEMENTS: u16 = 3;
    pub const SETELEM_DATA: u16 = 2;
    pub const NF_DROP: i32 = 0;
    pub const NFT_JUMP: i32 = -3;
    pub const NFT_GOTO: i32 = -4;
    pub const HOOK_LOCAL_IN: u32 = 1;
    pub const FAMILY_INET: u8 = 1;
    pub const FAMILY_IPV6: u8 = 10;
}
