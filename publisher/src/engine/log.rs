//! Reading the datapath's session log, on a thread of its own.

use super::Engine;
use super::events::Events;
use crate::datapath::SessionLog;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it is read: nobody is woken up by a packet.
const EVERY: Duration = Duration::from_millis(100);

/// The session log and who reads it.
pub(super) enum LogReader {
    /// Nobody yet: names of interfaces aren't known before the host was looked at.
    Waiting(Option<Box<SessionLog>>),
    /// A thread, until the daemon ends.
    Running(JoinHandle<()>),
    /// Nobody any more.
    Ended,
}

fn read(mut log: Box<SessionLog>, events: &Events, stopping: &AtomicBool) {
    loop {
        // What comes after the last look waits for the next daemon.
        let last = stopping.load(Ordering::Relaxed);
        log.drain(|record| events.record(record));
        match log.lost() {
            0 => {}
            count => events.lose(count),
        }
        if last {
            return;
        }
        std::thread::sleep(EVERY);
    }
}

impl Engine {
    /// Starts to read the session log, once.
    pub(super) fn read_log(&self) {
        let mut reader = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let LogReader::Waiting(log) = &mut *reader
            && let Some(log) = log.take()
        {
            let (events, stopping) = (Arc::clone(&self.events), Arc::clone(&self.stopping));
            let thread = std::thread::spawn(move || read(log, &events, &stopping));
            *reader = LogReader::Running(thread);
        }
    }

    /// Ends what runs beside the requests: what was read of the session log is written.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let mut reader = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let LogReader::Running(thread) = std::mem::replace(&mut *reader, LogReader::Ended) {
            // Its panic has been reported by itself.
            let _ = thread.join();
        }
        self.events.close();
    }
}
