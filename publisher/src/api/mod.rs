//! The daemon's API: HTTP and JSON on a unix socket.
//!
//! [`Control`] is what the daemon has to offer; [`serve`] puts it on a [`Listener`], [`Client`] calls
//! it; [`types`] and [`documents`] are what travels.

mod client;
mod control;
pub mod documents;
mod error;
mod events;
mod query;
mod server;
mod socket;
pub mod types;

pub use client::{Client, ClientError};
pub use control::{BanRequest, Control, EventStream, RemoveRequest, SessionFilter};
pub use error::{ApiError, ErrorCode};
pub use events::EventReader;
pub use server::serve;
pub use socket::{BindError, GROUP, Listener};
