//! A daemon without a kernel: the real API server on a real socket, before a [`Control`] that keeps
//! everything in memory, and the real `publisherctl` to talk to it.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};

use publisher::api::types::*;
use publisher::api::{
    self, ApiError, BanRequest, Control, ErrorCode, EventStream, Listener, RemoveRequest,
    SessionFilter,
};
use publisher::config::Config;
use publisher::model::{
    Ban, Banned, Protocol, Publication, PublicationSpec, SourceMode, Verdict, conflicts,
};
use publisher::store::State;
use tempfile::TempDir;
use tokio::sync::{broadcast, oneshot};

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
    pub state: State,
    pub sessions: Vec<SessionView>,
    pub clients: Vec<WhoisView>,
    /// Who listens to the session log.
    pub events: Events,
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

    async fn events(&self) -> Result<EventStream, ApiError> {
        Ok(self.working()?.events.subscribe())
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

/// A session of publication 1.
pub fn session(client_port: u16, protocol: Protocol, state: SessionState) -> SessionView {
    SessionView {
        protocol,
        client: "2001:db8::5".parse().unwrap(),
        client_port,
        scope: None,
        host: "2001:db8::1".parse().unwrap(),
        host_port: 8080,
        alias: "198.18.0.4".parse().unwrap(),
        alias_port: client_port,
        target: "172.17.0.2".parse().unwrap(),
        target_port: 80,
        state,
        publication: 1,
        uplink: "eth0".into(),
        link: "veth1a2b".into(),
        packets_in: 10,
        bytes_in: 1000,
        packets_out: 20,
        bytes_out: 20_000,
        age_seconds: 310,
        idle_seconds: 2,
    }
}

/// What a call that fails fails with.
pub fn failure(code: ErrorCode) -> ApiError {
    ApiError::new(code, "it broke").with_hint("mend it")
}

/// A running server.
pub struct Daemon {
    pub socket: PathBuf,
    pub control: Arc<Memory>,
    log: Arc<Mutex<Vec<u8>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _dir: TempDir,
}

impl Daemon {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Others may look into the directory: it is the socket that keeps them out.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let socket = dir.path().join("publisher.sock");
        let control = Arc::new(Memory::default());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn({
            let (socket, control, log) = (socket.clone(), control.clone(), log.clone());
            move || {
                let _guard = tracing::subscriber::set_default(
                    tracing_subscriber::fmt()
                        .with_ansi(false)
                        .with_writer(move || Writer(log.clone()))
                        .finish(),
                );
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let listener = Listener::bind(&socket).unwrap();
                ready.send(()).unwrap();
                let shutdown = async move { stopped.await.unwrap_or(()) };
                runtime.block_on(api::serve(listener, control, shutdown)).unwrap();
            }
        });
        is_ready.recv().expect("the server didn't start");
        Self { socket, control, log, stop: Some(stop), thread: Some(thread), _dir: dir }
    }

    /// `unix:///…`
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub fn log(&self) -> String {
        String::from_utf8(self.log.lock().unwrap().clone()).unwrap()
    }

    /// Stops the server and waits for its end.
    pub fn stop(&mut self) {
        if let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) {
            let _ = stop.send(());
            thread.join().unwrap();
        }
    }

    /// Runs the real `publisherctl` against this daemon.
    pub fn ctl(&self, args: &[&str]) -> Done {
        let mut command = ctl();
        command.arg("-H").arg(self.host()).args(args);
        Done::of(command)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `publisherctl`, out of nobody's environment.
pub fn ctl() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_publisherctl"));
    command.env_clear();
    command
}

/// How a command ended and what it said.
#[derive(Debug, PartialEq, Eq)]
pub struct Done {
    pub exit: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    pub fn of(mut command: Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        Self {
            exit: status.code().expect("it was killed"),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    /// It did what it should, said `out` on stdout and nothing on stderr.
    #[track_caller]
    pub fn says(&self, out: &str) {
        assert_eq!((self.exit, self.out.as_str(), self.err.as_str()), (0, out, ""));
    }

    /// It ended with `exit`, and these two lines on stderr are all it said.
    #[track_caller]
    pub fn fails(&self, exit: i32, error: &str, hint: &str) {
        let err = format!("error: {error}\nhint: {hint}\n");
        assert_eq!((self.exit, self.out.as_str(), self.err.as_str()), (exit, "", err.as_str()));
    }

    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.exit, 0, "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }
}
