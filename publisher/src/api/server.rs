//! The server: HTTP on the unix socket, JSON in and out, every failure an [`ErrorDocument`].
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/publications`, a [`PublicationSpec`] | [`AddedDocument`](super::documents::AddedDocument) |
//! | `DELETE /v1/publications?published=P` or `?all=true`, with or without `&kill=true` | [`Publications`] |
//! | `GET /v1/publications` | [`Publications`] |
//! | `GET /v1/sessions` with any of `protocol port client alias state publication limit` | [`Sessions`] |
//! | `GET /v1/whois/ALIAS?port=PORT` | [`Clients`] |
//! | `POST /v1/bans`, a [`BanRequest`](super::BanRequest) | [`BanResult`](super::types::BanResult) |
//! | `DELETE /v1/bans?who=WHO` | [`Bans`](super::documents::Bans) |
//! | `GET /v1/bans` | [`Bans`](super::documents::Bans) |
//! | `GET /v1/config` | [`ConfigDocument`] |
//! | `GET /v1/events` | [`EventView`](super::types::EventView)s as they happen, a document a line, without an end |
//! | `GET /v1/status` | [`StatusDocument`](super::documents::StatusDocument) |
//! | `GET /v1/drops` | [`Drops`] |
//! | `POST /v1/uninstall` | [`Done`] |

mod bans;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, oneshot, watch};

use super::documents::{
    Clients, ConfigDocument, Document, Done, Drops, ErrorDocument, Publications, Schema, Sessions,
};
use super::query::{RemoveQuery, SessionQuery, WhoisQuery};
use super::{ApiError, Control, ErrorCode, Listener, RemoveRequest};
use crate::model::PublicationSpec;

/// The largest body that is read, in bytes. A publication takes about 200.
const MAX_BODY: usize = 16 * 1024;

/// How long a request that was begun before the end may take.
const GRACE: Duration = Duration::from_secs(3);

/// Answers requests on `listener` with `control`, until `shutdown` is ready and the requests that
/// were begun before are answered, or three seconds have gone by. Removes the socket at the end.
///
/// # Errors
///
/// Those of accepting connections.
pub async fn serve<C: Control>(
    mut listener: Listener,
    control: Arc<C>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let socket = listener.take().ok_or_else(|| io::Error::other("the socket is served already"))?;
    let changes = Changes::default();
    let (ending, is_ending) = watch::channel(false);
    let app = router(Shared { control, changes: changes.clone(), ending: is_ending })
        .into_make_service_with_connect_info::<Peer>();
    let (stopping, is_stopping) = oneshot::channel::<()>();
    let server =
        axum::serve(UnixListener::from_std(socket)?, app).with_graceful_shutdown(async move {
            shutdown.await;
            // Streams have no end of their own.
            ending.send_replace(true);
            drop(stopping);
        });
    let deadline = async {
        let _ = is_stopping.await;
        tokio::time::sleep(GRACE).await;
    };
    let served = tokio::select! {
        served = server => served,
        // Somebody began a request and doesn't end it.
        () = deadline => Ok(()),
    };
    changes.finished().await;
    served
}

/// What the handlers share.
struct Shared<C> {
    control: Arc<C>,
    changes: Changes,
    /// Becomes true when the server is to end.
    ending: watch::Receiver<bool>,
}

impl<C> Clone for Shared<C> {
    fn clone(&self) -> Self {
        Self {
            control: Arc::clone(&self.control),
            changes: self.changes.clone(),
            ending: self.ending.clone(),
        }
    }
}

/// Changes that are being made. Each runs to its end, whether or not its caller is still there: hyper
/// drops a handler when the connection closes, and a change that is dropped halfway would leave the
/// disk and the kernel at odds.
#[derive(Clone)]
struct Changes(Arc<Semaphore>);

/// More at once have to wait.
const MAX_CHANGES: u32 = 1024;

impl Default for Changes {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_CHANGES as usize)))
    }
}

impl Changes {
    /// Runs `change` to its end and logs it for `peer`.
    async fn run<T: Send + 'static>(
        &self,
        peer: Peer,
        what: String,
        change: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let permit = Arc::clone(&self.0).acquire_owned().await;
        let task = tokio::spawn(async move {
            let done = change.await;
            peer.log(&what, done.as_ref().err());
            drop(permit);
            done
        });
        task.await.unwrap_or_else(|_panicked| {
            Err(ApiError::failed("publisherd failed inside; its log says more"))
        })
    }

    /// Waits until every change is made.
    async fn finished(&self) {
        // The semaphore is never closed.
        let _ = self.0.acquire_many(MAX_CHANGES).await;
    }
}

fn router<C: Control>(shared: Shared<C>) -> Router {
    let v1 = Router::new()
        .route("/publications", get(list::<C>).post(add::<C>).delete(remove::<C>))
        .route("/sessions", get(sessions::<C>))
        .route("/whois/{alias}", get(whois::<C>))
        .route("/bans", get(bans::list::<C>).post(bans::add::<C>).delete(bans::remove::<C>))
        .route("/config", get(config::<C>))
        .route("/events", get(events::<C>))
        .route("/status", get(status::<C>))
        .route("/drops", get(drops::<C>))
        .route("/uninstall", post(uninstall::<C>));
    Router::new()
        .nest("/v1", v1)
        .fallback(async || other(StatusCode::NOT_FOUND, "this publisherd has no such call"))
        .method_not_allowed_fallback(async || {
            other(StatusCode::METHOD_NOT_ALLOWED, "this call has no such method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(shared)
}

/// Who is on the other end of a connection, for the log.
#[derive(Debug, Clone, Copy)]
struct Peer {
    uid: Option<u32>,
    pid: Option<i32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred().ok();
        Self {
            uid: credentials.as_ref().map(|it| it.uid()),
            pid: credentials.as_ref().and_then(|it| it.pid()),
        }
    }
}

impl Peer {
    /// Logs a change, or the attempt at one.
    fn log(self, what: &str, failure: Option<&ApiError>) {
        let (uid, pid) = (self.uid, self.pid);
        match failure {
            None => tracing::info!(uid, pid, "{what}"),
            Some(error) => tracing::warn!(uid, pid, "{what} failed: {error}"),
        }
    }
}

/// An [`ApiError`], with another HTTP status than its code's where HTTP has a better one.
struct Failure {
    status: StatusCode,
    error: ApiError,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let status =
            StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, error }
    }
}

impl Failure {
    /// A request that couldn't be read. serde's and axum's words, in one line.
    fn unreadable(status: StatusCode, text: &str) -> Self {
        let message = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        Self { status, error: ApiError::new(ErrorCode::Usage, message) }
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        Self::unreadable(rejection.status(), &rejection.body_text())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::unreadable(rejection.status(), &rejection.body_text())
    }
}

impl From<PathRejection> for Failure {
    fn from(rejection: PathRejection) -> Self {
        Self::unreadable(rejection.status(), &rejection.body_text())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorDocument { schema: Schema, error: self.error })).into_response()
    }
}

/// A request for something that isn't there: most likely a client of another version.
fn other(status: StatusCode, message: &str) -> Failure {
    let error = ApiError::failed(message)
        .with_hint("publisherctl and publisherd should have the same version");
    Failure { status, error }
}

type Answer<T> = Result<Json<T>, Failure>;

async fn add<C: Control>(
    State(Shared { control, changes, .. }): State<Shared<C>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    spec: Result<Json<PublicationSpec>, JsonRejection>,
) -> Result<Response, Failure> {
    let Json(spec) = spec?;
    let guards = [spec.access().to_string(), spec.limits().to_string()];
    let guards: String =
        guards.iter().filter(|it| !it.is_empty()).map(|it| format!(" {it}")).collect();
    let what = format!("add {spec}{guards}");
    let added = changes.run(peer, what, async move { control.add(spec).await }).await?;
    let status = if added.already || added.updated { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(Document::new(added))).into_response())
}

async fn remove<C: Control>(
    State(Shared { control, changes, .. }): State<Shared<C>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    query: Result<Query<RemoveQuery>, QueryRejection>,
) -> Answer<Publications> {
    let (which, kill) = query?.0.read()?;
    let mut what = match &which {
        RemoveRequest::One(published) => format!("rm {published}"),
        RemoveRequest::All => "rm all".to_owned(),
    };
    if kill {
        what.push_str(" with its sessions");
    }
    let removed = changes.run(peer, what, async move { control.remove(which, kill).await }).await?;
    Ok(Json(Publications::new(removed)))
}

async fn list<C: Control>(State(Shared { control, .. }): State<Shared<C>>) -> Answer<Publications> {
    Ok(Json(Publications::new(control.list().await?)))
}

async fn sessions<C: Control>(
    State(Shared { control, .. }): State<Shared<C>>,
    query: Result<Query<SessionQuery>, QueryRejection>,
) -> Answer<Sessions> {
    Ok(Json(Document::new(control.sessions(query?.0.read()).await?)))
}

async fn whois<C: Control>(
    State(Shared { control, .. }): State<Shared<C>>,
    alias: Result<Path<Ipv4Addr>, PathRejection>,
    query: Result<Query<WhoisQuery>, QueryRejection>,
) -> Answer<Clients> {
    Ok(Json(Clients::new(control.whois(alias?.0, query?.0.port).await?)))
}

async fn config<C: Control>(
    State(Shared { control, .. }): State<Shared<C>>,
) -> Answer<ConfigDocument> {
    Ok(Json(ConfigDocument { schema: Schema, config: control.config().await? }))
}

async fn events<C: Control>(
    State(Shared { control, ending, .. }): State<Shared<C>>,
) -> Result<Response, Failure> {
    Ok(super::events::respond(control.events().await?, ending))
}

async fn status<C: Control>(
    State(Shared { control, .. }): State<Shared<C>>,
) -> Answer<super::documents::StatusDocument> {
    Ok(Json(Document::new(control.status().await?)))
}

async fn drops<C: Control>(State(Shared { control, .. }): State<Shared<C>>) -> Answer<Drops> {
    Ok(Json(Drops::new(control.drops().await?)))
}

async fn uninstall<C: Control>(
    State(Shared { control, changes, .. }): State<Shared<C>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Answer<Done> {
    let what = "uninstall".to_owned();
    changes.run(peer, what, async move { control.uninstall().await }).await?;
    Ok(Json(Done::default()))
}
