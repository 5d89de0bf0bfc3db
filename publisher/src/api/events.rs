//! `GET /v1/events` from both sides: lines of JSON, one document each, for as long as both live.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;

use super::EventStream;
use super::documents::Document;
use super::types::EventView;

/// Events that are sent in one piece at most.
const AT_ONCE: usize = 256;

/// The answer: events as they come, until the server ends.
pub(super) fn respond(events: EventStream, ending: watch::Receiver<bool>) -> Response {
    let lines = stream::unfold((events, ending), async |(mut events, mut ending)| {
        let mut lines = Vec::new();
        tokio::select! {
            biased;
            _ = ending.wait_for(|ending| *ending) => return None,
            event = events.recv() => match event {
                Ok(event) => push(&mut lines, &event),
                Err(RecvError::Lagged(count)) => push(&mut lines, &EventView::lost(count)),
                Err(RecvError::Closed) => return None,
            },
        }
        for _ in 1..AT_ONCE {
            match events.try_recv() {
                Ok(event) => push(&mut lines, &event),
                Err(TryRecvError::Lagged(count)) => push(&mut lines, &EventView::lost(count)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(lines)), (events, ending)))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::from_stream(lines)).into_response()
}

fn push(lines: &mut Vec<u8>, event: &EventView) {
    // A view has nothing in it that JSON doesn't know.
    if serde_json::to_writer(&mut *lines, &Document::new(event)).is_ok() {
        lines.push(b'\n');
    }
}

/// Events of a daemon, as they come.
pub struct EventReader {
    body: Incoming,
    /// What has come and wasn't read yet.
    buffer: Vec<u8>,
}

impl EventReader {
    pub(super) const fn new(body: Incoming) -> Self {
        Self { body, buffer: Vec::new() }
    }

    /// The next event; `None` when the daemon has ended.
    ///
    /// # Errors
    ///
    /// What came in its place, in words.
    pub async fn next(&mut self) -> Result<Option<Arc<EventView>>, String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let document: Document<EventView> =
                    serde_json::from_slice(&line).map_err(|error| error.to_string())?;
                return Ok(Some(Arc::new(document.content)));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
                }
                // The daemon was killed, or it ended.
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}
