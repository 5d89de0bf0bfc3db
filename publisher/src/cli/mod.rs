//! The command lines of `publisherctl` and `publisherd`.

mod args;
mod columns;
mod config;
mod ctl;
pub mod daemon;
mod deny;
mod exit;
mod filter;
mod manual;
mod message;
mod output;
mod status;
mod usage;

pub use ctl::run;
pub use exit::Exit;
pub use message::{Messages, Style};
