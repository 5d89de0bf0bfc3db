//! The BPF object: what it holds, and how it is loaded.

use super::error::{DatapathError, chain};
use super::pins::Pins;
use super::takeover::Older;
use aya::maps::MapType;
use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfLoader};
use publisher_common::layout::{self, names};
use std::io;
use std::mem::size_of;

/// The compiled object, aligned as its parser needs it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/publisher-ebpf"));

/// The programs of the object that handle packets.
pub(super) const PROGRAMS: [&str; 6] = [
    "uplink_ethernet",
    "uplink_raw",
    "loopback",
    "container_veth",
    "container_bridge",
    "slow_lane",
];
/// Lines of the verifier's log that an error shows.
const LOG_LINES: usize = 15;

/// Entries that the large tables take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// Established sessions, and aliases.
    pub sessions: u32,
    /// Half-open sessions.
    pub half_open: u32,
    /// Closing sessions.
    pub closing: u32,
}

impl Default for Capacities {
    fn default() -> Self {
        Self { sessions: layout::SESSIONS, half_open: layout::HALF_OPEN, closing: layout::CLOSING }
    }
}

/// What a map looks like in this version of the layout.
pub(super) struct MapShape {
    pub kind: MapType,
    pub key_size: u32,
    pub value_size: u32,
    pub flags: u32,
    pub capacity: u32,
}

impl MapShape {
    /// A map of which the values matter.
    pub const fn of_value(kind: MapType, size: usize) -> Self {
        Self { kind, key_size: 0, value_size: size as u32, flags: 0, capacity: 0 }
    }

    pub fn of(name: &str, capacities: &Capacities) -> Self {
        use layout::{
            AccessKey, Alias, Config, Datagram, Forward, ForwardKey, FragmentKey, Link, LocalKey,
            Publication, PublicationKey, RateKey, ReplyKey, Reverse, Rule, Source, SourceKey,
            Transient, Uplink, Use, Window,
        };
        const NO_PREALLOC: u32 = 1;
        let shape = |kind, key: usize, value: usize, flags, capacity| Self {
            kind,
            key_size: key as u32,
            value_size: value as u32,
            flags,
            capacity,
        };
        let index = size_of::<u32>();
        let reply = size_of::<ReplyKey>();
        let transient = size_of::<Transient>();
        match name {
            names::CONFIG => shape(MapType::Array, index, size_of::<Config>(), 0, 1),
            names::PORTS => shape(MapType::Array, index, size_of::<u64>(), 0, layout::PORT_WORDS),
            names::LOCALS => {
                let key = index + size_of::<LocalKey>();
                shape(MapType::LpmTrie, key, index, NO_PREALLOC, layout::LOCALS)
            }
            names::PUBLICATIONS => {
                let (key, value) = (size_of::<PublicationKey>(), size_of::<Publication>());
                shape(MapType::Hash, key, value, NO_PREALLOC, layout::PUBLICATIONS)
            }
            names::LINKS => shape(MapType::Array, index, size_of::<Link>(), 0, layout::LINKS),
            names::UPLINKS => shape(MapType::Hash, index, size_of::<Uplink>(), 0, layout::UPLINKS),
            names::FORWARD => {
                let (key, value) = (size_of::<ForwardKey>(), size_of::<Forward>());
                shape(MapType::Hash, key, value, 0, capacities.sessions)
            }
            names::REVERSE => {
                shape(MapType::Hash, reply, size_of::<Reverse>(), 0, capacities.sessions)
            }
            names::ALIASES => {
                shape(MapType::Hash, 4, size_of::<Alias>(), NO_PREALLOC, capacities.sessions)
            }
            names::FRAGMENTS_IN | names::FRAGMENTS_OUT => {
                let (key, value) = (size_of::<FragmentKey>(), size_of::<Datagram>());
                shape(MapType::LruHash, key, value, 0, layout::DATAGRAMS)
            }
            names::DROPS => {
                shape(MapType::PerCpuArray, index, size_of::<u64>(), 0, layout::DROP_COUNTERS)
            }
            names::HALF_OPEN => shape(MapType::LruHash, reply, transient, 0, capacities.half_open),
            names::CLOSING => shape(MapType::LruHash, reply, transient, 0, capacities.closing),
            names::ACCESS => {
                let (key, value) = (index + size_of::<AccessKey>(), size_of::<Rule>());
                shape(MapType::LpmTrie, key, value, NO_PREALLOC, layout::RULES)
            }
            names::USES => {
                shape(MapType::Hash, index, size_of::<Use>(), NO_PREALLOC, layout::PUBLICATIONS)
            }
            names::SOURCES => {
                let (key, value) = (size_of::<SourceKey>(), size_of::<Source>());
                shape(MapType::Hash, key, value, NO_PREALLOC, capacities.sessions)
            }
            names::RATES => {
                let (key, value) = (size_of::<RateKey>(), size_of::<Window>());
                shape(MapType::LruHash, key, value, 0, layout::RATES)
            }
            names::DISPLACED => {
                shape(MapType::Array, index, size_of::<u32>(), 0, layout::DISPLACED_SLOTS)
            }
            names::EVENTS_LOST => shape(MapType::PerCpuArray, index, size_of::<u64>(), 0, 1),
            // The session log.
            _ => shape(MapType::RingBuf, 0, 0, 0, layout::EVENT_BYTES),
        }
    }
}

/// Loads all programs, with maps that are pinned or taken from their pins.
///
/// Beside them the tables of an `older` layout, or else tables of one entry that nobody fills.
pub(super) fn load(
    pins: &Pins,
    older: Option<&Older>,
    capacities: &Capacities,
) -> Result<Ebpf, DatapathError> {
    let mut loader = EbpfLoader::new();
    let mut capacities = *capacities;
    if let Some(older) = older {
        // Whatever it holds must find room.
        let sessions = older.capacity(layout::older::names::FORWARD)?;
        capacities.sessions = capacities.sessions.max(sessions);
    }
    let old_tables = older.map(Older::tables);
    if let (Some(older), Some(old_tables)) = (older, &old_tables) {
        for (name, path) in old_tables {
            let capacity = older.capacity(name)?;
            loader.map_max_entries(name, capacity).map_pin_path(name, path);
        }
    }
    for name in names::ALL {
        let shape = MapShape::of(name, &capacities);
        // A pinned table keeps its capacity for as long as its sessions live.
        let capacity = pins.check_map(name, &shape)?.unwrap_or(shape.capacity);
        loader.map_max_entries(name, capacity).map_pin_path(name, pins.map(name));
    }
    let mut object = loader.load(OBJECT).map_err(|error| refused("object", &error))?;
    for name in PROGRAMS {
        program(&mut object, name)?.load().map_err(|error| match error {
            ProgramError::LoadError { verifier_log, io_error } => DatapathError::Load {
                program: name.into(),
                reason: format!("{io_error}\n{}", tail(&verifier_log.to_string())),
            },
            error => refused(name, &error),
        })?;
    }
    Ok(object)
}

/// A program of the object.
pub(super) fn program<'a>(
    object: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut SchedClassifier, DatapathError> {
    let missing = || DatapathError::Missing(format!("program {name}"));
    object.program_mut(name).ok_or_else(missing)?.try_into().map_err(|_| missing())
}

fn refused(program: &str, error: &(dyn std::error::Error + 'static)) -> DatapathError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::PermissionDenied
        {
            return DatapathError::Permission(chain(error));
        }
        cause = inner.source();
    }
    DatapathError::Load { program: program.into(), reason: chain(error) }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// What the kernel knows about a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramStatistics {
    /// The program's name.
    pub name: &'static str,
    /// Instructions that the verifier looked at; 0 before Linux 5.16.
    pub verified_instructions: u64,
    /// Nanoseconds spent in it; counted while `kernel.bpf_stats_enabled` is on.
    pub run_ns: u64,
    /// How often it ran; counted while `kernel.bpf_stats_enabled` is on.
    pub run_count: u64,
}

pub(super) fn statistics(object: &Ebpf) -> Vec<ProgramStatistics> {
    PROGRAMS
        .into_iter()
        .filter_map(|name| {
            let info = object.program(name)?.info().ok()?;
            Some(ProgramStatistics {
                name,
                verified_instructions: info.verified_instruction_count().unwrap_or(0).into(),
                run_ns: info.run_time().as_nanos() as u64,
                run_count: info.run_count(),
            })
        })
        .collect()
}
