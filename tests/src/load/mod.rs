//! Load: floods from spoofed sources, transfers that have to go on under them, clients that are
//! slow to answer, and sessions by the million.
//!
//! * [`frame`] builds frames of which only source, port and numbers change; [`sources`] says who
//!   they are from; [`link`] sends and receives them by the thousand
//! * [`flood`] sends as fast as one thread can
//! * [`hub`] is the service in the container, [`transfers`] its long-lived clients, [`patient`] its
//!   distant ones, whose acknowledgments take their time
//! * [`opener`] opens UDP sessions by real packets, [`churn`] opens and closes TCP connections
//! * [`scene`] is the network that all of it goes through; [`accounts`] reads off what processes and maps cost
//!
//! Sender, host and container share one machine: every figure is compared with one that was measured
//! on the same machine a moment before.

use std::time::Duration;

pub mod accounts;
pub mod churn;
pub mod flood;
pub mod frame;
pub mod hub;
pub mod link;
pub mod opener;
pub mod patient;
pub mod scene;
pub mod sources;
pub mod transfers;

/// How long a flood lasts, in seconds: `PUBLISHER_FLOOD_SECONDS`, which the long runs set to 60.
///
/// # Panics
/// When the variable isn't a number above 0.
pub fn flood_seconds() -> Duration {
    let seconds = std::env::var("PUBLISHER_FLOOD_SECONDS").map_or(6.0, |text| {
        let parsed = text.parse().ok().filter(|seconds| *seconds > 0.0);
        parsed.expect("PUBLISHER_FLOOD_SECONDS is a number of seconds above 0")
    });
    Duration::from_secs_f64(seconds)
}

/// Whether the long runs are wanted (`cargo xtask test --full`).
pub fn is_full() -> bool {
    std::env::var_os("PUBLISHER_TEST_FULL").is_some()
}
