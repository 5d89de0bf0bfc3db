//! Whether the host's firewall may refuse IPv6 traffic to the host's own sockets.
//!
//! The kernel path bypasses netfilter, so the owner's rules for INPUT have to be known. The check
//! is coarse on purpose: any chain reached from INPUT that drops or rejects anything counts.

mod legacy;
mod nftables;
mod watch;

pub use watch::FirewallWatcher;

use super::{
    netlink::Client,
    types::{FirewallBackend, FirewallFinding},
};

/// Everything at INPUT that can drop, sorted. `netfilter` is the socket, or why there is none.
pub fn findings(netfilter: Option<&Client>) -> Vec<FirewallFinding> {
    let nftables = match netfilter {
        Some(netfilter) => nftables::findings(netfilter).unwrap_or_else(|error| {
            vec![unknown(format!("the rules of nftables can't be read: {error}"))]
        }),
        // A kernel without netfilter's netlink interface has no nftables.
        None => Vec::new(),
    };
    let mut findings = nftables;
    findings.extend(legacy::findings());
    findings.sort();
    findings
}

fn unknown(why: String) -> FirewallFinding {
    let backend = FirewallBackend::Unknown;
    FirewallFinding { backend, table: String::new(), chain: String::new(), why }
}
