//! The client: one connection for each request, on the daemon's unix socket.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::documents::{
    AddedDocument, Bans, Clients, ConfigDocument, Document, Done, Drops, ErrorDocument,
    Publications, Sessions, StatusDocument,
};
use super::query::{BanQuery, RemoveQuery, SessionQuery, WhoisQuery};
use super::types::{
    Added, BanResult, DropView, PublicationView, SessionsFound, StatusView, WhoisView,
};
use super::{ApiError, BanRequest, EventReader, RemoveRequest, SessionFilter};
use crate::config::Config;
use crate::model::{Ban, Banned, PublicationSpec};

/// How long an answer may take. `uninstall` and `rm --all` of thousands are the slowest.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no answer, or none that helps.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no publisherd answers on {}: {why}", .socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// In a few words.
        why: String,
    },
    /// The socket is there and not for us.
    #[error("not allowed to use {}", .0.display())]
    Permission(PathBuf),
    /// The daemon answered that it can't, or won't.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// What came back is no answer.
    #[error("publisherd on {} gave no usable answer: {why}", .socket.display())]
    Garbled {
        /// The socket.
        socket: PathBuf,
        /// In a few words.
        why: String,
    },
}

impl ClientError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } => Some(
                "systemctl start publisherd, or run publisherd; -H names another socket".into(),
            ),
            Self::Permission(_) => {
                Some("use sudo, or become a member of the group publisher".into())
            }
            Self::Api(error) => error.hint.clone(),
            Self::Garbled { .. } => {
                Some("publisherctl and publisherd should have the same version".into())
            }
        }
    }
}

/// A daemon, by its socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The daemon on `socket`. Connects at the first request only.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Publishes `spec`.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as for every call here.
    pub async fn add(&self, spec: &PublicationSpec) -> Result<Added, ClientError> {
        let body = serde_json::to_vec(spec).map_err(|error| self.garbled(&error))?;
        let document: AddedDocument =
            self.call(Method::POST, "/v1/publications".into(), body).await?;
        Ok(document.content)
    }

    /// Ends publications, with `kill` their sessions too; says what they were.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn remove(
        &self,
        which: &RemoveRequest,
        kill: bool,
    ) -> Result<Vec<PublicationView>, ClientError> {
        let uri = format!("/v1/publications{}", RemoveQuery::write(which, kill));
        let document: Publications = self.call(Method::DELETE, uri, Vec::new()).await?;
        Ok(document.publications)
    }

    /// Every publication.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn list(&self) -> Result<Vec<PublicationView>, ClientError> {
        Ok(self.get::<Publications>("/v1/publications".into()).await?.publications)
    }

    /// The sessions that `filter` lets through, and how many its limit left out.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn sessions(&self, filter: &SessionFilter) -> Result<SessionsFound, ClientError> {
        let uri = format!("/v1/sessions{}", SessionQuery::write(filter));
        Ok(self.get::<Sessions>(uri).await?.content)
    }

    /// The clients behind `alias`.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn whois(
        &self,
        alias: Ipv4Addr,
        port: Option<u16>,
    ) -> Result<Vec<WhoisView>, ClientError> {
        let uri = format!("/v1/whois/{alias}{}", WhoisQuery::write(port));
        Ok(self.get::<Clients>(uri).await?.clients)
    }

    /// Keeps clients out.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn ban(&self, request: &BanRequest) -> Result<BanResult, ClientError> {
        let body = serde_json::to_vec(request).map_err(|error| self.garbled(&error))?;
        let document: Document<BanResult> =
            self.call(Method::POST, "/v1/bans".into(), body).await?;
        Ok(document.content)
    }

    /// Lets them in again; says which bans have ended.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn unban(&self, who: Banned) -> Result<Vec<Ban>, ClientError> {
        let uri = format!("/v1/bans{}", BanQuery::write(who));
        Ok(self.call::<Bans>(Method::DELETE, uri, Vec::new()).await?.bans)
    }

    /// Every ban.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn bans(&self) -> Result<Vec<Ban>, ClientError> {
        Ok(self.get::<Bans>("/v1/bans".into()).await?.bans)
    }

    /// The configuration that the daemon runs with.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn config(&self) -> Result<Config, ClientError> {
        Ok(self.get::<ConfigDocument>("/v1/config".into()).await?.config)
    }

    /// Events from now on.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn events(&self) -> Result<EventReader, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unreachable(&e))?;
        let request = Request::builder()
            .uri("/v1/events")
            .header(header::HOST, "publisherd")
            .body(Full::new(Bytes::new()))
            .map_err(|error| self.garbled(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.garbled(&error))?;
        // It makes progress only while it is polled; it ends with the body.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| self.garbled(&error))?;
        if response.status().is_success() {
            return Ok(EventReader::new(response.into_body()));
        }
        let body = response.into_body().collect().await.map_err(|error| self.garbled(&error))?;
        match serde_json::from_slice::<ErrorDocument>(&body.to_bytes()) {
            Ok(document) => Err(document.error.into()),
            Err(error) => Err(self.garbled(&error)),
        }
    }

    /// What to say of events that have come to their end, by themselves or by `garbled` ones.
    pub fn events_ended(&self, garbled: Option<String>) -> ClientError {
        let socket = self.socket.clone();
        match garbled {
            Some(why) => ClientError::Garbled { socket, why },
            None => ClientError::Unreachable { socket, why: "it has ended".into() },
        }
    }

    /// The daemon's state.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn status(&self) -> Result<StatusView, ClientError> {
        Ok(self.get::<StatusDocument>("/v1/status".into()).await?.content)
    }

    /// Dropped packets, by reason.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn drops(&self) -> Result<Vec<DropView>, ClientError> {
        Ok(self.get::<Drops>("/v1/drops".into()).await?.drops)
    }

    /// Ends everything; the daemon exits afterwards.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn uninstall(&self) -> Result<(), ClientError> {
        let Done { schema: _ } =
            self.call(Method::POST, "/v1/uninstall".into(), Vec::new()).await?;
        Ok(())
    }

    async fn get<T: DeserializeOwned>(&self, uri: String) -> Result<T, ClientError> {
        self.call(Method::GET, uri, Vec::new()).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        uri: String,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unreachable(&e))?;
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::HOST, "publisherd")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.garbled(&error))?;
        match tokio::time::timeout(PATIENCE, exchange(stream, request)).await {
            Err(_) => Err(ClientError::Unreachable {
                socket: self.socket.clone(),
                why: format!("silent for {} s", PATIENCE.as_secs()),
            }),
            Ok(Err(error)) => Err(self.garbled(&error)),
            Ok(Ok((true, body))) => {
                serde_json::from_slice(&body).map_err(|error| self.garbled(&error))
            }
            Ok(Ok((false, body))) => match serde_json::from_slice::<ErrorDocument>(&body) {
                Ok(document) => Err(document.error.into()),
                Err(error) => Err(self.garbled(&error)),
            },
        }
    }

    fn unreachable(&self, error: &io::Error) -> ClientError {
        let socket = self.socket.clone();
        let why = match error.kind() {
            io::ErrorKind::PermissionDenied => return ClientError::Permission(socket),
            io::ErrorKind::NotFound => "there is no such socket".to_owned(),
            io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
            _ => error.to_string(),
        };
        ClientError::Unreachable { socket, why }
    }

    fn garbled(&self, error: &dyn std::error::Error) -> ClientError {
        ClientError::Garbled { socket: self.socket.clone(), why: error.to_string() }
    }
}

/// Sends `request` and reads the whole answer: whether it is a success, and its body.
async fn exchange(
    stream: UnixStream,
    request: Request<Full<Bytes>>,
) -> Result<(bool, Bytes), hyper::Error> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let success = response.status().is_success();
        Ok((success, response.into_body().collect().await?.to_bytes()))
    };
    // The connection makes progress only while it is polled, and ends once `sender` is dropped.
    let (answer, _closed) = tokio::join!(exchange, connection);
    answer
}
