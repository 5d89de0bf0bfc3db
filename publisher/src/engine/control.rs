//! The API's requests.

use super::{Engine, Inner, clock, drain};
use crate::api::types::{Added, DropView, PublicationView, SessionsFound, StatusView, WhoisView};
use crate::api::{ApiError, Control, EventStream, RemoveRequest, SessionFilter};
use crate::datapath::DatapathError;
use crate::lane;
use crate::model::{PublicationSpec, Verdict, conflicts};
use crate::plan::Draining;
use crate::store::StoreError;
use crate::topology::reserved_ports::PortSet;
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

fn uninstalled() -> ApiError {
    ApiError::failed("this publisherd has been uninstalled and is about to exit")
}

impl Engine {
    /// Keeps a publication on disk; says whether it was there before.
    async fn keep(&self, spec: PublicationSpec) -> Result<(u32, bool), ApiError> {
        let mut inner = self.inner.lock().await;
        let Inner { datapath, state, store, .. } = &mut *inner;
        if datapath.is_none() {
            return Err(uninstalled());
        }
        match conflicts(state.publications(), &spec) {
            Verdict::Already(publication) => return Ok((publication.id, true)),
            Verdict::Taken(owner) => return Err(ApiError::taken(&spec, owner)),
            Verdict::Free => {}
        }
        let mut next = state.clone();
        let publication = next.add(spec)?;
        store.save(&next)?;
        *state = next;
        info!("published {publication}");
        Ok((publication.id, false))
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
        let until = clock::now().wrapping_add(self.config.drain.as_secs() as u32);
        let sessions = self.sessions.clone();
        let collect = move || drain::collect(&sessions, &kept, &known, until);
        let done = tokio::task::spawn_blocking(collect)
            .await
            .map_err(|error| ApiError::failed(format!("reading sessions broke off: {error}")))?;
        Ok(done?)
    }

    /// Established sessions by publication.
    fn session_counts(&self) -> HashMap<u32, u64> {
        self.sessions.uses().unwrap_or_default()
    }
}

impl Control for Engine {
    async fn add(&self, spec: PublicationSpec) -> Result<Added, ApiError> {
        let (id, already) = self.keep(spec).await?;
        if !already {
            self.look_at_firewall().await;
        }
        self.reconcile().await;
        let sessions = self.session_counts().get(&id).copied().unwrap_or(0);
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
        warnings.extend(inner.firewall_warnings(self));
        warnings.extend(inner.failures.iter().cloned());
        Ok(Added { publication: view, already, warnings })
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
        let counts = self.session_counts();
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
        drop(removing);
        self.end_sessions(if kill { gone } else { BTreeSet::new() }).await;
        self.reconcile().await;
        Ok(views)
    }

    async fn list(&self) -> Result<Vec<PublicationView>, ApiError> {
        let counts = self.session_counts();
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

    async fn status(&self) -> Result<StatusView, ApiError> {
        Ok(self.inner.lock().await.status(self))
    }

    async fn drops(&self) -> Result<Vec<DropView>, ApiError> {
        Ok(self.inner.lock().await.drops()?)
    }

    async fn uninstall(&self) -> Result<(), ApiError> {
        let _one = self.reconciling.lock().await;
        let mut inner = self.inner.lock().await;
        let datapath = inner.datapath.take().ok_or_else(uninstalled)?;
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
