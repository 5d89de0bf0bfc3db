//! A range of ports.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::{SpecError, quoted};

/// Ports `first` to `last`, both included, both 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawRange", into = "RawRange")]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Ports `first` to `last`, both included.
    ///
    /// # Errors
    ///
    /// [`SpecError::PortZero`] or [`SpecError::ReversedRange`].
    pub const fn new(first: u16, last: u16) -> Result<Self, SpecError> {
        if first == 0 || last == 0 {
            return Err(SpecError::PortZero);
        }
        if last < first {
            return Err(SpecError::ReversedRange { first, last });
        }
        Ok(Self { first, last })
    }

    /// The single port `port`.
    ///
    /// # Errors
    ///
    /// [`SpecError::PortZero`].
    pub const fn single(port: u16) -> Result<Self, SpecError> {
        Self::new(port, port)
    }

    /// The lowest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port, which belongs to the range.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// How many ports these are, 1 to 65535.
    #[expect(clippy::len_without_is_empty, reason = "a range holds at least one port")]
    pub const fn len(self) -> u32 {
        (self.last - self.first) as u32 + 1
    }

    /// Whether `port` is one of these.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Whether at least one port is in both ranges.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The ports, lowest first.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = u16> + ExactSizeIterator {
        // A RangeInclusive<u16> is no ExactSizeIterator, a Range<u32> is none either.
        (0..self.len() as usize).map(move |offset| self.first + offset as u16)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for PortRange {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match text.split_once('-') {
            Some((first, last)) => Self::new(port(first)?, port(last)?),
            None => Self::single(port(text)?),
        }
    }
}

/// One port, in decimal digits only (`u16::from_str` takes a sign too).
pub(super) fn port(text: &str) -> Result<u16, SpecError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(SpecError::NotAPort(quoted(text)));
    }
    match text.parse::<u16>() {
        Ok(0) => Err(SpecError::PortZero),
        Ok(port) => Ok(port),
        Err(_) => Err(SpecError::PortTooLarge(text.chars().take(20).collect())),
    }
}

/// The JSON form. Wider than a port, so that 65536 is told apart from a wrong type.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRange {
    first: u64,
    last: u64,
}

impl TryFrom<RawRange> for PortRange {
    type Error = SpecError;

    fn try_from(RawRange { first, last }: RawRange) -> Result<Self, SpecError> {
        let narrow =
            |port: u64| u16::try_from(port).map_err(|_| SpecError::PortTooLarge(port.to_string()));
        Self::new(narrow(first)?, narrow(last)?)
    }
}

impl From<PortRange> for RawRange {
    fn from(PortRange { first, last }: PortRange) -> Self {
        Self { first: first.into(), last: last.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        assert_eq!("0".parse::<PortRange>(), Err(SpecError::PortZero));
        assert_eq!("1".parse::<PortRange>(), PortRange::single(1));
        assert_eq!("65535".parse::<PortRange>(), PortRange::single(65535));
        assert_eq!("65536".parse::<PortRange>(), Err(SpecError::PortTooLarge("65536".into())));
        assert_eq!("0-5".parse::<PortRange>(), Err(SpecError::PortZero));
        assert_eq!(
            "90-80".parse::<PortRange>().unwrap_err().to_string(),
            "port range 90-80 runs backwards"
        );
        for bad in ["", "-", "-1", "1-", "+80", " 80", "80 ", "8o", "1-2-3", "٨٠"] {
            assert!(matches!(bad.parse::<PortRange>(), Err(SpecError::NotAPort(_))), "{bad:?}");
        }
    }

    #[test]
    fn the_whole_range_counts_65535_ports() {
        let all = PortRange::new(1, 65535).unwrap();
        assert_eq!(all.len(), 65535);
        assert_eq!(all.iter().len(), 65535);
        assert_eq!(all.iter().next_back(), Some(65535));
    }

    #[test]
    fn overlap_includes_the_edges() {
        let range = |first, last| PortRange::new(first, last).unwrap();
        assert!(range(1, 5).overlaps(range(5, 9)));
        assert!(range(5, 9).overlaps(range(1, 5)));
        assert!(range(1, 9).overlaps(range(4, 4)));
        assert!(!range(1, 4).overlaps(range(5, 9)));
        assert!(!range(5, 9).overlaps(range(1, 4)));
    }

    #[test]
    fn json_goes_through_the_same_checks() {
        let parse = |text| serde_json::from_str::<PortRange>(text).map_err(|e| e.to_string());
        assert_eq!(parse(r#"{"first":80,"last":90}"#), Ok(PortRange::new(80, 90).unwrap()));
        assert!(parse(r#"{"first":0,"last":90}"#).unwrap_err().contains("port 0"));
        assert!(parse(r#"{"first":1,"last":65536}"#).unwrap_err().contains("port 65536"));
        assert!(parse(r#"{"first":1,"last":2,"step":3}"#).is_err());
        assert!(parse(r#"{"first":-1,"last":2}"#).is_err());
    }
}
