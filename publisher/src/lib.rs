//! Publisher's library: what `publisherd` and `publisherctl` are made of.

pub mod api;
pub mod cli;
pub mod config;
pub mod model;
pub mod store;
