//! Uplinks, the host's addresses, and which interface gets which program.

use super::Facts;
use crate::datapath::{Attachment, Hook, LocalPrefix};
use crate::lane::{self, SlowLane};
use crate::topology::Snapshot;
use publisher_common::layout::{self, LocalKey, link_flags, uplink_flags};
use std::collections::{BTreeMap, BTreeSet};

/// The uplinks, with the configured MTU, else the interface's own.
pub(super) fn uplinks(facts: &Facts<'_>) -> BTreeMap<u32, layout::Uplink> {
    let entry = |uplink: &crate::topology::Uplink| {
        let flags = if uplink.ethernet { 0 } else { uplink_flags::RAW };
        let mtu = facts.mtu.ipv6.unwrap_or(uplink.mtu);
        (uplink.ifindex, layout::Uplink { mtu, flags, reserved: [0; 8] })
    };
    facts.snapshot.uplinks.iter().map(entry).collect()
}

/// The host's addresses as the datapath's keys: the interface's index counts as the first 32 bits.
pub(super) fn locals(snapshot: &Snapshot) -> Vec<LocalPrefix> {
    let key = |prefix: &crate::topology::LocalPrefix| {
        let bits = LocalKey::SCOPE_BITS + u32::from(prefix.prefix_len);
        let key = LocalKey { scope: prefix.scope.to_ne_bytes(), address: prefix.address.octets() };
        (bits, key)
    };
    snapshot.locals.iter().map(key).collect()
}

/// The slow lane, while something is published or draining.
pub(super) fn slow_lane(facts: &Facts<'_>) -> Option<SlowLane> {
    let idle = facts.publications.is_empty() && facts.draining.is_empty();
    if idle { None } else { lane::find(&facts.snapshot.links) }
}

/// Uplinks get theirs only while something is published or draining. A target's veth and what its
/// route names both get one: replies may come by either while the veth isn't known.
pub(super) fn attachments(
    facts: &Facts<'_>,
    links: &BTreeMap<u32, layout::Link>,
) -> BTreeSet<Attachment> {
    let mut attachments = BTreeSet::new();
    if facts.publications.is_empty() && facts.draining.is_empty() {
        return attachments;
    }
    for uplink in &facts.snapshot.uplinks {
        let hook = if uplink.ethernet { Hook::UplinkEthernet } else { Hook::UplinkRaw };
        attachments.insert(Attachment { ifindex: uplink.ifindex, hook });
    }
    for link in links.values().filter(|link| link.flags & link_flags::UP != 0) {
        if link.veth != 0 {
            attachments.insert(Attachment { ifindex: link.veth, hook: Hook::Veth });
        }
        if link.device != link.veth {
            attachments.insert(Attachment { ifindex: link.device, hook: Hook::Bridge });
        }
    }
    if let Some(lane) = slow_lane(facts) {
        attachments.insert(Attachment { ifindex: lane.end, hook: Hook::SlowLane });
    }
    // The interface of a link that is up may be gone already.
    attachments.retain(|at| facts.snapshot.links.contains_key(&at.ifindex));
    attachments
}
