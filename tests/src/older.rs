//! A host whose datapath is of layout 1, as the version that had it leaves it: its own programs, from the
//! object that it carried, with their maps and links pinned.
//!
//! It is made of a newer one that is at work, whose sessions go on; no daemon may run meanwhile.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, Map, MapData};
use aya::programs::SchedClassifier;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::SchedClassifierLink;
use aya::{Ebpf, EbpfLoader, Pod};
use publisher_common::layout::older::{OldConfig, OldForward, OldReverse, OldTransient};
use publisher_common::layout::{
    Alias, Config, Forward, ForwardKey, LINKS, Link, LocalKey, PORT_WORDS, Publication,
    PublicationKey, ReplyKey, Reverse, SESSIONS, Transient, Uplink, names,
};

/// The object that the version with layout 1 carried, without what debuggers need.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../tests/fixtures/layout-1.o");

/// The maps of layout 1 that are pinned.
const PINNED: [&str; 14] = [
    names::CONFIG,
    names::PORTS,
    names::LOCALS,
    names::PUBLICATIONS,
    names::LINKS,
    names::UPLINKS,
    names::FORWARD,
    names::REVERSE,
    names::HALF_OPEN,
    names::CLOSING,
    names::ALIASES,
    names::FRAGMENTS_IN,
    names::FRAGMENTS_OUT,
    names::DROPS,
];

/// Puts layout 1 in the place of what is pinned below `pins`.
///
/// # Errors
/// When the kernel doesn't take the programs, or nothing is pinned.
pub fn put_in_place(pins: &Path) -> Result<()> {
    let (new, old) = (pins.join("v2"), pins.join("v1"));
    ensure!(new.join("maps").is_dir(), "no datapath below {}", pins.display());
    for directory in ["maps", "links"] {
        fs::create_dir_all(old.join(directory))?;
    }
    let mut loader = EbpfLoader::new();
    for name in PINNED {
        loader.map_pin_path(name, old.join("maps").join(name));
    }
    loader.map_max_entries(names::FORWARD, SESSIONS).map_max_entries(names::REVERSE, SESSIONS);
    let mut object = loader.load(OBJECT).context("the object of layout 1")?;
    for (_, program) in object.programs_mut() {
        let program: &mut SchedClassifier = program.try_into()?;
        program.load()?;
    }
    copy_settings(&new.join("maps"), &mut object)?;
    copy_sessions(&new.join("maps"), &mut object)?;
    for entry in fs::read_dir(new.join("links"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let (_, hook) = name.split_once('-').context("a link's name")?;
        ensure!(!hook.ends_with("-clsact"), "this needs tcx");
        if object.program(hook).is_none() {
            // That version didn't serve the loopback interface. The link goes with its pin.
            fs::remove_file(entry.path())?;
            continue;
        }
        let link: SchedClassifierLink =
            FdLink::from(PinnedLink::from_pin(entry.path())?).try_into()?;
        let program: &mut SchedClassifier =
            object.program_mut(hook).context("a program")?.try_into()?;
        let id = program.attach_to_link(link)?;
        drop(program.take_link(id)?);
        fs::rename(entry.path(), old.join("links").join(&name))?;
    }
    // Sessions that were opened while this went on stay behind.
    fs::remove_dir_all(new)?;
    Ok(())
}

fn pinned<M: TryFrom<Map, Error = aya::maps::MapError>>(maps: &Path, name: &str) -> Result<M> {
    let data = MapData::from_pin(maps.join(name)).with_context(|| format!("pin of {name}"))?;
    Ok(Map::from_map_data(data)?.try_into()?)
}

fn own<M: TryFrom<Map, Error = aya::maps::MapError>>(object: &mut Ebpf, name: &str) -> Result<M> {
    Ok(object.take_map(name).with_context(|| format!("map {name}"))?.try_into()?)
}

fn copy_settings(from: &Path, object: &mut Ebpf) -> Result<()> {
    let ports: Array<MapData, u64> = pinned(from, names::PORTS)?;
    let mut into: Array<MapData, u64> = own(object, names::PORTS)?;
    for index in 0..PORT_WORDS {
        into.set(index, ports.get(&index, 0)?, 0)?;
    }
    let links: Array<MapData, Link> = pinned(from, names::LINKS)?;
    let mut into: Array<MapData, Link> = own(object, names::LINKS)?;
    for index in 0..LINKS {
        into.set(index, links.get(&index, 0)?, 0)?;
    }
    let locals: LpmTrie<MapData, LocalKey, u32> = pinned(from, names::LOCALS)?;
    let mut into: LpmTrie<MapData, LocalKey, u32> = own(object, names::LOCALS)?;
    for entry in locals.iter() {
        let (key, value) = entry?;
        into.insert(&key, value, 0)?;
    }
    let same = |value: Publication| Publication { flags: 0, ..value };
    copy::<PublicationKey, _, Publication>(from, object, names::PUBLICATIONS, same)?;
    copy::<u32, Uplink, Uplink>(from, object, names::UPLINKS, |value| value)?;
    copy::<[u8; 4], Alias, Alias>(from, object, names::ALIASES, |value| value)?;
    let config: Array<MapData, Config> = pinned(from, names::CONFIG)?;
    let config = config.get(&0, 0)?;
    let mut into: Array<MapData, OldConfig> = own(object, names::CONFIG)?;
    let older = OldConfig {
        pool: config.pool,
        pool_mask: config.pool_mask,
        key: config.key,
        gateway_first: config.gateway_first,
        gateway_last: config.gateway_last,
        udp: config.timeouts.udp,
        tcp_established: config.timeouts.tcp_established,
        tcp_transitory: config.timeouts.tcp_transitory,
        ready: config.ready,
        slow_lane: config.slow_lane,
        reserved: [0; 32],
    };
    into.set(0, older, 0)?;
    Ok(())
}

fn copy_sessions(from: &Path, object: &mut Ebpf) -> Result<()> {
    copy::<ForwardKey, Forward, OldForward>(from, object, names::FORWARD, |entry| OldForward {
        entry,
        reserved_tail: [0; 16],
    })?;
    copy::<ReplyKey, Reverse, OldReverse>(from, object, names::REVERSE, |entry| OldReverse {
        entry,
        reserved_tail: [0; 24],
    })?;
    for name in [names::HALF_OPEN, names::CLOSING] {
        copy::<ReplyKey, Transient, OldTransient>(from, object, name, |entry| OldTransient {
            entry,
            reserved_tail: [0; 24],
        })?;
    }
    Ok(())
}

/// Copies a hash that a daemon or its programs have filled.
fn copy<K: Pod, V: Pod, W: Pod>(
    from: &Path,
    object: &mut Ebpf,
    name: &str,
    change: impl Fn(V) -> W,
) -> Result<()> {
    let from: HashMap<MapData, K, V> = pinned(from, name)?;
    let mut into: HashMap<MapData, K, W> = own(object, name)?;
    for entry in from.iter() {
        let (key, value) = entry?;
        into.insert(key, change(value), 0)?;
    }
    Ok(())
}
