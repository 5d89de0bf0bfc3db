//! Publications: the words of the command line, the API and the state file, parsed and checked once.
//!
//! Every type here can only hold a valid value: whether it comes from a command line, a JSON body or
//! the state file, it goes through the same constructors.

mod access;
mod ban;
mod conflict;
mod error;
mod host;
mod path;
mod ports;
mod protocol;
mod publication;
mod spec;
pub mod timestamp;

pub use access::{Access, ClientPrefix, Limits};
pub use ban::{Ban, BanTime, Banned};
pub use conflict::{Verdict, conflicts};
pub use error::SpecError;
pub(crate) use error::quoted;
pub use host::HostAddress;
pub(crate) use host::interface_name;
pub use path::{PathMode, ProxyProtocol};
pub use ports::PortRange;
pub use protocol::{Protocol, SourceMode};
pub use publication::Publication;
pub use spec::{PublicationSpec, Published, Target};
