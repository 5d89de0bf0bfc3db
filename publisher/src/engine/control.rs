//! The API's requests.

use super::{Engine, Inner, clock, drain};
use crate::api::types::{
    Added, BanResult, CloseReason, DropView, PublicationView, SessionsFound, StatusView, WhoisView,
};
use crate::api::{ApiError, BanRequest, Control, EventStream, RemoveRequest, SessionFilter};
use crate::config::Config;
use crate::datapath::DatapathError;
use crate::lane;
use crate::model::{
    Access, Ban, Banned, PathMode, Publication, PublicationSpec, Verdict, conflicts,
};
use crate::plan::{Draining, count_rules, is_held};
use crate::proxy::Unheld;
use crate::store::StoreError;
use crate::topology::reserved_ports::PortSet;
use publisher_common::layout;
use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use tracing::info;

impl From<DatapathError> for ApiError {
    fn from(error: DatapathError) -> Self {
        Self { hint: error.hint(), ..Self::failed(error.to_string()) }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self { hint: error.hint(), ..Self::failed(error.to_string()) }
    }
}

pub(super) fn uninstalled() -> ApiError {
    ApiError::failed("this publisherd has been uninstalled and is about to exit")
}

/// What was there before an `add`.
enum Before {
    /// Nothing.
    Nothing,
    /// The same.
    Same,
    /// The same for other clients, or within other limits.
    Guarded {
        /// Who could connect.
        access: Access,
    },
}

/// Refuses more access rules than the datapath has room for.
pub(super) fn room_for_rules(publications: &[Publication], bans: usize) -> Result<(), ApiError> {
    let specs = publications.iter().map(|publication| &publication.spec);
    let count = count_rules(specs) + bans;
    if count > layout::RULES as usize {
        return Err(ApiError::failed(format!(
            "there is no room for {count} access rules: all publications and bans together can have {}",
            layout::RULES
        ))
        .with_hint("allow or deny shorter prefixes that cover several"));
    }
    Ok(())
}

impl Engine {
    /// Keeps a publication on disk; says what was there before.
    async fn keep(&self, spec: PublicationSpec) -> Result<(u32, Before), ApiError> {
        let mut inner = self.inner.lock().await;
        let Inner { datapath, state, bans, .. } = &*inner;
        if datapath.is_none() {
            return Err(uninstalled());
        }
        let mut next = state.clone();
        let mut was_held = false;
        let (id, before) = match conflicts(state.publications(), &spec) {
            Verdict::Already(publication) => return Ok((publication.id, Before::Same)),
            Verdict::Taken(owner) => return Err(ApiError::taken(&spec, owner)),
            Verdict::Guarded(publication) => {
                was_held = is_held(&publication.spec);
                let before = Before::Guarded { access: publication.spec.access().clone() };
                next.guard(publication.id, spec);
                (publication.id, before)
            }
            Verdict::Free => (next.add(spec)?.id, Before::Nothing),
        };
        room_for_rules(next.publications(), bans.list().len())?;
        let added = next.publications().iter().find(|it| it.id == id).cloned();
        if let Some(publication) = added.as_ref().filter(|it| is_held(&it.spec)) {
            let is_new = !was_held;
            let must = is_new && publication.spec.path() == PathMode::Proxy;
            match inner.hold(self, publication) {
                Ok(()) => {}
                Err(Unheld::Occupied(occupied)) if is_new => {
                    inner.look_at_proxy(self);
                    return Err(ApiError::occupied(&occupied));
                }
                Err(error) if must => {
                    inner.look_at_proxy(self);
                    return Err(ApiError::failed(error.to_string()));
                }
                // The kernel path serves meanwhile.
                Err(_) => {}
            }
        }
        if let Err(error) = inner.store.save(&next) {
            inner.look_at_proxy(self);
            return Err(error.into());
        }
        inner.state = next;
        if let Some(publication) = added {
            info!("published {publication}");
        }
        Ok((id, before))
    }

    /// Which publications `rm` means, and which it leaves.
    async fn chosen(
        &self,
        which: RemoveRequest,
    ) -> Result<(BTreeSet<u32>, BTreeSet<u32>), ApiError> {
        let inner = self.inner.lock().await;
        if inner.datapath.is_none() {
            return Err(uninstalled());
        }
        let all = inner.state.publications();
        let gone = match which {
            RemoveRequest::All => drain::ids(all),
            RemoveRequest::One(published) => {
                let found = all.iter().find(|other| *other.spec.published() == published);
                let found = found.ok_or_else(|| ApiError::not_published(&published, all))?;
                BTreeSet::from([found.id])
            }
        };
        let kept = drain::ids(all).difference(&gone).copied().collect();
        Ok((gone, kept))
    }

    /// Takes note of the TCP sessions of publications that aren't kept, so that they may go on.
    async fn collect_draining(&self, kept: BTreeSet<u32>) -> Result<Vec<Draining>, ApiError> {
        let known = self.inner.lock().await.draining.clone();
        let until = clock::now().wrapping_add(self.config().drain.as_secs() as u32);
        let sessions = self.sessions.clone();
        let collect = move || drain::collect(&sessions, &kept, &known, until);
        let done = tokio::task::spawn_blocking(collect)
            .await
            .map_err(|error| ApiError::failed(format!("reading sessions broke off: {error}")))?;
        Ok(done?)
    }

    /// Established sessions by publication.
    pub(super) fn session_counts(&self) -> HashMap<u32, u64> {
        self.sessions.uses().unwrap_or_default()
    }

    /// Sessions by publication, those of the proxy among them.
    fn all_session_counts(&self) -> HashMap<u32, u64> {
        let mut counts = self.session_counts();
        for (id, count) in self.proxy.counts() {
            *counts.entry(id).or_default() += count;
        }
        counts
    }
}

impl Control for Engine {
    async fn add(&self, spec: PublicationSpec) -> Result<Added, ApiError> {
        let (id, before) = self.keep(spec).await?;
        if matches!(before, Before::Nothing) {
            self.look_at_firewall().await;
        }
        self.reconcile().await;
        let sessions = self.all_session_counts().get(&id).copied().unwrap_or(0);
        let inner = self.inner.lock().await;
        let publication =
            inner.state.publications().iter().find(|publication| publication.id == id);
        let view = match publication {
            Some(publication) => inner.publication(publication, sessions),
            None => return Err(ApiError::failed("the publication was removed at the same moment")),
        };
        let mut warnings = view.warnings.clone();
        if let Some(reason) = &view.path_reason
            && view.link.is_none()
        {
            warnings.push(format!("the target can't be reached now: {reason}"));
        }
        if let Before::Guarded { access } = &before
            && !access.is_open()
            && view.access.is_open()
        {
            warnings.push(format!("every client is let in now: before, there was {access}"));
        }
        warnings.extend(inner.firewall_warnings(self));
        warnings.extend(inner.failures.iter().cloned());
        Ok(Added {
            publication: view,
            already: matches!(before, Before::Same),
            updated: matches!(before, Before::Guarded { .. }),
            warnings,
        })
    }

    async fn remove(
        &self,
        which: RemoveRequest,
        kill: bool,
    ) -> Result<Vec<PublicationView>, ApiError> {
        let removing = self.reconciling.lock().await;
        let (gone, kept) = self.chosen(which).await?;
        // Those that may drain are known before their ports stop being published: in between, their
        // packets would be the host's, which resets them. The rest ends once none can be opened.
        let draining = if kill { None } else { Some(self.collect_draining(kept).await?) };
        let counts = self.all_session_counts();
        let views: Vec<_> = {
            let mut inner = self.inner.lock().await;
            if inner.datapath.is_none() {
                return Err(uninstalled());
            }
            let mut next = inner.state.clone();
            let removed: Vec<_> = gone.iter().filter_map(|id| next.remove(*id)).collect();
            let count = |id| counts.get(&id).copied().unwrap_or(0);
            let views =
                removed.iter().map(|gone| inner.publication(gone, count(gone.id))).collect();
            inner.store.save(&next)?;
            inner.state = next;
            for publication in &removed {
                info!("removed {publication}");
            }
            if let Some(draining) = draining {
                inner.draining = draining;
            }
            inner.apply(self);
            views
        };
        self.end_proxied(&gone, kill);
        drop(removing);
        let killed = if kill { gone } else { BTreeSet::new() };
        self.end_sessions(drain::Asked { killed, ..drain::Asked::default() }).await;
        self.reconcile().await;
        Ok(views)
    }

    async fn list(&self) -> Result<Vec<PublicationView>, ApiError> {
        let counts = self.all_session_counts();
        let inner = self.inner.lock().await;
        let count = |id| counts.get(&id).copied().unwrap_or(0);
        let all = inner.state.publications().iter();
        Ok(all.map(|publication| inner.publication(publication, count(publication.id))).collect())
    }

    async fn sessions(&self, filter: SessionFilter) -> Result<SessionsFound, ApiError> {
        self.sessions_of(filter).await
    }

    async fn whois(&self, alias: Ipv4Addr, port: Option<u16>) -> Result<Vec<WhoisView>, ApiError> {
        self.clients_of(alias, port).await
    }

    async fn events(&self) -> Result<EventStream, ApiError> {
        Ok(self.events.subscribe())
    }

    async fn ban(&self, request: BanRequest) -> Result<BanResult, ApiError> {
        Self::ban(self, request).await
    }

    async fn unban(&self, who: Banned) -> Result<Vec<Ban>, ApiError> {
        Self::unban(self, who).await
    }

    async fn bans(&self) -> Result<Vec<Ban>, ApiError> {
        Ok(self.inner.lock().await.bans.list().to_vec())
    }

    async fn config(&self) -> Result<Config, ApiError> {
        Ok(self.effective_config())
    }

    async fn status(&self) -> Result<StatusView, ApiError> {
        Ok(self.inner.lock().await.status(self))
    }

    async fn drops(&self) -> Result<Vec<DropView>, ApiError> {
        Ok(self.inner.lock().await.drops(self)?)
    }

    async fn uninstall(&self) -> Result<(), ApiError> {
        let _one = self.reconciling.lock().await;
        let mut inner = self.inner.lock().await;
        let datapath = inner.datapath.take().ok_or_else(uninstalled)?;
        self.proxy.keep(|_| false);
        self.proxy.end(|_| Some(CloseReason::Killed));
        datapath.uninstall()?;
        lane::close(&inner.snapshot.links).map_err(|error| {
            ApiError::failed(format!("can't remove the interface {}: {error}", lane::ENTRY))
        })?;
        inner.reserved.update(&PortSet::default()).map_err(|error| {
            ApiError::failed(format!("can't give reserved ports back: {error}"))
        })?;
        info!("uninstalled");
        self.exit.notify_one();
        Ok(())
    }
}
