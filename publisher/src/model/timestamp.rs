//! RFC 3339 times in UTC, to the second: `2026-11-21T21:20:25Z`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serializer};

/// The last second that has a four-digit year: 9999-12-31T23:59:59Z.
const LAST: u64 = 253_402_300_799;

/// The present, without its fraction of a second, so that it survives being written and read.
pub fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds(SystemTime::now()))
}

/// Seconds since 1970; a time before that is 0, one after the year 9999 is its last second.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).min(LAST)
}

/// `time` in UTC, for instance `2026-11-21T21:20:25Z`.
pub fn format(time: SystemTime) -> String {
    let seconds = seconds(time);
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads what [`format()`] writes. `None` for anything else.
pub fn parse(text: &str) -> Option<SystemTime> {
    let field = |at: std::ops::Range<usize>| -> Option<u64> {
        let digits = text.get(at)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let days = days_from_civil(field(0..4)?, field(5..7)?, field(8..10)?)?;
    let (hour, minute, second) = (field(11..13)?, field(14..16)?, field(17..19)?);
    let time = UNIX_EPOCH + Duration::from_secs(days * 86_400 + hour * 3600 + minute * 60 + second);
    // Writing it again tells a 31 February, an hour 24 and a wrong separator from the real thing.
    (format(time) == text).then_some(time)
}

/// Year, month and day of the day `days` after 1970-01-01, by Howard Hinnant's `civil_from_days`:
/// years start in March, so that the leap day is a year's last.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`]; `None` before 1970 and for a month or day out of range.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let era = year / 400;
    let year_of_era = year % 400;
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// For `#[serde(with = "timestamp")]`.
///
/// # Errors
///
/// Those of the serializer.
pub fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*time))
}

/// For `#[serde(with = "timestamp")]`.
///
/// # Errors
///
/// Those of the deserializer, and for a text that [`parse`] doesn't take.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time in UTC"))
}

/// For `#[serde(with = "timestamp::optional")]`: RFC 3339, or null.
pub mod optional {
    use super::{Deserialize as _, Deserializer, Serializer, SystemTime, format, parse};

    /// Writes the time or null.
    ///
    /// # Errors
    ///
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => to.serialize_some(&format(*time)),
            None => to.serialize_none(),
        }
    }

    /// Reads a time or null.
    ///
    /// # Errors
    ///
    /// Those of the deserializer, and for a text that [`parse`] doesn't take.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SystemTime>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        match parse(&text) {
            Some(time) => Ok(Some(time)),
            None => Err(serde::de::Error::custom("not an RFC 3339 time in UTC")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn known_times() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_296_025, "2026-11-21T21:20:25Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (LAST, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(format(at(seconds)), text);
            assert_eq!(parse(text), Some(at(seconds)));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "2026-02-30T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21 21:20:25Z",
            "2026-11-21T21:20:25",
            "2026-11-21T21:20:25+00:00",
            "1969-12-31T23:59:59Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "+026-01-01T00:00:00Z",
            "é026-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn parse_undoes_format(seconds in 0..=LAST) {
            prop_assert_eq!(parse(&format(at(seconds))), Some(at(seconds)));
        }
    }
}
