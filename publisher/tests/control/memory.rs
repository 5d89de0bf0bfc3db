//! A [`Control`] that keeps everything in memory.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use publisher::api::types::*;
use publisher::api::{ApiError, BanRequest, Control, EventStream, RemoveRequest, SessionFilter};
use publisher::config::Config;
use publisher::model::{Ban, Banned, Publication, PublicationSpec, SourceMode, Verdict, conflicts};
use publisher::store::State;
use tokio::sync::broadcast;

/// Publications in memory, and answers for the rest.
#[derive(Default)]
pub struct Memory {
    inner: Mutex<Inner>,
}

/// Hands events to whoever listens.
pub struct Events(pub broadcast::Sender<Arc<EventView>>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(4))
    }
}

impl Events {
    fn subscribe(&self) -> EventStream {
        self.0.subscribe()
    }
}

#[derive(Default)]
pub struct Inner {
    /// Who listens to the session log.
    pub events: Events,
    pub state: State,
    pub sessions: Vec<SessionView>,
    pub clients: Vec<WhoisView>,
    /// Said at every `add`.
    pub warnings: Vec<String>,
    /// The `kill` of each `remove`.
    pub kills: Vec<bool>,
    pub bans: Vec<Ban>,
    pub uninstalled: bool,
    /// How long an `add` takes.
    pub delay: Duration,
    /// An `add` panics.
    pub panics: bool,
    /// Every call fails with this.
    pub broken: Option<ApiError>,
}

impl Memory {
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// The state, unless it is broken.
    fn working(&self) -> Result<MutexGuard<'_, Inner>, ApiError> {
        let inner = self.lock();
        match &inner.broken {
            Some(error) => Err(error.clone()),
            None => Ok(inner),
        }
    }
}

/// Publication 1 has all there is to say about it, others have a target that isn't there.
fn view(publication: &Publication) -> PublicationView {
    let spec = &publication.spec;
    let first = publication.id == 1;
    let text = |text: &str| first.then(|| text.to_owned());
    PublicationView {
        id: publication.id,
        host: spec.host().clone(),
        ports: spec.ports(),
        protocol: spec.protocol(),
        target: spec.target(),
        target_ports: spec.target_ports(),
        source: SourceView {
            requested: spec.source(),
            used: first.then_some(match spec.source() {
                SourceMode::Gateway => Source::Gateway,
                SourceMode::Auto | SourceMode::Alias => Source::Alias,
            }),
            reason: None,
        },
        access: spec.access().clone(),
        limits: spec.limits(),
        path_requested: spec.path(),
        proxy_protocol: spec.proxy_protocol(),
        path: if first { Path::Peer } else { Path::Down },
        path_reason: (!first).then(|| "no route to the target".to_owned()),
        link: text("docker0"),
        veth: text("veth1a2b"),
        sessions: if first { 2 } else { 0 },
        warnings: Vec::new(),
        created: UNIX_EPOCH + Duration::from_secs(1_795_296_025),
    }
}

impl Control for Memory {
    async fn add(&self, spec: PublicationSpec) -> Result<Added, ApiError> {
        let (delay, panics) = {
            let inner = self.lock();
            (inner.delay, inner.panics)
        };
        tokio::time::sleep(delay).await;
        assert!(!panics, "a bug");
        let mut inner = self.working()?;
        let (mut already, mut updated) = (false, false);
        let publication = match conflicts(inner.state.publications(), &spec) {
            Verdict::Already(publication) => {
                already = true;
                publication.clone()
            }
            Verdict::Guarded(publication) => {
                updated = true;
                let id = publication.id;
                inner.state.guard(id, spec).unwrap()
            }
            Verdict::Taken(owner) => return Err(ApiError::taken(&spec, owner)),
            Verdict::Free => inner.state.add(spec).unwrap(),
        };
        let warnings = inner.warnings.clone();
        Ok(Added { publication: view(&publication), already, updated, warnings })
    }

    async fn remove(
        &self,
        which: RemoveRequest,
        kill: bool,
    ) -> Result<Vec<PublicationView>, ApiError> {
        let mut inner = self.working()?;
        inner.kills.push(kill);
        let removed = match which {
            RemoveRequest::All => inner.state.clear(),
            RemoveRequest::One(published) => {
                let found = inner
                    .state
                    .publications()
                    .iter()
                    .find(|publication| *publication.spec.published() == published)
                    .map(|publication| publication.id);
                let id = found.ok_or_else(|| {
                    ApiError::not_published(&published, inner.state.publications())
                })?;
                inner.state.remove(id).into_iter().collect()
            }
        };
        Ok(removed.iter().map(view).collect())
    }

    async fn list(&self) -> Result<Vec<PublicationView>, ApiError> {
        Ok(self.working()?.state.publications().iter().rev().map(view).collect())
    }

    async fn sessions(&self, filter: SessionFilter) -> Result<SessionsFound, ApiError> {
        let inner = self.working()?;
        let limit = filter.limit.unwrap_or(SessionFilter::DEFAULT_LIMIT) as usize;
        let mut sessions: Vec<_> =
            inner.sessions.iter().filter(|session| filter.matches(session)).cloned().collect();
        let left_out = sessions.len().saturating_sub(limit) as u64;
        sessions.truncate(limit);
        Ok(SessionsFound { sessions, left_out })
    }

    async fn whois(&self, alias: Ipv4Addr, port: Option<u16>) -> Result<Vec<WhoisView>, ApiError> {
        let inner = self.working()?;
        let fits = |view: &&WhoisView| view.alias == alias && (port.is_none() || view.port == port);
        Ok(inner.clients.iter().filter(fits).cloned().collect())
    }

    async fn events(&self) -> Result<EventStream, ApiError> {
        Ok(self.working()?.events.subscribe())
    }

    async fn ban(&self, request: BanRequest) -> Result<BanResult, ApiError> {
        let mut inner = self.working()?;
        let BanRequest { who, seconds } = request;
        let (clients, alias, alias_port) = match who {
            Banned::Clients(clients) => (clients, None, None),
            // Every alias is of this client.
            Banned::Alias(alias, port) => ("2001:db8::5".parse().unwrap(), Some(alias), port),
        };
        let created = UNIX_EPOCH + Duration::from_secs(1_795_296_025);
        let until = seconds.map(|seconds| created + seconds.duration());
        let ban = Ban { clients, alias, alias_port, created, until };
        let before = inner.bans.len();
        inner.bans.retain(|there| there.clients != clients);
        let again = inner.bans.len() < before;
        inner.bans.push(ban.clone());
        Ok(BanResult { ban, again, ended: 2 })
    }

    async fn unban(&self, who: Banned) -> Result<Vec<Ban>, ApiError> {
        let mut inner = self.working()?;
        let gone: Vec<_> = inner.bans.extract_if(.., |ban| ban.is_named(&who)).collect();
        if gone.is_empty() {
            return Err(ApiError::not_banned(&who, &inner.bans));
        }
        Ok(gone)
    }

    async fn bans(&self) -> Result<Vec<Ban>, ApiError> {
        Ok(self.working()?.bans.clone())
    }

    async fn config(&self) -> Result<Config, ApiError> {
        drop(self.working()?);
        Ok(Config::default())
    }

    async fn status(&self) -> Result<StatusView, ApiError> {
        let publications = self.working()?.state.publications().len() as u64;
        Ok(StatusView {
            version: "0.1.0".into(),
            layout: 1,
            pid: 4242,
            uptime_seconds: 7440,
            uplinks: vec![UplinkView {
                name: "eth0".into(),
                ifindex: 2,
                mtu: 1500,
                attach: Attach::Tcx,
                ethernet: true,
            }],
            links: vec![LinkView {
                name: "docker0".into(),
                kind: LinkKind::Bridge,
                attach: Attach::Clsact,
            }],
            alias_pool: "198.18.0.0/15".into(),
            publications,
            tables: vec![TableView {
                name: "established".into(),
                used: 1,
                capacity: 4,
                memory_bytes: Some(3 << 20),
            }],
            events: EventsView::default(),
            features: vec![FeatureView {
                name: "tcx".into(),
                available: true,
                means: "programs are attached by links".into(),
            }],
            programs: vec![ProgramView {
                name: "uplink".into(),
                verified_instructions: 12_345,
                run_ns: 900,
                run_count: 3,
            }],
            warnings: vec!["the host's firewall would drop 8080/tcp".into()],
        })
    }

    async fn drops(&self) -> Result<Vec<DropView>, ApiError> {
        drop(self.working()?);
        let drop = |reason: &str, count| DropView {
            reason: reason.into(),
            count,
            meaning: format!("what {reason} means"),
        };
        Ok(vec![drop("fragment", 0), drop("no_session", 3), drop("forged_reply", 7)])
    }

    async fn uninstall(&self) -> Result<(), ApiError> {
        self.working()?.uninstalled = true;
        Ok(())
    }
}
