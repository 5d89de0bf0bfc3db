//! The JSON documents of the API, which are those of `publisherctl -o json` too.
//!
//! Times are RFC 3339 in UTC, durations are whole seconds, counters are integers. Fields may be
//! added within one schema version; none is removed or changes its meaning.

mod ban;
mod event;
mod publication;
mod session;
mod status;

pub use ban::BanResult;
pub use event::{CloseReason, EventKind, EventSession, EventView};
pub use publication::{Added, Path, PublicationView, Source, SourceView};
pub use session::{SessionPath, SessionState, SessionView, SessionsFound, WhoisView};
pub use status::{
    Attach, DropView, EventsView, FeatureView, LinkKind, LinkView, ProgramView, StatusView,
    TableView, UplinkView,
};
