//! The maps, typed. What the daemon writes is changed by difference, so that packets never meet a
//! state in between.

use super::error::{DatapathError, chain};
use super::expiry::Seen;
use super::hash::Hash;
use super::log::SessionLog;
use super::sessions::{Maps, Sessions, unreadable};
use aya::Ebpf;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, lpm_trie::Key};
use publisher_common::layout::{
    self, AccessKey, Config, Link, LocalKey, PORT_WORDS, Publication, PublicationKey, Rule, Uplink,
    names, port_bit,
};
use publisher_common::reason::Reason;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::sync::Arc;

/// A prefix of the host's own addresses: bits of the key, the key, and its value (see [`LocalKey::scope`]).
pub type LocalPrefix = (u32, LocalKey, u32);

/// How full a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableUse {
    /// What it holds.
    pub name: &'static str,
    /// Entries in it.
    pub used: u64,
    /// Entries that it takes.
    pub capacity: u64,
    /// Bytes that it takes in the kernel; 0 where that isn't known.
    pub memory: u64,
}

/// The maps.
pub struct Tables {
    config: Array<MapData, Config>,
    pub(super) ports: Array<MapData, u64>,
    pub(super) locals: LpmTrie<MapData, LocalKey, u32>,
    pub(super) publications: HashMap<MapData, PublicationKey, Publication>,
    pub(super) links: Array<MapData, Link>,
    pub(super) uplinks: HashMap<MapData, u32, Uplink>,
    pub(super) drops: PerCpuArray<MapData, u64>,
    pub(super) access: LpmTrie<MapData, AccessKey, Rule>,
    sessions: Sessions,
    log: Option<SessionLog>,
    capacities: BTreeMap<&'static str, u64>,
}

/// An error about the map `name`.
pub(super) fn failed(name: &'static str) -> impl FnOnce(MapError) -> DatapathError {
    move |error| DatapathError::Map { name, reason: chain(&error) }
}

impl Tables {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, DatapathError> {
        let mut capacities = BTreeMap::new();
        let mut take = |name: &'static str| -> Result<Map, DatapathError> {
            let map = object
                .take_map(name)
                .ok_or_else(|| DatapathError::Missing(format!("map {name}")))?;
            let (Map::Array(data)
            | Map::HashMap(data)
            | Map::LruHashMap(data)
            | Map::LpmTrie(data)
            | Map::PerCpuArray(data)
            | Map::RingBuf(data)) = &map
            else {
                return Err(DatapathError::Missing(format!("map {name} of a known type")));
            };
            let capacity = data.info().map_err(failed(name))?.max_entries();
            capacities.insert(name, u64::from(capacity));
            Ok(map)
        };
        macro_rules! typed {
            ($name:expr) => {
                take($name)?.try_into().map_err(failed($name))?
            };
        }
        Ok(Self {
            config: typed!(names::CONFIG),
            ports: typed!(names::PORTS),
            locals: typed!(names::LOCALS),
            publications: typed!(names::PUBLICATIONS),
            links: typed!(names::LINKS),
            uplinks: typed!(names::UPLINKS),
            drops: typed!(names::DROPS),
            access: typed!(names::ACCESS),
            sessions: Sessions(Arc::new(Maps {
                forward: hash(names::FORWARD, &mut take)?,
                reverse: hash(names::REVERSE, &mut take)?,
                half_open: hash(names::HALF_OPEN, &mut take)?,
                closing: hash(names::CLOSING, &mut take)?,
                aliases: hash(names::ALIASES, &mut take)?,
                uses: hash(names::USES, &mut take)?,
                sources: hash(names::SOURCES, &mut take)?,
                displaced: hash(names::DISPLACED, &mut take)?,
            })),
            log: Some(SessionLog::new(typed!(names::EVENTS), typed!(names::EVENTS_LOST))),
            capacities,
        })
    }

    /// The configuration that packets are translated by; all 0 before the first one.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn config(&self) -> Result<Config, DatapathError> {
        self.config.get(&0, 0).map_err(failed(names::CONFIG))
    }

    /// Sets the configuration.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn set_config(&mut self, config: &Config) -> Result<(), DatapathError> {
        self.config.set(0, config, 0).map_err(failed(names::CONFIG))
    }

    /// A link, as it was last set; all 0 before that.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn link(&self, index: u32) -> Result<Link, DatapathError> {
        self.links.get(&index, 0).map_err(failed(names::LINKS))
    }

    /// Sets a link.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn set_link(&mut self, index: u32, link: &Link) -> Result<(), DatapathError> {
        self.links.set(index, link, 0).map_err(failed(names::LINKS))
    }

    /// All links that have ever been set, by index.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn links(&self) -> Result<BTreeMap<u32, Link>, DatapathError> {
        let mut links = BTreeMap::new();
        for index in 0..layout::LINKS {
            let link = self.link(index)?;
            if link.target != [0; 4] {
                links.insert(index, link);
            }
        }
        Ok(links)
    }

    /// Sets the uplinks: those that are missing go.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn set_uplinks(&mut self, wanted: &BTreeMap<u32, Uplink>) -> Result<(), DatapathError> {
        replace(&mut self.uplinks, wanted).map_err(failed(names::UPLINKS))
    }

    /// Sets the host's own addresses: those that are missing go.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn set_locals(&mut self, wanted: &[LocalPrefix]) -> Result<(), DatapathError> {
        let present: BTreeMap<_, _> = self
            .locals
            .iter()
            .map(|entry| entry.map(|(key, value)| ((key.prefix_len(), key.data()), value)))
            .collect::<Result<_, _>>()
            .map_err(failed(names::LOCALS))?;
        for (bits, key, value) in wanted {
            if present.get(&(*bits, *key)) != Some(value) {
                let key = Key::new(*bits, *key);
                self.locals.insert(&key, value, 0).map_err(failed(names::LOCALS))?;
            }
        }
        let wanted: BTreeSet<_> = wanted.iter().map(|(bits, key, _)| (*bits, *key)).collect();
        for (bits, key) in present.into_keys().filter(|key| !wanted.contains(key)) {
            self.locals.remove(&Key::new(bits, key)).map_err(failed(names::LOCALS))?;
        }
        Ok(())
    }

    /// Sets what is published: what is missing goes, and opens no more sessions. A port that
    /// sessions still use stays in the bitmap for as long as they live.
    ///
    /// # Errors
    /// When a map can't be written.
    pub fn set_publications(
        &mut self,
        wanted: &BTreeMap<PublicationKey, Publication>,
        draining: &[(u8, [u8; 2])],
    ) -> Result<(), DatapathError> {
        replace(&mut self.publications, wanted).map_err(failed(names::PUBLICATIONS))?;
        let mut words = vec![0u64; PORT_WORDS as usize];
        let ports = wanted.keys().map(|key| (key.protocol, key.port));
        for (protocol, port) in ports.chain(draining.iter().copied()) {
            let (word, bit) = port_bit(protocol, port);
            words[word as usize] |= bit;
        }
        for (index, word) in words.into_iter().enumerate() {
            let index = index as u32;
            if self.ports.get(&index, 0).map_err(failed(names::PORTS))? != word {
                self.ports.set(index, word, 0).map_err(failed(names::PORTS))?;
            }
        }
        Ok(())
    }

    /// Dropped packets by reason, over all CPUs.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn drops(&self) -> Result<Vec<(Reason, u64)>, DatapathError> {
        Reason::ALL
            .iter()
            .map(|reason| {
                let counters =
                    self.drops.get(&(*reason as u32), 0).map_err(failed(names::DROPS))?;
                Ok((*reason, counters.iter().sum()))
            })
            .collect()
    }

    /// The maps of sessions, for any thread.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.sessions.clone()
    }

    /// The session log; the first caller has it.
    pub fn take_log(&mut self) -> Option<SessionLog> {
        self.log.take()
    }

    /// How full the tables are: those of half-open and closing sessions as last counted, in `seen`.
    #[must_use]
    pub fn usage(&self, seen: &Seen) -> Vec<TableUse> {
        let maps = &self.sessions.0;
        let table = |name, map, used: u64, memory: u64| TableUse {
            name,
            used,
            capacity: self.capacities.get(map).copied().unwrap_or(0),
            memory,
        };
        let uses = self.sessions.uses().map_or(0, |uses| uses.values().sum());
        let mut aliases = 0;
        // What was counted before an error is better than nothing.
        let _ = maps.aliases.for_each(|_, _| aliases += 1);
        let established = maps.forward.memory() + maps.reverse.memory();
        vec![
            table("established", names::FORWARD, uses, established),
            table("half-open", names::HALF_OPEN, seen.half_open, maps.half_open.memory()),
            table("closing", names::CLOSING, seen.closing, maps.closing.memory()),
            table("aliases", names::ALIASES, aliases, maps.aliases.memory()),
            table("publications", names::PUBLICATIONS, self.publications.keys().count() as u64, 0),
            table("host addresses", names::LOCALS, self.locals.keys().count() as u64, 0),
        ]
    }
}

/// A handle on one of the maps of sessions.
fn hash<K: aya::Pod, V: aya::Pod>(
    name: &'static str,
    take: &mut impl FnMut(&'static str) -> Result<Map, DatapathError>,
) -> Result<Hash<K, V>, DatapathError> {
    let map = take(name)?;
    let (Map::HashMap(data) | Map::LruHashMap(data) | Map::Array(data)) = &map else {
        return Err(DatapathError::Missing(format!("hash map {name}")));
    };
    let info = data.info().map_err(failed(name))?;
    if (info.key_size() as usize, info.value_size() as usize) != (size_of::<K>(), size_of::<V>()) {
        return Err(DatapathError::Missing(format!("map {name} of this layout")));
    }
    // SAFETY: both sizes have just been compared.
    unsafe { Hash::of(data.fd().as_fd()) }.map_err(unreadable(name))
}

/// Makes a hash hold what is wanted: what is new or differs is written first, then the rest goes.
fn replace<K, V>(map: &mut HashMap<MapData, K, V>, wanted: &BTreeMap<K, V>) -> Result<(), MapError>
where
    K: aya::Pod + Ord,
    V: aya::Pod + PartialEq,
{
    let present: Vec<K> = map.keys().collect::<Result<_, _>>()?;
    for (key, value) in wanted {
        if map.get(key, 0).ok().as_ref() != Some(value) {
            map.insert(key, value, 0)?;
        }
    }
    for key in present.iter().filter(|key| !wanted.contains_key(key)) {
        map.remove(key)?;
    }
    Ok(())
}
