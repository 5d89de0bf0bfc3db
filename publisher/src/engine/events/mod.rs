//! The session log: what the datapath writes and what the daemon adds, to everybody who listens.

mod file;
mod history;

use super::clock;
use crate::api::types::{CloseReason, EventKind, EventSession, EventView, SessionPath};
use crate::config::Log;
use crate::datapath::{EndReason, Entry};
use crate::model::Protocol;
use crate::proxy;
use file::FileLog;
pub(super) use history::Ended;
use history::History;
use publisher_common::layout::{Record, record_kind};
use publisher_common::wire::protocol;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::broadcast;

/// Events that a reader may be behind before it loses some.
const BEHIND: usize = 16_384;

/// The session log.
pub(super) struct Events {
    readers: broadcast::Sender<Arc<EventView>>,
    names: RwLock<BTreeMap<u32, String>>,
    history: Mutex<History>,
    file: Option<FileLog>,
    lost: AtomicU64,
}

impl Events {
    pub(super) fn new(config: &Log) -> Self {
        Self {
            readers: broadcast::Sender::new(BEHIND),
            names: RwLock::default(),
            history: Mutex::new(History::new(config.history as usize)),
            file: config.file.clone().map(|path| FileLog::open(path, config.max_bytes())),
            lost: AtomicU64::new(0),
        }
    }

    /// Events from now on. A reader that is too slow loses some, and is told how many.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Arc<EventView>> {
        self.readers.subscribe()
    }

    /// The interfaces' names, by index.
    pub(super) fn set_names(&self, names: BTreeMap<u32, String>) {
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// The datapath has written a record.
    pub(super) fn record(&self, record: &Record) {
        let (event, reason) = match record.kind {
            record_kind::OPENED => (EventKind::Opened, None),
            record_kind::RESUMED => (EventKind::Resumed, None),
            record_kind::RESET => (EventKind::Closed, Some(CloseReason::Rst)),
            record_kind::TARGET_GONE => (EventKind::Closed, Some(CloseReason::TargetGone)),
            _ => (EventKind::Closed, Some(CloseReason::Fin)),
        };
        self.publish(record, event, reason, SessionPath::Kernel);
    }

    /// The daemon has ended a session.
    pub(super) fn ended(&self, entry: &Entry, reason: EndReason) {
        let reason = match reason {
            EndReason::Idle => CloseReason::Idle,
            EndReason::Killed => CloseReason::Killed,
            EndReason::Removed => CloseReason::Removed,
            EndReason::Denied => CloseReason::Denied,
            EndReason::TargetGone => CloseReason::TargetGone,
        };
        self.publish(&record_of(entry), EventKind::Closed, Some(reason), SessionPath::Kernel);
    }

    /// The datapath found no room for so many records.
    pub(super) fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
        self.send(|| EventView::lost(count));
    }

    /// Records that found no room since the daemon started, and before that while none ran.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Events that couldn't be written to the file.
    pub(super) fn not_written(&self) -> u64 {
        self.file.as_ref().map_or(0, FileLog::left_out)
    }

    /// What is wrong with the file.
    pub(super) fn trouble(&self) -> Option<String> {
        self.file.as_ref().and_then(FileLog::trouble)
    }

    /// Sessions of an alias that ended in the last hour, the newest first.
    pub(super) fn history(&self, alias: Ipv4Addr, port: Option<u16>) -> Vec<Ended> {
        self.past().find(clock::now(), alias.octets(), port.map(u16::to_be_bytes))
    }

    /// Writes what is still to be written.
    pub(super) fn close(&self) {
        if let Some(file) = &self.file {
            file.close();
        }
    }

    fn past(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(
        &self,
        record: &Record,
        event: EventKind,
        reason: Option<CloseReason>,
        path: SessionPath,
    ) {
        if event == EventKind::Closed {
            self.past().add(Ended::of(record));
        }
        self.send(|| self.view(record, event, reason, path));
    }

    /// Hands an event to all who listen; it isn't made where nobody does.
    fn send(&self, event: impl FnOnce() -> EventView) {
        if self.file.is_none() && self.readers.receiver_count() == 0 {
            return;
        }
        let event = Arc::new(event());
        if let Some(file) = &self.file {
            file.write(Arc::clone(&event));
        }
        // The last reader may just have left.
        let _ = self.readers.send(event);
    }

    fn view(
        &self,
        record: &Record,
        event: EventKind,
        reason: Option<CloseReason>,
        path: SessionPath,
    ) -> EventView {
        let Record { forward, reply, .. } = record;
        let is_udp = reply.protocol == protocol::UDP;
        let session = EventSession {
            protocol: if is_udp { Protocol::Udp } else { Protocol::Tcp },
            client: forward.client.into(),
            client_port: u16::from_be_bytes(forward.client_port),
            scope: (forward.scope != 0).then(|| self.name(forward.scope)),
            host: forward.host.into(),
            host_port: u16::from_be_bytes(forward.host_port),
            alias: reply.alias.into(),
            alias_port: u16::from_be_bytes(reply.alias_port),
            target: reply.target.into(),
            target_port: u16::from_be_bytes(reply.target_port),
            publication: record.publication.index,
            path,
            uplink: if record.uplink == 0 { String::new() } else { self.name(record.uplink) },
            packets_in: record.sent.packets,
            bytes_in: record.sent.bytes,
            packets_out: record.received.packets,
            bytes_out: record.received.bytes,
            duration_seconds: clock::seconds_since(record.created, record.at),
        };
        let time = clock::time_of_day(record.at);
        EventView { time, event, session: Some(session), reason, count: None }
    }

    fn name(&self, ifindex: u32) -> String {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.get(&ifindex).cloned().unwrap_or_else(|| format!("#{ifindex}"))
    }
}

/// A session as the datapath's log would have it now.
fn record_of(entry: &Entry) -> Record {
    Record {
        sent: entry.sent,
        received: entry.received,
        forward: entry.forward,
        at: clock::now(),
        reply: entry.reply,
        publication: entry.session.publication,
        created: entry.session.created,
        uplink: entry.session.uplink,
        kind: 0,
        reserved: [0; 7],
    }
}

/// The proxy's sessions are events too.
impl proxy::Log for Arc<Events> {
    fn opened(&self, session: &Entry) {
        self.publish(&record_of(session), EventKind::Opened, None, SessionPath::Proxy);
    }

    fn closed(&self, session: &Entry, reason: CloseReason) {
        self.publish(&record_of(session), EventKind::Closed, Some(reason), SessionPath::Proxy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use publisher_common::layout::{ForwardKey, Handle, ReplyKey, Usage};

    fn record(kind: u8) -> Record {
        Record {
            sent: Usage { packets: 1, bytes: 2 },
            received: Usage { packets: 3, bytes: 4 },
            forward: ForwardKey {
                client: [0x20; 16],
                host: [0x30; 16],
                client_port: [0x9c, 0x40],
                host_port: [0x1f, 0x90],
                scope: 0,
                protocol: protocol::TCP,
                origin: 0,
                reserved: [0; 2],
            },
            at: clock::now(),
            reply: ReplyKey {
                target: [172, 17, 0, 2],
                alias: [198, 18, 0, 4],
                target_port: [0, 80],
                alias_port: [0x9c, 0x41],
                protocol: protocol::TCP,
                reserved: [0; 3],
            },
            publication: Handle { index: 7, generation: 1 },
            created: clock::now().wrapping_sub(12),
            uplink: 2,
            kind,
            reserved: [0; 7],
        }
    }

    #[test]
    fn every_reader_hears_what_happened_after_it_came() {
        let events = Events::new(&Log::default());
        events.record(&record(record_kind::OPENED));
        let (mut one, mut two) = (events.subscribe(), events.subscribe());
        events.set_names(BTreeMap::from([(2, "eth0".to_owned())]));
        events.record(&record(record_kind::FINISHED));
        events.lose(3);
        for reader in [&mut one, &mut two] {
            let event = reader.try_recv().unwrap();
            assert_eq!((event.event, event.reason), (EventKind::Closed, Some(CloseReason::Fin)));
            let session = event.session.as_ref().unwrap();
            assert_eq!((session.client_port, session.alias_port), (40_000, 40_001));
            assert_eq!((session.bytes_in, session.bytes_out, session.duration_seconds), (2, 4, 12));
            assert_eq!((session.uplink.as_str(), session.publication), ("eth0", 7));
            assert_eq!(reader.try_recv().unwrap().count, Some(3));
            assert!(reader.try_recv().is_err());
        }
        assert_eq!(events.lost(), 3);
        let past = events.history(Ipv4Addr::new(198, 18, 0, 4), Some(40_001));
        assert_eq!(past.len(), 1);
    }

    #[test]
    fn a_slow_reader_is_told_how_much_it_has_lost() {
        let events = Events::new(&Log::default());
        let mut reader = events.subscribe();
        for _ in 0..BEHIND + 10 {
            events.record(&record(record_kind::OPENED));
        }
        let error = reader.try_recv().unwrap_err();
        assert_eq!(error, broadcast::error::TryRecvError::Lagged(10));
    }
}
