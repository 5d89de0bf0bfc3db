//! The daemon's socket from both sides: the real server, the real `publisherctl`, and no kernel.

mod api;
mod config;
mod ctl;
mod deny;
mod events;
mod failures;
mod guards;
mod memory;
mod support;
