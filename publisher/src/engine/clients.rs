//! Sessions and the clients behind aliases, as the API asks for them. The tables are read on a thread for
//! blocking work, without the engine's lock; what is kept is what was asked for, and bounded.

use super::events::Ended;
use super::reload::timeouts;
use super::views::state_of;
use super::{Engine, Inner, clock};
use crate::api::types::{SessionPath, SessionView, SessionsFound, WhoisView};
use crate::api::{ApiError, SessionFilter};
use crate::datapath::{DatapathError, Entry};
use crate::model::Protocol;
use publisher_common::layout::Alias;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Clients that `whois` tells of at most.
const CLIENTS: usize = 10_000;

/// Whether a session meets every condition.
fn matches(filter: &SessionFilter, entry: &Entry) -> bool {
    fn fits<T: PartialEq>(wanted: Option<T>, is: T) -> bool {
        wanted.is_none_or(|wanted| wanted == is)
    }
    let SessionFilter { protocol, port, client, alias, state, publication, limit: _ } = *filter;
    let Entry { forward, reply, session, class, .. } = entry;
    fits(protocol.map(Protocol::number), reply.protocol)
        && fits(port.map(u16::to_be_bytes), forward.host_port)
        && fits(client.map(|client| client.octets()), forward.client)
        && fits(alias.map(|alias| alias.octets()), reply.alias)
        && fits(publication, session.publication.index)
        && fits(state, state_of(session.state, *class))
}

impl Engine {
    /// Calls `take` with the sessions that `wants` asks for, on a thread for blocking work.
    async fn each_session<T: Send + 'static>(
        &self,
        mut found: T,
        wants: impl Fn(&Entry) -> bool + Send + 'static,
        take: impl Fn(&mut T, Entry, SessionPath) + Send + 'static,
    ) -> Result<T, ApiError> {
        let (sessions, timeouts) = (self.sessions.clone(), timeouts(&self.config()));
        let proxy = self.proxy.clone();
        let read = move || {
            for entry in proxy.sessions().into_iter().filter(|entry| wants(entry)) {
                take(&mut found, entry, SessionPath::Proxy);
            }
            let take = |entry| take(&mut found, entry, SessionPath::Kernel);
            let entries = sessions.each(clock::now(), &timeouts, wants, take);
            entries.map(|()| found)
        };
        let done: Result<T, DatapathError> = tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| ApiError::failed(format!("reading sessions broke off: {error}")))?;
        Ok(done?)
    }

    /// The sessions that a filter lets through, up to its limit.
    pub(super) async fn sessions_of(
        &self,
        filter: SessionFilter,
    ) -> Result<SessionsFound, ApiError> {
        if self.inner.lock().await.datapath.is_none() {
            return Ok(SessionsFound::default());
        }
        let limit = filter.limit.unwrap_or(SessionFilter::DEFAULT_LIMIT) as usize;
        let wanted = move |entry: &Entry| matches(&filter, entry);
        let keep = move |(entries, left_out): &mut (Vec<_>, u64), entry, path| {
            if entries.len() < limit { entries.push((entry, path)) } else { *left_out += 1 }
        };
        let (entries, left_out) = self.each_session((Vec::new(), 0), wanted, keep).await?;
        let inner = self.inner.lock().await;
        let view = |(entry, path): &(Entry, SessionPath)| inner.session(entry, *path);
        let sessions: Vec<SessionView> = entries.iter().map(view).collect();
        Ok(SessionsFound { sessions, left_out })
    }

    /// Who is, or was of late, behind an alias.
    pub(super) async fn clients_of(
        &self,
        alias: Ipv4Addr,
        port: Option<u16>,
    ) -> Result<Vec<WhoisView>, ApiError> {
        if self.inner.lock().await.datapath.is_none() {
            return Ok(Vec::new());
        }
        let (octets, wanted_port) = (alias.octets(), port.map(u16::to_be_bytes));
        let wants = move |entry: &Entry| {
            entry.reply.alias == octets
                && wanted_port.is_none_or(|port| port == entry.reply.alias_port)
        };
        let bound = self.sessions.alias(octets);
        let found = self
            .each_session(BTreeMap::new(), wants, move |found: &mut Clients, entry, _| {
                let Entry { forward, session, .. } = entry;
                let client_port = wanted_port.map(|_| u16::from_be_bytes(forward.client_port));
                let key = (forward.client, forward.scope, client_port);
                if found.len() < CLIENTS || found.contains_key(&key) {
                    let (since, count) = found.entry(key).or_insert((session.created, 0));
                    *count += 1;
                    if clock::seconds_since(session.created, *since) > 0 {
                        *since = session.created;
                    }
                }
            })
            .await?;
        let inner = self.inner.lock().await;
        Ok(inner.whois(alias, port, found, bound, self.events.history(alias, port)))
    }
}

/// Since when and how many sessions, by client, scope and port.
type Clients = BTreeMap<([u8; 16], u32, Option<u16>), (u32, u64)>;

impl Inner {
    fn whois(
        &self,
        alias: Ipv4Addr,
        port: Option<u16>,
        found: Clients,
        bound: Option<Alias>,
        past: Vec<Ended>,
    ) -> Vec<WhoisView> {
        let view = |client: [u8; 16], scope, client_port, since, sessions| WhoisView {
            alias,
            port,
            client: client.into(),
            prefix_length: None,
            client_port,
            scope: (scope != 0).then(|| self.interface(scope)),
            since: Some(clock::time_of_day(since)),
            ended: None,
            sessions,
        };
        // The binding tells since when, and of a client without sessions.
        let mut ended = BTreeMap::new();
        for it in past {
            let key = (it.client, it.scope, port.map(|_| u16::from_be_bytes(it.client_port)));
            if !found.contains_key(&key) && ended.len() < CLIENTS {
                // The newest comes first and stays.
                ended.entry(key).or_insert((it.created, it.at));
            }
        }
        if found.is_empty()
            && ended.is_empty()
            && let Some(bound) = bound
        {
            let nobody = view(bound.client, bound.scope, None, bound.created, 0);
            let prefix_length = (bound.whole_prefix != 0).then_some(64);
            return vec![WhoisView { prefix_length, ..nobody }];
        }
        let views = found.into_iter().map(|((client, scope, client_port), (since, sessions))| {
            let its_own = bound.filter(|bound| (bound.client, bound.scope) == (client, scope));
            let since = its_own.map_or(since, |bound| bound.created);
            view(client, scope, client_port, since, sessions)
        });
        let mut left: Vec<_> = ended
            .into_iter()
            .map(|((client, scope, client_port), (since, at))| WhoisView {
                ended: Some(clock::time_of_day(at)),
                ..view(client, scope, client_port, since, 0)
            })
            .collect();
        left.sort_by_key(|view| Reverse(view.ended));
        views.chain(left).collect()
    }
}
