//! Taking over the datapath of the layout before this one, while packets go on.
//!
//! 1. What the older daemon has set is copied, so that the new programs know what is published.
//! 2. The programs are replaced, the containers' first: a reply finds its session in the older tables on a
//!    miss, and the uplinks' older programs go on with those.
//! 3. What the older tables hold beyond that is copied, and they go.
//!
//! Each step may be done again: a daemon that is killed in between leaves the rest to the next.

use super::error::{DatapathError, chain};
use super::hash::Write;
use super::object::MapShape;
use super::pins::{self, Pins};
use super::sessions::{Maps, unreadable};
use super::tables::{Tables, failed};
use aya::Pod;
use aya::maps::{
    Array, HashMap, LpmTrie, Map, MapData, MapError, MapType, PerCpuArray, PerCpuValues,
};
use publisher_common::layout::older::{self, OldConfig, OldForward, OldReverse, OldTransient};
use publisher_common::layout::{
    Alias, DISPLACED_SLOTS, ForwardKey, Link, LocalKey, PORT_WORDS, Publication, PublicationKey,
    ReplyKey, SourceKey, Uplink, config_flags, names, session_flags,
};
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::mem::size_of;
use std::path::PathBuf;
use tracing::info;

/// The pins of the older layout.
pub(super) struct Older {
    directory: PathBuf,
}

impl Older {
    /// What an older daemon has left, if it is all there.
    ///
    /// # Errors
    /// When one of its maps doesn't have the layout that it should have.
    pub fn find(pins: &Pins) -> Result<Option<Self>, DatapathError> {
        let found = Self { directory: pins.version(older::VERSION) };
        if !found.map(names::CONFIG).exists() {
            // Nothing, or what a daemon was removing when it was killed.
            pins.remove_version(older::VERSION)?;
            return Ok(None);
        }
        for (name, _) in found.tables() {
            found.capacity(name)?;
        }
        let config = size_of::<OldConfig>();
        for (name, kind, value) in [
            (names::CONFIG, MapType::Array, config),
            (names::LINKS, MapType::Array, size_of::<Link>()),
            (names::PUBLICATIONS, MapType::Hash, size_of::<Publication>()),
            (names::ALIASES, MapType::Hash, size_of::<Alias>()),
            (names::UPLINKS, MapType::Hash, size_of::<Uplink>()),
        ] {
            let shape = MapShape::of_value(kind, value);
            Pins::check_value(&found.map(name), &shape)?;
        }
        Ok(Some(found))
    }

    fn map(&self, name: &str) -> PathBuf {
        self.directory.join("maps").join(name)
    }

    /// The older tables that the programs read: their names in the object, and their pins.
    pub fn tables(&self) -> [(&'static str, PathBuf); 4] {
        [
            (older::names::FORWARD, self.map(names::FORWARD)),
            (older::names::REVERSE, self.map(names::REVERSE)),
            (older::names::HALF_OPEN, self.map(names::HALF_OPEN)),
            (older::names::CLOSING, self.map(names::CLOSING)),
        ]
    }

    /// How many entries one of these takes.
    pub fn capacity(&self, name: &str) -> Result<u32, DatapathError> {
        let (kind, key, value, pin) = match name {
            older::names::FORWARD => {
                let sizes = (size_of::<ForwardKey>(), size_of::<OldForward>());
                (MapType::Hash, sizes.0, sizes.1, names::FORWARD)
            }
            older::names::REVERSE => {
                let sizes = (size_of::<ReplyKey>(), size_of::<OldReverse>());
                (MapType::Hash, sizes.0, sizes.1, names::REVERSE)
            }
            older::names::HALF_OPEN => {
                let sizes = (size_of::<ReplyKey>(), size_of::<OldTransient>());
                (MapType::LruHash, sizes.0, sizes.1, names::HALF_OPEN)
            }
            _ => {
                let sizes = (size_of::<ReplyKey>(), size_of::<OldTransient>());
                (MapType::LruHash, sizes.0, sizes.1, names::CLOSING)
            }
        };
        let shape = MapShape {
            kind,
            key_size: key as u32,
            value_size: value as u32,
            flags: 0,
            capacity: 0,
        };
        Pins::check(&self.map(pin), &shape)
    }

    /// Step 1: what the older daemon has set, for the programs that come.
    pub fn prepare(&self, tables: &mut Tables) -> Result<(), DatapathError> {
        if tables.config()?.ready == 0 {
            self.copy_settings(tables)?;
        }
        let mut config = tables.config()?;
        config.flags |= config_flags::ADOPTING;
        tables.set_config(&config)?;
        Self::displace_all(tables)?;
        self.copy_others(tables).map(drop)
    }

    fn copy_settings(&self, tables: &mut Tables) -> Result<(), DatapathError> {
        let config: Array<MapData, OldConfig> = self.open(names::CONFIG)?;
        let ports: Array<MapData, u64> = self.open(names::PORTS)?;
        for index in 0..PORT_WORDS {
            let word = ports.get(&index, 0).map_err(failed(names::PORTS))?;
            tables.ports.set(index, word, 0).map_err(failed(names::PORTS))?;
        }
        let links: Array<MapData, Link> = self.open(names::LINKS)?;
        for index in 0..links.len().min(tables.links.len()) {
            let link = links.get(&index, 0).map_err(failed(names::LINKS))?;
            tables.links.set(index, link, 0).map_err(failed(names::LINKS))?;
        }
        let locals: LpmTrie<MapData, LocalKey, u32> = self.open(names::LOCALS)?;
        for entry in locals.iter() {
            let (key, value) = entry.map_err(failed(names::LOCALS))?;
            tables.locals.insert(&key, value, 0).map_err(failed(names::LOCALS))?;
        }
        let publications: HashMap<MapData, PublicationKey, Publication> =
            self.open(names::PUBLICATIONS)?;
        copy(&publications, &mut tables.publications).map_err(failed(names::PUBLICATIONS))?;
        let uplinks: HashMap<MapData, u32, Uplink> = self.open(names::UPLINKS)?;
        copy(&uplinks, &mut tables.uplinks).map_err(failed(names::UPLINKS))?;
        let aliases: HashMap<MapData, [u8; 4], Alias> = self.open(names::ALIASES)?;
        let maps = tables.sessions().0;
        for alias in aliases.iter() {
            let (address, alias) = alias.map_err(failed(names::ALIASES))?;
            maps.aliases
                .insert(&address, &alias, Write::Any)
                .map_err(unreadable(names::ALIASES))?;
        }
        let drops: PerCpuArray<MapData, u64> = self.open(names::DROPS)?;
        for index in 0..drops.len() {
            let counters: PerCpuValues<u64> = drops.get(&index, 0).map_err(failed(names::DROPS))?;
            tables.drops.set(index, counters, 0).map_err(failed(names::DROPS))?;
        }
        let config = config.get(&0, 0).map_err(failed(names::CONFIG))?;
        tables.set_config(&config.renewed())
    }

    /// Step 2: the attachments become this layout's, to be given the new programs.
    pub fn hand_over_links(&self, pins: &Pins) -> Result<(), DatapathError> {
        for entry in pins::entries(&self.directory.join("links"))? {
            let to = pins.links().join(entry.file_name());
            fs::rename(entry.path(), &to).map_err(DatapathError::io(&to))?;
        }
        Ok(())
    }

    /// Step 3: the rest of the sessions. The older tables are read no more, and go.
    pub fn finish(self, pins: &Pins, tables: &mut Tables) -> Result<(), DatapathError> {
        let others = self.copy_others(tables)?;
        let established = self.copy_established(tables)?;
        let mut config = tables.config()?;
        config.flags &= !config_flags::ADOPTING;
        tables.set_config(&config)?;
        pins.remove_version(older::VERSION)?;
        info!(
            "took {established} established sessions and {others} others over from layout {}",
            older::VERSION
        );
        Ok(())
    }

    fn copy_established(&self, tables: &Tables) -> Result<u64, DatapathError> {
        let forward: HashMap<MapData, ForwardKey, OldForward> = self.open(names::FORWARD)?;
        let reverse: HashMap<MapData, ReplyKey, OldReverse> = self.open(names::REVERSE)?;
        let sessions = tables.sessions();
        let maps = &sessions.0;
        let mut copied = 0;
        for flow in forward.keys() {
            let flow = flow.map_err(failed(names::FORWARD))?;
            let Ok(old) = forward.get(&flow, 0) else { continue };
            let reply = old.entry.reply;
            let publication = old.entry.session.publication.index;
            let source = SourceKey::of(&flow);
            // Half a session is none.
            let Ok(other) = reverse.get(&reply, 0) else { continue };
            if maps.reverse.get(&reply).is_some() {
                sessions.count_adopted(publication, &source);
                copied += 1;
                continue;
            }
            // It has ended since.
            if knows_transient(maps, &reply) {
                continue;
            }
            let (mut here, mut there) = (old.entry, other.entry);
            here.session.flags |= session_flags::DISPLACED;
            there.session.flags |= session_flags::DISPLACED;
            if maps.reverse.insert(&reply, &there, Write::New).is_ok() {
                if maps.forward.insert(&flow, &here, Write::New).is_err() {
                    maps.reverse.remove(&reply);
                } else {
                    sessions.count_adopted(publication, &source);
                    copied += 1;
                }
            }
        }
        Ok(copied)
    }

    /// Has the datapath look for every flow at each of its tuples: the older layout doesn't say where it is.
    fn displace_all(tables: &Tables) -> Result<(), DatapathError> {
        let maps = tables.sessions().0;
        let now = clock_gettime(ClockId::Monotonic).tv_sec as u32;
        for slot in 0..DISPLACED_SLOTS {
            maps.displaced.insert(&slot, &now, Write::Any).map_err(unreadable(names::DISPLACED))?;
        }
        Ok(())
    }

    /// Sessions that aren't established. Again after the programs have been replaced.
    fn copy_others(&self, tables: &Tables) -> Result<u64, DatapathError> {
        let maps = tables.sessions().0;
        let mut copied = 0;
        for name in [names::HALF_OPEN, names::CLOSING] {
            let old: HashMap<MapData, ReplyKey, OldTransient> = self.open(name)?;
            for reply in old.keys() {
                let reply = reply.map_err(failed(name))?;
                let Ok(value) = old.get(&reply, 0) else { continue };
                if maps.reverse.get(&reply).is_some() || knows_transient(&maps, &reply) {
                    continue;
                }
                let into = if name == names::HALF_OPEN { &maps.half_open } else { &maps.closing };
                copied += u64::from(into.insert(&reply, &value.entry, Write::New).is_ok());
            }
        }
        Ok(copied)
    }

    fn open<M: TryFrom<Map, Error = MapError>>(
        &self,
        name: &'static str,
    ) -> Result<M, DatapathError> {
        let fail =
            |error: &dyn std::error::Error| DatapathError::Map { name, reason: chain(error) };
        let data = MapData::from_pin(self.map(name)).map_err(|error| fail(&error))?;
        let map = Map::from_map_data(data).map_err(|error| fail(&error))?;
        map.try_into().map_err(|error: MapError| fail(&error))
    }
}

/// Whether a session that isn't established has this container's side.
fn knows_transient(maps: &Maps, reply: &ReplyKey) -> bool {
    maps.half_open.get(reply).is_some() || maps.closing.get(reply).is_some()
}

fn copy<K: Pod, V: Pod>(
    from: &HashMap<MapData, K, V>,
    to: &mut HashMap<MapData, K, V>,
) -> Result<(), MapError> {
    for entry in from.iter() {
        let (key, value) = entry?;
        to.insert(key, value, 0)?;
    }
    Ok(())
}
