//! The server: HTTP on the unix socket, JSON in and out, every failure an [`ErrorDocument`].
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/publications`, a [`PublicationSpec`] | [`AddedDocument`](super::documents::AddedDocument) |
//! | `DELETE /v1/publications?published=P` or `?all=true`, with or without `&kill=true` | [`Publications`] |
//! | `GET /v1/publications` | [`Publications`] |
//! | `GET /v1/sessions` with any of `protocol port client alias state publication` | [`Sessions`] |
//! | `GET /v1/whois/ALIAS?port=PORT` | [`Clients`] |
//! | `GET /v1/status` | [`StatusDocument`](super::documents::StatusDocument) |
//! | `GET /v1/drops` | [`Drops`] |
//! | `POST /v1/uninstall` | [`Done`] |

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
use tokio::sync::oneshot;

use super::documents::{
    Clients, Document, Done, Drops, ErrorDocument, Publications, Schema, Sessions,
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
    let app = router(control).into_make_service_with_connect_info::<Peer>();
    let (stopping, is_stopping) = oneshot::channel::<()>();
    let server = axum::serve(UnixListener::from_std(socket)?, app).with_graceful_shutdown(async {
        shutdown.await;
        drop(stopping);
    });
    let deadline = async {
        let _ = is_stopping.await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = server => served,
        // Somebody began a request and doesn't end it.
        () = deadline => Ok(()),
    }
}

fn router<C: Control>(control: Arc<C>) -> Router {
    let v1 = Router::new()
        .route("/publications", get(list::<C>).post(add::<C>).delete(remove::<C>))
        .route("/sessions", get(sessions::<C>))
        .route("/whois/{alias}", get(whois::<C>))
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
        .with_state(control)
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
    fn log(self, change: &str, what: &str, failure: Option<&ApiError>) {
        let (uid, pid) = (self.uid, self.pid);
        match failure {
            None => tracing::info!(uid, pid, "{change} {what}"),
            Some(error) => tracing::warn!(uid, pid, "{change} {what} failed: {error}"),
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
    State(control): State<Arc<C>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    spec: Result<Json<PublicationSpec>, JsonRejection>,
) -> Result<Response, Failure> {
    let Json(spec) = spec?;
    let what = spec.to_string();
    let added = control.add(spec).await;
    peer.log("add", &what, added.as_ref().err());
    let added = added?;
    let status = if added.already { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(Document::new(added))).into_response())
}

async fn remove<C: Control>(
    State(control): State<Arc<C>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    query: Result<Query<RemoveQuery>, QueryRejection>,
) -> Answer<Publications> {
    let (which, kill) = query?.0.read()?;
    let mut what = match &which {
        RemoveRequest::One(published) => published.to_string(),
        RemoveRequest::All => "all".to_owned(),
    };
    if kill {
        what.push_str(" with its sessions");
    }
    let removed = control.remove(which, kill).await;
    peer.log("rm", &what, removed.as_ref().err());
    Ok(Json(Publications::new(removed?)))
}

async fn list<C: Control>(State(control): State<Arc<C>>) -> Answer<Publications> {
    Ok(Json(Publications::new(control.list().await?)))
}

async fn sessions<C: Control>(
    State(control): State<Arc<C>>,
    query: Result<Query<SessionQuery>, QueryRejection>,
) -> Answer<Sessions> {
    Ok(Json(Sessions::new(control.sessions(query?.0.read()).await?)))
}

async fn whois<C: Control>(
    State(control): State<Arc<C>>,
    alias: Result<Path<Ipv4Addr>, PathRejection>,
    query: Result<Query<WhoisQuery>, QueryRejection>,
) -> Answer<Clients> {
    Ok(Json(Clients::new(control.whois(alias?.0, query?.0.port).await?)))
}

async fn status<C: Control>(
    State(control): State<Arc<C>>,
) -> Answer<super::documents::StatusDocument> {
    Ok(Json(Document::new(control.status().await?)))
}

async fn drops<C: Control>(State(control): State<Arc<C>>) -> Answer<Drops> {
    Ok(Json(Drops::new(control.drops().await?)))
}

async fn uninstall<C: Control>(
    State(control): State<Arc<C>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Answer<Done> {
    let done = control.uninstall().await;
    peer.log("uninstall", "", done.as_ref().err());
    done?;
    Ok(Json(Done::default()))
}
