//! Publisher's library: what `publisherd` and `publisherctl` are made of.

pub mod api;
pub mod cli;
pub mod config;
pub mod datapath;
pub mod engine;
mod lane;
pub mod model;
pub mod plan;
pub mod proxy;
pub mod store;
pub mod topology;
mod veth;
