//! Uplinks, the host's addresses, and which interface gets which program.

use super::Facts;
use crate::datapath::{Attachment, Hook, LocalPrefix};
use crate::lane::{self, SlowLane};
use crate::topology::{self, Snapshot};
use publisher_common::layout::{self, LOOPBACK, LocalKey, link_flags, uplink_flags};
use std::collections::{BTreeMap, BTreeSet};

/// The uplinks, with the configured MTU, else the interface's own.
pub(super) fn uplinks(facts: &Facts<'_>) -> BTreeMap<u32, layout::Uplink> {
    let entry = |uplink: &topology::Uplink| {
        let flags = if uplink.ethernet { 0 } else { uplink_flags::RAW };
        let mtu = facts.mtu.ipv6.unwrap_or(uplink.mtu);
        let link = facts.snapshot.links.get(&uplink.ifindex);
        let mac = link.and_then(|link| link.mac).unwrap_or_default();
        (uplink.ifindex, layout::Uplink { mtu, flags, mac, reserved: [0; 2] })
    };
    facts.snapshot.uplinks.iter().map(entry).collect()
}

/// The host's addresses as the datapath's keys: the interface's index counts as the first 32 bits. What a
/// value says matters in [`interfaces`] only.
pub(super) fn locals(snapshot: &Snapshot) -> Vec<LocalPrefix> {
    let key = |prefix: &topology::LocalPrefix| {
        let bits = LocalKey::SCOPE_BITS + u32::from(prefix.prefix_len);
        let key = LocalKey { scope: prefix.scope.to_ne_bytes(), address: prefix.address.octets() };
        (bits, key, 0)
    };
    snapshot.locals.iter().map(key).chain(interfaces(snapshot)).collect()
}

/// Which uplink has a link-local address of the host, where one interface alone has it.
fn interfaces(snapshot: &Snapshot) -> impl Iterator<Item = LocalPrefix> {
    let link_local =
        |prefix: &&topology::LocalPrefix| prefix.scope != 0 && prefix.prefix_len == 128;
    snapshot.locals.iter().filter(link_local).filter_map(|own| {
        let mut others = snapshot.locals.iter().filter(|it| it.scope != own.scope);
        let is_alone = others.all(|it| it.address != own.address);
        let mut uplinks = snapshot.uplinks.iter();
        let served = uplinks.any(|uplink| uplink.ifindex == own.scope && uplink.ethernet);
        let key = LocalKey { scope: LOOPBACK.to_ne_bytes(), address: own.address.octets() };
        (is_alone && served).then_some((LocalKey::BITS, key, own.scope))
    })
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
    if facts.loopback {
        attachments.insert(Attachment { ifindex: LOOPBACK, hook: Hook::Loopback });
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
