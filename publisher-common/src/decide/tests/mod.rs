//! The decisions over whole packets: built with etherparse, and judged by it.

mod access;
mod aliases;
mod answers;
mod closing;
mod detour;
mod error_checks;
mod error_contents;
mod error_edges;
mod errors;
mod every_value;
mod extensions;
mod extras;
mod fragment_edges;
mod fragments;
mod gateway;
mod hosts_own;
mod invariants;
mod kinds;
mod links;
mod loopback;
mod machine;
mod malformed;
mod opening;
mod oracle;
mod packets;
mod scene;
mod sizes;
mod spoofs;
mod tcp;
mod truncation;
mod udp;

use crate::decide::Stop;
use crate::native::{Outcome, samples};
use crate::reason::Reason;
use oracle::Seen;
use packets::{Body, Segment};
use scene::Scene;

/// What becomes of a packet that is dropped for `reason`.
const fn dropped(reason: Reason) -> Outcome {
    Outcome::Stop(Stop::Drop(reason))
}

/// What becomes of a packet that isn't ours.
const PASSED: Outcome = Outcome::Stop(Stop::Pass);
