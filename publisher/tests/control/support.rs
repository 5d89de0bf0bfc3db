//! A daemon without a kernel: the real API server on a real socket, before [`Memory`], and the real
//! `publisherctl` to talk to it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use publisher::api::types::*;
use publisher::api::{self, ApiError, ErrorCode, Listener};
use publisher::model::Protocol;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::memory::Memory;

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
        path: SessionPath::Kernel,
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
