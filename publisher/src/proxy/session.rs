//! A session of the proxy, from its entry into the table to its end in the log.

use super::Shared;
use super::guard::Counted;
use super::table::{Connection, Ends};
use crate::api::types::CloseReason;
use crate::model::Publication;
use publisher_common::layout::Handle;
use std::sync::Arc;

/// A session that is in the table until this is dropped, whatever becomes of its task.
pub(super) struct Session {
    shared: Arc<Shared>,
    number: u64,
    pub connection: Arc<Connection>,
    reason: CloseReason,
}

impl Session {
    /// Enters a session; `None` if it may be no more: its client was banned, or its publication removed,
    /// while it was in no table yet.
    pub fn enter(
        shared: &Arc<Shared>,
        publication: &Publication,
        ends: Ends,
        counted: Counted,
    ) -> Option<Self> {
        let handle = Handle { index: publication.id, generation: publication.generation };
        let (number, connection) = shared.table.insert(ends, handle, counted);
        if shared.guard.is_banned(*ends.client.ip()) || !shared.held.has(publication.id) {
            shared.table.remove(number);
            return None;
        }
        shared.log.opened(&connection.entry());
        let shared = Arc::clone(shared);
        Some(Self { shared, number, connection, reason: CloseReason::Rst })
    }

    /// Ends it for this reason.
    pub fn end(mut self, reason: CloseReason) {
        self.reason = reason;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.table.remove(self.number);
        self.shared.log.closed(&self.connection.entry(), self.reason);
    }
}
