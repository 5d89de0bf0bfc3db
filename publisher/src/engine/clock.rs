//! The clock that the datapath keeps its times by.

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime};

/// Seconds of the monootic clock, as the datapath counts them.
pub(super) fn now() -> u32 {
    clock_gettime(ClockId::Monotonic).tv_sec as u32
}

/// Seconds from `then` to `now`; 0 where `then` lies ahead.
pub(super) fn seconds_since(then: u32, now: u32) -> u64 {
    let age = now.wrapping_sub(then);
    if age > u32::MAX / 2 { 0 } else { age.into() }
}

/// The time of day at a moment of the datapath's clock.
pub(super) fn time_of_day(then: u32) -> SystemTime {
    SystemTime::now() - Duration::from_secs(seconds_since(then, now()))
}
