//! Bans: clients that are kept out of every publication.

use super::control::{room_for_rules, uninstalled};
use super::drain::Asked;
use super::{Engine, Inner, clock};
use crate::api::types::{BanResult, CloseReason};
use crate::api::{ApiError, BanRequest, ErrorCode};
use crate::model::{Ban, Banned, ClientPrefix, timestamp};
use crate::plan::ban_key;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::SystemTime;
use tracing::info;

/// Clients that an error names.
const NAMED: usize = 5;

/// The bans that hold, and when each ends by the clock of the datapath (0: never). That is worked out
/// once, so that a clock that is set doesn't end them.
#[derive(Clone, Debug, Default)]
pub(super) struct Bans {
    list: Vec<Ban>,
    ends: BTreeMap<ClientPrefix, u32>,
}

impl Bans {
    /// These bans, one for each prefix.
    pub fn new(list: Vec<Ban>) -> Self {
        let mut bans = Self::default();
        for ban in list {
            bans.put(ban);
        }
        bans
    }

    pub fn list(&self) -> &[Ban] {
        &self.list
    }

    pub const fn ends(&self) -> &BTreeMap<ClientPrefix, u32> {
        &self.ends
    }

    /// Adds a ban in place of one of the same clients; says whether there was one.
    fn put(&mut self, mut ban: Ban) -> bool {
        let left = ban.until.map(|until| until.duration_since(SystemTime::now()));
        let end = left.map_or(0, |left| {
            // Not over before its time, although the clock leaves out a fraction. 0 would have no end.
            let seconds = left.map_or(0, |left| left.as_millis().div_ceil(1000) as u32 + 1);
            clock::now().wrapping_add(seconds).max(1)
        });
        self.ends.insert(ban.clients, end);
        let Some(there) = self.list.iter_mut().find(|there| there.clients == ban.clients) else {
            self.list.push(ban);
            return false;
        };
        // It stays known by the alias that it was made by.
        if ban.alias.is_none() {
            (ban.alias, ban.alias_port) = (there.alias, there.alias_port);
        }
        *there = ban;
        true
    }

    /// Takes out the bans that `goes` says go.
    fn take(&mut self, goes: impl Fn(&Ban) -> bool) -> Vec<Ban> {
        let taken: Vec<_> = self.list.extract_if(.., |ban| goes(ban)).collect();
        for ban in &taken {
            self.ends.remove(&ban.clients);
        }
        taken
    }

    /// Whether one of them has had its time.
    fn has_ended(&self, now: u32) -> bool {
        self.ends.values().any(|end| is_over(*end, now))
    }

    fn take_ended(&mut self, now: u32) -> Vec<Ban> {
        let ends = self.ends.clone();
        self.take(|ban| ends.get(&ban.clients).is_some_and(|end| is_over(*end, now)))
    }
}

fn is_over(end: u32, now: u32) -> bool {
    end != 0 && (end == now || clock::seconds_since(end, now) > 0)
}

impl Engine {
    /// Bans clients and ends their sessions.
    pub(super) async fn ban(&self, request: BanRequest) -> Result<BanResult, ApiError> {
        let BanRequest { who, seconds } = request;
        let clients = self.clients_named(who).await?;
        let mut inner = self.inner.lock().await;
        if inner.datapath.is_none() {
            return Err(uninstalled());
        }
        let (alias, alias_port) = match who {
            Banned::Clients(_) => (None, None),
            Banned::Alias(alias, port) => (Some(alias), port),
        };
        let created = timestamp::now();
        let until = seconds.map(|seconds| SystemTime::now() + seconds.duration());
        let ban = Ban { clients, alias, alias_port, created, until };
        let mut next = inner.bans.clone();
        let again = next.put(ban);
        room_for_rules(inner.state.publications(), next.list.len())?;
        inner.change_bans(self, next)?;
        let (bits, key) = ban_key(clients);
        if !inner.applied.access.contains_key(&(bits, key)) {
            let why = inner.failures.last().cloned().unwrap_or_default();
            return Err(ApiError::failed(format!("can't write the ban of {clients}: {why}")));
        }
        let found = inner.bans.list.iter().find(|ban| ban.clients == clients).cloned();
        drop(inner);
        let proxied = self.proxy.end(|entry| {
            clients.contains(entry.forward.client.into()).then_some(CloseReason::Denied)
        });
        let ended = self.end_sessions(Asked { denied: vec![clients], ..Asked::default() }).await;
        let ended = ended + proxied;
        let ban = found.ok_or_else(|| ApiError::failed("the ban ended at the same moment"))?;
        info!("denied {ban}, {ended} sessions ended");
        Ok(BanResult { ban, again, ended })
    }

    /// Ends bans by the name that they were made by, or by their clients.
    pub(super) async fn unban(&self, who: Banned) -> Result<Vec<Ban>, ApiError> {
        let named = self.clients_named(who).await;
        let mut inner = self.inner.lock().await;
        if inner.datapath.is_none() {
            return Err(uninstalled());
        }
        let mut next = inner.bans.clone();
        let mut gone = next.take(|ban| ban.is_named(&who));
        if gone.is_empty()
            && let Banned::Alias(..) = who
            && let Ok(clients) = named
        {
            gone = next.take(|ban| ban.clients == clients);
        }
        if gone.is_empty() {
            return Err(ApiError::not_banned(&who, inner.bans.list()));
        }
        inner.change_bans(self, next)?;
        for ban in &gone {
            info!("no longer denied {ban}");
        }
        Ok(gone)
    }

    /// The clients that a name stands for: those who have the alias now, or else who had it last.
    async fn clients_named(&self, who: Banned) -> Result<ClientPrefix, ApiError> {
        let (alias, port) = match who {
            Banned::Clients(clients) => return Ok(clients),
            Banned::Alias(alias, port) => (alias, port),
        };
        let mut found = self.clients_of(alias, port).await?;
        if found.iter().any(|view| view.ended.is_none()) {
            found.retain(|view| view.ended.is_none());
        }
        let clients: BTreeSet<Ipv6Addr> = found.into_iter().map(|view| view.client).collect();
        let Some(first) = clients.first().copied() else {
            return Err(ApiError::new(
                ErrorCode::NotFound,
                format!("no client is known behind {who}"),
            )
            .with_hint("publisherctl sessions shows the aliases in use"));
        };
        let network = ClientPrefix::of(first, 64);
        let is_of_network =
            self.sessions.alias(alias.octets()).is_some_and(|alias| alias.whole_prefix != 0);
        if port.is_none() && is_of_network && clients.iter().all(|client| network.contains(*client))
        {
            return Ok(network);
        }
        if clients.len() == 1 {
            return Ok(ClientPrefix::of(first, 128));
        }
        let mut names: Vec<_> = clients.iter().take(NAMED).map(ToString::to_string).collect();
        if clients.len() > NAMED {
            names.push(format!("{} more", clients.len() - NAMED));
        }
        Err(ApiError::new(
            ErrorCode::Conflict,
            format!("{} clients are behind {who}: {}", clients.len(), names.join(", ")),
        )
        .with_hint(format!("name {alias}:PORT as the container sees it, or the client's address")))
    }

    /// Takes bans away that have had their time.
    pub(super) async fn expire_bans(&self) {
        let mut inner = self.inner.lock().await;
        let now = clock::now();
        if !inner.bans.has_ended(now) {
            return;
        }
        let mut next = inner.bans.clone();
        let ended = next.take_ended(now);
        if let Err(error) = inner.change_bans(self, next) {
            inner.fail(format!("can't end bans: {error}"));
            return;
        }
        for ban in ended {
            info!("the ban of {ban} has ended");
        }
    }
}

impl Inner {
    /// Keeps `next` on disk and in the datapath.
    fn change_bans(&mut self, engine: &Engine, next: Bans) -> Result<(), ApiError> {
        self.store.save_bans(next.list())?;
        self.bans = next;
        engine.proxy.set_bans(self.bans.list().iter().map(|ban| ban.clients).collect());
        self.apply(engine);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn ban(clients: &str, seconds: Option<u64>) -> Ban {
        let created = timestamp::now();
        let until = seconds.map(|seconds| SystemTime::now() + Duration::from_secs(seconds));
        Ban { clients: clients.parse().unwrap(), alias: None, alias_port: None, created, until }
    }

    #[test]
    fn a_ban_again_takes_the_place_of_the_one_before() {
        let mut bans = Bans::new(vec![ban("::1", Some(100)), ban("::2", None)]);
        assert!(bans.put(ban("::1", None)));
        assert!(!bans.put(ban("::3", Some(5))));
        assert_eq!(bans.list().len(), 3);
        assert_eq!(bans.ends()[&"::1".parse().unwrap()], 0);
        assert!(bans.ends()[&"::3".parse().unwrap()] >= clock::now() + 4);
    }

    #[test]
    fn the_alias_that_a_ban_was_made_by_stays_known() {
        let alias = Some(Ipv4Addr::new(198, 18, 0, 4));
        let mut bans = Bans::new(vec![Ban { alias, alias_port: Some(9), ..ban("::1", Some(100)) }]);
        bans.put(ban("::1", None));
        assert_eq!((bans.list()[0].alias, bans.list()[0].alias_port), (alias, Some(9)));
        assert_eq!(bans.list()[0].until, None);
    }

    #[test]
    fn what_has_ended_goes_and_nothing_else() {
        let mut bans =
            Bans::new(vec![ban("::1", Some(2)), ban("::2", None), ban("::3", Some(900))]);
        assert_eq!(bans.take_ended(clock::now()), []);
        let ended = bans.take_ended(clock::now() + 4);
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0].clients, "::1".parse().unwrap());
        assert_eq!((bans.list().len(), bans.ends().len()), (2, 2));
    }
}
