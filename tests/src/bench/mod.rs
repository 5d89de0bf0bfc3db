//! The benchmark: Publisher's kernel path beside what people use today, on the same work in the
//! same run.
//!
//! * [`contender`] builds one network per contender, so that none meets another's rules or programs;
//!   [`docker_rules`] are those of a Docker host
//! * [`work`] is what all of them do: one TCP stream each way, and many short connections;
//!   [`service`] is its other end, in the container
//! * [`rounds`] lets them take turns, in another order every round
//! * [`statistics`] makes medians and intervals of it, [`report`] the tables and the goals
//! * [`pair`] is for what only ours and docker-proxy do
//! * [`programs`] reads off what each BPF program took per packet, in a run of its own
//!
//! Client, host and container share one machine: what counts are the ratios.

use std::time::Duration;

pub mod contender;
pub mod docker_rules;
pub mod machine;
pub mod pair;
pub mod programs;
pub mod report;
pub mod rounds;
pub mod service;
pub mod statistics;
pub mod work;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How often each contender has its turn, at least 1.
    pub rounds: usize,
    /// What one stream is measured for, each way.
    pub stream: Duration,
    /// What short connections are measured for.
    pub connections: Duration,
}

impl Plan {
    /// Less than three minutes in all.
    pub const QUICK: Self = Self {
        rounds: 5,
        stream: Duration::from_millis(1800),
        connections: Duration::from_millis(1800),
    };

    /// Some twelve minutes.
    pub const LONG: Self =
        Self { rounds: 11, stream: Duration::from_secs(5), connections: Duration::from_secs(5) };
}
