//! The command lines of `publisherctl` and `publisherd`.

pub mod daemon;
mod exit;
mod message;
mod usage;

pub use exit::Exit;
pub use message::{Messages, Style};
