//! What the API can do, without saying how: the boundary between the server and the engine.

use std::fmt;
use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ApiError;
use super::types::{
    Added, BanResult, DropView, EventView, PublicationView, SessionState, SessionView,
    SessionsFound, StatusView, WhoisView,
};
use crate::config::Config;
use crate::model::{Ban, BanTime, Banned, Protocol, PublicationSpec, Published};

/// What `rm` is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoveRequest {
    /// The publication with exactly this host address, these ports and this protocol.
    One(Published),
    /// Every publication.
    All,
}

/// Whom `deny add` is to keep out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanRequest {
    /// The clients, or an alias that stands for one.
    pub who: Banned,
    /// For how many seconds; for good where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<BanTime>,
}

/// `2001:db8::5 for 600 s`
impl fmt::Display for BanRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who, seconds } = self;
        match seconds {
            Some(seconds) => write!(f, "{who} for {} s", u64::from(*seconds)),
            None => write!(f, "{who} for good"),
        }
    }
}

/// Which sessions are asked for: those that meet every condition that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Only of this protocol.
    pub protocol: Option<Protocol>,
    /// Only to this published port.
    pub port: Option<u16>,
    /// Only of this client.
    pub client: Option<Ipv6Addr>,
    /// Only those whose client appears as this address.
    pub alias: Option<Ipv4Addr>,
    /// Only in this state.
    pub state: Option<SessionState>,
    /// Only of the publication with this id.
    pub publication: Option<u32>,
    /// No more than so many; [`SessionFilter::DEFAULT_LIMIT`] where nothing is said.
    pub limit: Option<u32>,
}

impl SessionFilter {
    /// How many sessions are told of at once unless more are asked for.
    pub const DEFAULT_LIMIT: u32 = 100_000;

    /// Whether `session` meets every condition.
    pub fn matches(&self, session: &SessionView) -> bool {
        fn fits<T: PartialEq>(wanted: Option<T>, is: T) -> bool {
            wanted.is_none_or(|wanted| wanted == is)
        }
        let Self { protocol, port, client, alias, state, publication, limit: _ } = *self;
        fits(protocol, session.protocol)
            && fits(port, session.host_port)
            && fits(client, session.client)
            && fits(alias, session.alias)
            && fits(state, session.state)
            && fits(publication, session.publication)
    }
}

/// Events as they happen. A reader that is too slow is told how many it has missed.
pub type EventStream = tokio::sync::broadcast::Receiver<Arc<EventView>>;

/// The daemon, as the API server sees it.
///
/// Requests come at the same time; each method sees the effect of those that returned before it.
pub trait Control: Send + Sync + 'static {
    /// Publishes `spec` and keeps it on disk. The same publication again is no error.
    ///
    /// Fails with [`ApiError::taken`] if a port is taken.
    fn add(&self, spec: PublicationSpec) -> impl Future<Output = Result<Added, ApiError>> + Send;

    /// Ends publications and returns what they were. With `kill` their TCP sessions end at once.
    ///
    /// Fails with [`ApiError::not_published`]; [`RemoveRequest::All`] of none is no error.
    fn remove(
        &self,
        which: RemoveRequest,
        kill: bool,
    ) -> impl Future<Output = Result<Vec<PublicationView>, ApiError>> + Send;

    /// Every publication, in any order.
    fn list(&self) -> impl Future<Output = Result<Vec<PublicationView>, ApiError>> + Send;

    /// The sessions that `filter` lets through, in any order, and how many more its limit left out.
    fn sessions(
        &self,
        filter: SessionFilter,
    ) -> impl Future<Output = Result<SessionsFound, ApiError>> + Send;

    /// The clients that appear, or lately appeared, to containers as `alias` (from `port`).
    fn whois(
        &self,
        alias: Ipv4Addr,
        port: Option<u16>,
    ) -> impl Future<Output = Result<Vec<WhoisView>, ApiError>> + Send;

    /// Keeps clients out of every publication, on disk too, and ends their sessions. In place of a ban of
    /// the same clients that is there.
    fn ban(&self, request: BanRequest) -> impl Future<Output = Result<BanResult, ApiError>> + Send;

    /// Ends bans and returns what they were. Fails with [`ApiError::not_banned`].
    fn unban(&self, who: Banned) -> impl Future<Output = Result<Vec<Ban>, ApiError>> + Send;

    /// Every ban, in any order.
    fn bans(&self) -> impl Future<Output = Result<Vec<Ban>, ApiError>> + Send;

    /// The configuration that it runs with, with what was chosen where the file leaves a choice.
    fn config(&self) -> impl Future<Output = Result<Config, ApiError>> + Send;

    /// What happens to sessions from now on.
    fn events(&self) -> impl Future<Output = Result<EventStream, ApiError>> + Send;

    /// The daemon's state.
    fn status(&self) -> impl Future<Output = Result<StatusView, ApiError>> + Send;

    /// Dropped packets, by reason.
    fn drops(&self) -> impl Future<Output = Result<Vec<DropView>, ApiError>> + Send;

    /// Ends everything: publications, sessions, programs and pins. The daemon exits afterwards.
    fn uninstall(&self) -> impl Future<Output = Result<(), ApiError>> + Send;
}
