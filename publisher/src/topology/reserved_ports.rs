//! Published ports inside the range that the kernel hands out to outgoing connections.
//!
//! The host's own connection may be given a port that is published, and its answers would then
//! be taken for a client's. The kernel leaves out what `ip_local_reserved_ports` names, so such
//! ports are added there, next to what its owner reserved, and only ours are taken out again.

use std::{fmt, io, ops::RangeInclusive, str::FromStr};

const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// A set of ports, as the kernel writes it: `80,8000-8010`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortSet {
    /// Inclusive ranges, ascending, neither overlapping nor touching.
    ranges: Vec<(u16, u16)>,
}

impl PortSet {
    /// Whether no port is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether `port` is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    /// The ranges of the set: ascending, neither overlapping nor touching.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u16>> {
        self.ranges.iter().map(|(first, last)| *first..=*last)
    }

    /// Ports that are in either set.
    pub fn union(&self, other: &Self) -> Self {
        [self, other].into_iter().flat_map(Self::ranges).collect()
    }

    /// Ports that are in both sets.
    pub fn intersection(&self, other: &Self) -> Self {
        let pairs = self.ranges.iter().flat_map(|a| other.ranges.iter().map(move |b| (a, b)));
        pairs.map(|(a, b)| a.0.max(b.0)..=a.1.min(b.1)).collect()
    }

    /// Ports of this set that aren't in the other.
    pub fn difference(&self, other: &Self) -> Self {
        self.intersection(&other.complement())
    }

    fn complement(&self) -> Self {
        let mut ranges = Vec::with_capacity(self.ranges.len() + 1);
        let mut next = 0_u32;
        for (first, last) in &self.ranges {
            if next < u32::from(*first) {
                ranges.push((next as u16, first - 1));
            }
            next = u32::from(*last) + 1;
        }
        if next <= u32::from(u16::MAX) {
            ranges.push((next as u16, u16::MAX));
        }
        Self { ranges }
    }
}

/// Ranges that are turned round are empty.
impl FromIterator<RangeInclusive<u16>> for PortSet {
    fn from_iter<T: IntoIterator<Item = RangeInclusive<u16>>>(ranges: T) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        sorted.sort_by_key(|range| *range.start());
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for range in sorted {
            let (first, last) = range.into_inner();
            match ranges.last_mut() {
                Some((_, end)) if u32::from(first) <= u32::from(*end) + 1 => *end = last.max(*end),
                _ => ranges.push((first, last)),
            }
        }
        Self { ranges }
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for PortSet {
    type Err = ParsePortSetError;

    /// Reads `80,8000-8010`, blanks and an empty text included.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParsePortSetError { text: text.trim().to_owned() };
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| error());
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts
            .map(|part| {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let (first, last) = (port(first)?, port(last)?);
                if first <= last { Ok(first..=last) } else { Err(error()) }
            })
            .collect()
    }
}

/// A text that is no set of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a list of ports")]
pub struct ParsePortSetError {
    text: String,
}

/// What to write, and what of it is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The new content of `ip_local_reserved_ports`.
    pub next: PortSet,
    /// The part of it that we added. Has to be kept on disk **before** `next` is written, to be
    /// given back later.
    pub ours: PortSet,
}

/// Computes what to reserve. `current` is what the kernel has, `ours` what we added to it before
/// (empty at first), `published` all ports that are published now (empty at uninstall), and
/// `ephemeral` the range of outgoing connections. A port that someone else reserved is never ours.
pub fn reserve(
    current: &PortSet,
    ours: &PortSet,
    published: &PortSet,
    ephemeral: RangeInclusive<u16>,
) -> Reservation {
    let foreign = current.difference(ours);
    let ephemeral = PortSet::from_iter([ephemeral]);
    let ours = published.intersection(&ephemeral).difference(&foreign);
    Reservation { next: foreign.union(&ours), ours }
}

/// Reads `ip_local_reserved_ports` of the calling thread's network namespace.
///
/// # Errors
/// When /proc can't be read.
pub fn read_reserved() -> io::Result<PortSet> {
    let text = std::fs::read_to_string(RESERVED)?;
    text.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes `ip_local_reserved_ports` of the calling thread's network namespace.
///
/// # Errors
/// When /proc can't be written.
pub fn write_reserved(ports: &PortSet) -> io::Result<()> {
    // The kernel takes an empty line as the empty set; an empty write wouldn't reach it.
    std::fs::write(RESERVED, format!("{ports}\n"))
}

/// Reads the range of ports for outgoing connections, of the calling thread's network namespace.
///
/// # Errors
/// When /proc can't be read.
pub fn read_ephemeral() -> io::Result<RangeInclusive<u16>> {
    let text = std::fs::read_to_string(EPHEMERAL)?;
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok(first..=last),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{EPHEMERAL}: {text}"))),
    }
}

#[cfg(test)]
#[path = "reserved_ports_tests.rs"]
mod tests;
