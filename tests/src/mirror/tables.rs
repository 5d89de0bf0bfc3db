//! The tables of both sides: what they start with, and whether they hold the same.

use std::collections::HashMap as Native;
use std::fmt::Debug;
use std::hash::Hash;

use anyhow::{Context as _, Result, ensure};
use aya::Pod;
use publisher::datapath::Datapath;
use publisher_common::layout::{
    AccessKey, Handle, LOOPBACK, Link, LocalKey, Publication, PublicationKey, Rule, Use,
    config_flags, link_flags, publication_flags, source_mode, verdict,
};
use publisher_common::native::{MemoryTables, samples};

use super::{
    BRIDGED_MAC, BRIDGED_PORT, BRIDGED_TARGET, DENIED, GATEWAY_PORT, LINK_LOCAL_HOST, NARROW_PORT,
    SECOND_HOST, SESSIONS, SLOW_PORT, Table,
};

/// Whether a table of the kernel's holds what the native one does.
pub(super) fn same<K: Pod + Eq + Hash + Debug, V: Pod + PartialEq + Debug>(
    name: &str,
    kernel: &Table<K, V>,
    native: &Native<K, V>,
) -> Result<()> {
    let found: Native<K, V> = kernel.iter().collect::<Result<_, _>>()?;
    for (key, value) in &found {
        let expected = native.get(key);
        ensure!(expected == Some(value), "{name} {key:?}\nkernel {value:?}\ncore {expected:?}");
    }
    for key in native.keys() {
        ensure!(found.contains_key(key), "{name} {key:?} isn't in the kernel's");
    }
    Ok(())
}

/// Empties a table of the kernel's.
pub(super) fn clear<K: Pod, V: Pod>(table: &mut Table<K, V>) -> Result<()> {
    let keys: Vec<K> = table.keys().collect::<Result<_, _>>()?;
    for key in keys {
        table.remove(&key)?;
    }
    Ok(())
}

/// The sample's tables with this namespace's devices, and more that is published.
pub(super) fn tables([uplink, veth, bridge]: [u32; 3]) -> MemoryTables {
    let mut tables = samples::tables();
    tables.capacity = SESSIONS as usize;
    if let Some(config) = &mut tables.config {
        // So few aliases and ports that clients meet, and that they run out.
        config.pool_mask = [255, 255, 255, 248];
        config.gateway_last = config.gateway_first + 3;
    }
    let settings = tables.uplinks.remove(&samples::UPLINK);
    tables.uplinks.extend(settings.map(|settings| (uplink, settings)));
    let first = Link { veth, device: bridge, ..samples::link() };
    let second = Link {
        veth: 0,
        flags: link_flags::UP,
        target: BRIDGED_TARGET,
        mac: BRIDGED_MAC,
        mtu: 1_400,
        ..first
    };
    tables.links = vec![first, second];
    for (scope, address) in [(0, SECOND_HOST), (uplink, LINK_LOCAL_HOST)] {
        tables.locals.push((LocalKey::BITS, LocalKey { scope: scope.to_ne_bytes(), address }));
    }
    tables.interfaces = vec![(LINK_LOCAL_HOST, uplink)];
    for (key, value) in tables.publications.clone() {
        let gateway = Publication { source: source_mode::GATEWAY, ..value };
        tables.publish(PublicationKey { port: GATEWAY_PORT, ..key }, gateway);
        let bridged = Publication { link: 1, target: BRIDGED_TARGET, ..value };
        tables.publish(PublicationKey { port: BRIDGED_PORT, ..key }, bridged);
        let exact = Publication { target_port: 81u16.to_be_bytes(), ..value };
        tables.publish(PublicationKey { host: SECOND_HOST, ..key }, exact);
        let handle = |index| Handle { index, generation: 1 };
        let slow = Publication { handle: handle(5), rate: 2, source_rate: 1, ..value };
        tables.publish(PublicationKey { port: SLOW_PORT, ..key }, slow);
        let narrow = Publication {
            handle: handle(6),
            flags: publication_flags::ACCESS,
            max_sessions: 2,
            ..value
        };
        tables.publish(PublicationKey { port: NARROW_PORT, ..key }, narrow);
    }
    for index in [1, 2, 5, 6] {
        tables.uses.insert(index, Use::default());
    }
    let mut client = samples::CLIENT;
    client[14] = 1;
    client[15] = DENIED[0];
    let rule = |verdict| Rule { verdict, until: 0 };
    tables.rules = vec![
        (AccessKey::PUBLICATION_BITS, AccessKey::new(6, [0; 16]), rule(verdict::ALLOW)),
        (AccessKey::BITS, AccessKey::new(6, client), rule(verdict::DENY)),
    ];
    client[15] = DENIED[1];
    tables.rules.push((AccessKey::BITS, AccessKey::new(0, client), rule(verdict::DENY)));
    if let Some(config) = &mut tables.config {
        config.flags |= config_flags::BANS;
        config.sessions_per_source = 7;
        config.aliases_per_source = 3;
    }
    tables
}

/// Writes what the native side has to the kernel's maps.
pub(super) fn fill(datapath: &mut Datapath, native: &MemoryTables) -> Result<()> {
    let maps = datapath.tables();
    maps.set_uplinks(&native.uplinks.iter().map(|(key, value)| (*key, *value)).collect())?;
    let locals = native.locals.iter().map(|(bits, key)| (*bits, *key, 0));
    let interfaces = native.interfaces.iter().map(|(address, ifindex)| {
        let key = LocalKey { scope: LOOPBACK.to_ne_bytes(), address: *address };
        (LocalKey::BITS, key, *ifindex)
    });
    maps.set_locals(&locals.chain(interfaces).collect::<Vec<_>>())?;
    for (index, link) in native.links.iter().enumerate() {
        maps.set_link(index as u32, link)?;
    }
    let wanted = native.publications.iter().map(|(key, value)| (*key, *value)).collect();
    maps.set_publications(&wanted, &[])?;
    maps.set_config(native.config.as_ref().context("a configuration")?)?;
    Ok(())
}
