//! The daemon's socket from both sides: the real server, the real `publisherctl`, and no kernel.

mod api;
mod ctl;
mod events;
mod failures;
mod support;
