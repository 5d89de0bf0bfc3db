//! The session log in a file: a line of JSON for each event, written by a thread of its own, so that a
//! slow disk holds nobody up. What it can't take is counted and left out.

use crate::api::documents::Document;
use crate::api::types::EventView;
use std::fs::{File, OpenOptions, rename};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Events that wait for the disk.
const WAITING: usize = 65_536;

/// The file, from the side of those who write to it.
pub(super) struct FileLog {
    queue: Mutex<Option<SyncSender<Arc<EventView>>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    left_out: AtomicU64,
    trouble: Mutex<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileLog {
    /// The log at `path`, which is renamed to `path` and `.1` when it has `most` bytes.
    pub(super) fn open(path: PathBuf, most: u64) -> Self {
        let shared = Arc::new(Shared::default());
        let (queue, events) = sync_channel(WAITING);
        let writer = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || Writer { path, most, open: None, shared }.run(&events)
        });
        Self { queue: Mutex::new(Some(queue)), writer: Mutex::new(Some(writer)), shared }
    }

    /// Hands an event over; it is left out where too many wait.
    pub(super) fn write(&self, event: Arc<EventView>) {
        let sent = lock(&self.queue).as_ref().is_some_and(|queue| queue.try_send(event).is_ok());
        if !sent {
            self.shared.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Events that were left out.
    pub(super) fn left_out(&self) -> u64 {
        self.shared.left_out.load(Ordering::Relaxed)
    }

    /// Why the file can't be written now.
    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.shared.trouble).clone()
    }

    /// Waits until everything is written; nothing more is taken.
    pub(super) fn close(&self) {
        lock(&self.queue).take();
        if let Some(writer) = lock(&self.writer).take() {
            // Its panic has been reported by itself.
            let _ = writer.join();
        }
    }
}

/// The file, from the side of the disk.
struct Writer {
    path: PathBuf,
    most: u64,
    /// The file and its size.
    open: Option<(BufWriter<File>, u64)>,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(mut self, events: &Receiver<Arc<EventView>>) {
        while let Ok(first) = events.recv() {
            let (mut next, mut taken) = (Some(first), 0);
            let mut result = Ok(());
            while let Some(event) = next.take() {
                taken += 1;
                result = result.and_then(|()| self.append(&event));
                if taken < WAITING as u64 {
                    next = events.try_recv().ok();
                }
            }
            result = result.and_then(|()| match &mut self.open {
                Some((file, _)) => file.flush(),
                None => Ok(()),
            });
            self.report(result, taken);
        }
    }

    fn append(&mut self, event: &EventView) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Document::new(event))?;
        line.push(b'\n');
        if self.open.as_ref().is_some_and(|(_, size)| size + line.len() as u64 > self.most)
            && let Some((mut file, _)) = self.open.take()
        {
            file.flush()?;
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            rename(&self.path, old)?;
        }
        let (file, size) = match &mut self.open {
            Some(open) => open,
            closed => closed.insert(open(&self.path)?),
        };
        file.write_all(&line)?;
        *size += line.len() as u64;
        Ok(())
    }

    /// Says once what is wrong, and counts what wasn't written.
    fn report(&mut self, result: io::Result<()>, taken: u64) {
        let mut trouble = lock(&self.shared.trouble);
        match result {
            Ok(()) => *trouble = None,
            Err(error) => {
                self.shared.left_out.fetch_add(taken, Ordering::Relaxed);
                // What its buffer still holds would fail again.
                if let Some((file, _)) = self.open.take() {
                    let _ = file.into_parts();
                }
                let text = format!("can't write the session log {}: {error}", self.path.display());
                if trouble.as_ref() != Some(&text) {
                    tracing::error!("{text}");
                }
                *trouble = Some(text);
            }
        }
    }
}

fn open(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    // Who has talked to whom isn't everybody's business.
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    let size = file.metadata()?.len();
    Ok((BufWriter::new(file), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_a_full_file_is_renamed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions.ndjson");
        let log = FileLog::open(path.clone(), 200);
        for count in 1..=6 {
            log.write(Arc::new(EventView::lost(count)));
        }
        log.close();
        assert_eq!((log.left_out(), log.trouble()), (0, None));
        let read = |path: &Path| -> Vec<u64> {
            let text = std::fs::read_to_string(path).unwrap();
            assert!(text.len() <= 200);
            text.lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
                .map(|line| line["count"].as_u64().filter(|_| line["schema"] == 1).unwrap())
                .collect()
        };
        let (old, new) = (read(&dir.path().join("sessions.ndjson.1")), read(&path));
        assert_eq!(
            (old.last().map(|count| count + 1), new.last()),
            (new.first().copied(), Some(&6))
        );
        log.write(Arc::new(EventView::lost(7)));
        assert_eq!(log.left_out(), 1, "it is closed");
    }

    #[test]
    fn a_disk_that_fails_is_reported_and_counted() {
        let log = FileLog::open("/dev/full".into(), 1 << 20);
        for count in 1..=3 {
            log.write(Arc::new(EventView::lost(count)));
        }
        log.close();
        assert_eq!(log.left_out(), 3);
        let trouble = log.trouble().unwrap();
        assert!(trouble.starts_with("can't write the session log /dev/full: "), "{trouble}");
    }
}
