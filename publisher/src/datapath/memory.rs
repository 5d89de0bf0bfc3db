//! What the tables take, before they are made: the kernel allocates most of them at once, and a host
//! without room for them would kill something else.

use super::object::{Capacities, MapShape};
use aya::maps::MapType;
use publisher_common::layout::{VERSION, names};
use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

/// What an entry of a hash costs beside its key and value: its links, its hash, its bucket.
const ENTRY: u64 = 64;
/// The part of the available memory that tables may take, in percent.
const SHARE: u64 = 80;

/// There is no room for the tables.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the tables take {} MiB (sessions.capacity {}, half_open {}, closing {}), and {} % of the available \
     memory are {} MiB",
    .needed >> 20, .capacities.sessions, .capacities.half_open, .capacities.closing, SHARE, .room >> 20
)]
pub struct NoRoom {
    needed: u64,
    room: u64,
    capacities: Capacities,
}

impl NoRoom {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        let Capacities { sessions, half_open, closing } = self.capacities;
        let largest = [
            // Both directions of a session are kept.
            ("sessions.capacity", u64::from(sessions) * 2),
            ("sessions.half_open", half_open.into()),
            ("sessions.closing", closing.into()),
        ];
        let name = largest.iter().max_by_key(|(_, entries)| *entries).map_or("", |(name, _)| name);
        format!("lower {name} in the configuration")
    }
}

/// Whether there is room for the tables below `pin_dir` that aren't there yet.
///
/// # Errors
/// [`NoRoom`]. Where the system doesn't say how much memory is available, there is room.
pub fn check_room(pin_dir: &Path, capacities: &Capacities) -> Result<(), NoRoom> {
    let maps = pin_dir.join(format!("v{VERSION}")).join("maps");
    let needed = needed(capacities, |name| maps.join(name).exists());
    let Some(available) = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(available)
    else {
        return Ok(());
    };
    room_for(needed, available, capacities)
}

fn room_for(needed: u64, available: u64, capacities: &Capacities) -> Result<(), NoRoom> {
    let room = available / 100 * SHARE;
    if needed > room {
        return Err(NoRoom { needed, room, capacities: *capacities });
    }
    Ok(())
}

/// Bytes of the tables that aren't there yet.
fn needed(capacities: &Capacities, is_there: impl Fn(&str) -> bool) -> u64 {
    let missing = names::ALL.into_iter().filter(|name| !is_there(name));
    missing.map(|name| bytes(&MapShape::of(name, capacities))).sum()
}

/// Bytes that the kernel allocates for a table when it is made.
fn bytes(shape: &MapShape) -> u64 {
    let MapShape { kind, key_size, value_size, flags, capacity } = shape;
    let round = |size: &u32| u64::from(size.next_multiple_of(8));
    let entries = u64::from(*capacity);
    let cpus = available_parallelism().map_or(1, usize::from) as u64;
    match kind {
        // Made as they are needed.
        _ if *flags != 0 => 0,
        MapType::Array => entries * round(value_size),
        MapType::PerCpuArray => entries * round(value_size) * cpus,
        MapType::RingBuf => entries,
        _ => entries * (round(key_size) + round(value_size) + ENTRY),
    }
}

/// `MemAvailable` of /proc/meminfo, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        let meminfo = "MemTotal:       8000000 kB\nMemAvailable:    1000 kB\nBuffers: 1 kB\n";
        assert_eq!(available(meminfo), Some(1_024_000));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
        assert_eq!(available("MemAvailable: many kB\n"), None);
    }

    #[test]
    fn sessions_take_memory_and_tables_that_are_there_take_none() {
        let small = Capacities { sessions: 1_000, half_open: 16, closing: 16 };
        let large = Capacities { sessions: 1_001_000, ..small };
        let more = needed(&large, |_| false) - needed(&small, |_| false);
        // Both directions of a session, with their keys.
        assert!((300_000_000..600_000_000).contains(&more), "{more}");
        assert_eq!(needed(&large, |_| true), 0);
    }

    #[test]
    fn what_doesnt_fit_is_refused_with_figures() {
        let capacities = Capacities { sessions: 1 << 24, half_open: 16, closing: 16 };
        let error = room_for(5 << 30, 1 << 30, &capacities).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the tables take 5120 MiB (sessions.capacity 16777216, half_open 16, closing 16), and 80 % \
             of the available memory are 819 MiB"
        );
        assert_eq!(error.hint(), "lower sessions.capacity in the configuration");
        assert_eq!(room_for(1 << 20, 1 << 30, &capacities), Ok(()));
    }
}
