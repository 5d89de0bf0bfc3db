//! The daemon's API: HTTP and JSON on a unix socket.
//!
//! [`Control`] is what the daemon has to offer; [`types`] are the documents that travel.

mod control;
mod error;
pub mod types;

pub use control::{Control, RemoveRequest, SessionFilter};
pub use error::{ApiError, ErrorCode};
