//! The maps as plain tables.

use crate::decide::Way;
use crate::layout::{
    AccessKey, Alias, Class, Config, Datagram, Forward, ForwardKey, FragmentKey, Link, LocalKey,
    PORT_WORDS, Publication, PublicationKey, RateKey, Record, ReplyKey, Reverse, Rule, Source,
    SourceKey, Transient, Uplink, Use, Window, port_bit,
};
use crate::tables::Tables;
use std::collections::{HashMap, HashSet, hash_map::Entry};
use std::hash::Hash;
use std::vec::Vec;

/// The maps as plain tables, with capacities that a test sets.
#[derive(Clone, Debug, Default)]
pub struct MemoryTables {
    /// See [`Tables::config`].
    pub config: Option<Config>,
    /// See [`Tables::port_word`].
    pub ports: Vec<u64>,
    /// The host's own addresses: prefix length in bits, and the prefix.
    pub locals: Vec<(u32, LocalKey)>,
    /// See [`Tables::interface_of`].
    pub interfaces: Vec<([u8; 16], u32)>,
    /// See [`Tables::publication`].
    pub publications: HashMap<PublicationKey, Publication>,
    /// See [`Tables::link`].
    pub links: Vec<Link>,
    /// See [`Tables::uplink`].
    pub uplinks: HashMap<u32, Uplink>,
    /// See [`Tables::alias`].
    pub aliases: HashMap<[u8; 4], Alias>,
    /// Access rules: prefix length in bits, and the prefix.
    pub rules: Vec<(u32, AccessKey, Rule)>,
    /// See [`Tables::usage`].
    pub uses: HashMap<u32, Use>,
    /// See [`Tables::source`].
    pub sources: HashMap<SourceKey, Source>,
    /// See [`Tables::rate`].
    pub rates: HashMap<RateKey, Window>,
    /// See [`Tables::displaced`].
    pub displaced: HashMap<u32, u32>,
    /// The session log.
    pub records: Vec<Record>,
    /// Flows of the host's own sockets, and whether they speak with that client alone.
    pub sockets: HashMap<ForwardKey, bool>,
    /// Protocols and ports of sockets of the host that are bound, and not connected.
    pub bound: HashSet<(u8, [u8; 2])>,
    /// See [`Tables::forward`].
    pub forward: HashMap<ForwardKey, Forward>,
    /// See [`Tables::reverse`].
    pub reverse: HashMap<ReplyKey, Reverse>,
    /// See [`Tables::transient`].
    pub half_open: HashMap<ReplyKey, Transient>,
    /// See [`Tables::transient`].
    pub closing: HashMap<ReplyKey, Transient>,
    /// See [`Tables::datagram`].
    pub fragments_in: HashMap<FragmentKey, Datagram>,
    /// See [`Tables::datagram`].
    pub fragments_out: HashMap<FragmentKey, Datagram>,
    /// Entries that `forward`, `reverse` and `aliases` each take; 0 is no limit.
    pub capacity: usize,
}

impl MemoryTables {
    /// Publishes a port, in the table and in the bitmap.
    pub fn publish(&mut self, key: PublicationKey, value: Publication) {
        self.ports.resize(PORT_WORDS as usize, 0);
        let (word, bit) = port_bit(key.protocol, key.port);
        self.ports[word as usize] |= bit;
        self.publications.insert(key, value);
    }

    fn datagrams(&mut self, way: Way) -> &mut HashMap<FragmentKey, Datagram> {
        match way {
            Way::In => &mut self.fragments_in,
            Way::Out => &mut self.fragments_out,
        }
    }

    fn transients(&mut self, class: Class) -> &mut HashMap<ReplyKey, Transient> {
        match class {
            Class::HalfOpen => &mut self.half_open,
            Class::Closing => &mut self.closing,
        }
    }
}

fn insert<K: Copy + Eq + Hash, V: Copy>(
    table: &mut HashMap<K, V>,
    capacity: usize,
    key: &K,
    value: &V,
) -> bool {
    let full = capacity != 0 && table.len() >= capacity;
    match table.entry(*key) {
        Entry::Vacant(entry) if !full => {
            entry.insert(*value);
            true
        }
        _ => false,
    }
}

/// Whether `key` starts with the first `bits` bits of `prefix`.
fn covers(bits: u32, prefix: &LocalKey, key: &LocalKey) -> bool {
    let number = |key: &LocalKey| u128::from_be_bytes(key.address);
    let bits = bits.saturating_sub(LocalKey::SCOPE_BITS);
    let mask = if bits == 0 { 0 } else { u128::MAX << (128 - bits) };
    prefix.scope == key.scope && number(prefix) & mask == number(key) & mask
}

impl Tables for MemoryTables {
    fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    fn port_word(&self, index: u32) -> u64 {
        self.ports.get(index as usize).copied().unwrap_or(0)
    }

    fn is_local(&self, address: &[u8; 16], scope: u32) -> bool {
        let key = LocalKey { scope: scope.to_ne_bytes(), address: *address };
        self.locals.iter().any(|(bits, prefix)| covers(*bits, prefix, &key))
    }

    fn interface_of(&self, address: &[u8; 16]) -> u32 {
        let found = self.interfaces.iter().find(|(own, _)| own == address);
        found.map_or(0, |(_, ifindex)| *ifindex)
    }

    fn publication(&self, key: &PublicationKey) -> Option<&Publication> {
        self.publications.get(key)
    }

    fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(index as usize)
    }

    fn uplink(&self, ifindex: u32) -> Option<&Uplink> {
        self.uplinks.get(&ifindex)
    }

    fn alias(&self, address: &[u8; 4]) -> Option<&Alias> {
        self.aliases.get(address)
    }

    fn access(&self, key: &AccessKey) -> Option<Rule> {
        let matches = |(bits, prefix, _): &&(u32, AccessKey, Rule)| {
            let bits = bits.saturating_sub(AccessKey::PUBLICATION_BITS);
            let number = |key: &AccessKey| u128::from_be_bytes(key.client);
            let mask = if bits == 0 { 0 } else { u128::MAX << (128 - bits) };
            prefix.publication == key.publication && (number(prefix) ^ number(key)) & mask == 0
        };
        self.rules.iter().filter(matches).max_by_key(|(bits, ..)| *bits).map(|found| found.2)
    }

    fn has_socket(&self, flow: &ForwardKey, connected: bool) -> bool {
        let bound = !connected && self.bound.contains(&(flow.protocol, flow.host_port));
        bound || self.sockets.get(flow).is_some_and(|is_connected| *is_connected || !connected)
    }

    fn forward_and_link(&mut self, key: &ForwardKey) -> Option<(&mut Forward, Option<&Link>)> {
        let entry = self.forward.get_mut(key)?;
        let link = self.links.get(entry.session.link.index as usize);
        Some((entry, link))
    }

    fn reverse_and_link(&mut self, key: &ReplyKey) -> Option<(&mut Reverse, Option<&Link>)> {
        let entry = self.reverse.get_mut(key)?;
        let link = self.links.get(entry.session.link.index as usize);
        Some((entry, link))
    }

    fn forward(&mut self, key: &ForwardKey) -> Option<&mut Forward> {
        self.forward.get_mut(key)
    }

    fn reverse(&mut self, key: &ReplyKey) -> Option<&mut Reverse> {
        self.reverse.get_mut(key)
    }

    fn transient(&mut self, class: Class, key: &ReplyKey) -> Option<&mut Transient> {
        self.transients(class).get_mut(key)
    }

    fn datagram(&mut self, way: Way, key: &FragmentKey) -> Option<&mut Datagram> {
        self.datagrams(way).get_mut(key)
    }

    fn usage(&mut self, publication: u32) -> Option<&mut Use> {
        self.uses.get_mut(&publication)
    }

    fn source(&mut self, key: &SourceKey) -> Option<&mut Source> {
        self.sources.get_mut(key)
    }

    fn rate(&mut self, key: &RateKey) -> Option<&mut Window> {
        self.rates.get_mut(key)
    }

    fn displaced(&mut self, slot: u32) -> Option<&mut u32> {
        Some(self.displaced.entry(slot).or_default())
    }

    fn insert_source(&mut self, key: &SourceKey, value: &Source) -> bool {
        insert(&mut self.sources, 0, key, value)
    }

    fn insert_rate(&mut self, key: &RateKey, value: &Window) {
        insert(&mut self.rates, 0, key, value);
    }

    fn add(number: &mut u64, what: u64) {
        *number = number.wrapping_add(what);
    }

    fn log(&mut self, record: &Record) {
        self.records.push(*record);
    }

    fn insert_forward(&mut self, key: &ForwardKey, value: &Forward) -> bool {
        insert(&mut self.forward, self.capacity, key, value)
    }

    fn insert_reverse(&mut self, key: &ReplyKey, value: &Reverse) -> bool {
        insert(&mut self.reverse, self.capacity, key, value)
    }

    fn insert_transient(&mut self, class: Class, key: &ReplyKey, value: &Transient) -> bool {
        insert(self.transients(class), 0, key, value)
    }

    fn insert_alias(&mut self, address: &[u8; 4], value: &Alias) -> bool {
        insert(&mut self.aliases, self.capacity, address, value)
    }

    fn remove_forward(&mut self, key: &ForwardKey) {
        self.forward.remove(key);
    }

    fn remove_reverse(&mut self, key: &ReplyKey) {
        self.reverse.remove(key);
    }

    fn remove_transient(&mut self, class: Class, key: &ReplyKey) {
        self.transients(class).remove(key);
    }

    fn insert_datagram(&mut self, way: Way, key: &FragmentKey, value: &Datagram) {
        insert(self.datagrams(way), 0, key, value);
    }

    fn remove_datagram(&mut self, way: Way, key: &FragmentKey) {
        self.datagrams(way).remove(key);
    }
}
