//! `publisherd`, the daemon.

use publisher::api::{Listener, serve};
use publisher::cli::{Exit, Messages, Style, daemon};
use publisher::config::Config;
use publisher::engine::Engine;
use sd_notify::NotifyState;
use std::io;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> Exit {
    let (mut stdout, mut stderr) = (io::stdout(), io::stderr());
    let style = Style::of(&stderr);
    let config = match daemon::configure(std::env::args_os(), &mut stdout, &mut stderr, style) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    run(config).await.unwrap_or_else(|failure| {
        Messages::new(&mut stderr, style).error(&failure.message, failure.hint.as_deref());
        failure.exit
    })
}

/// Why the daemon ends before it was asked to.
struct Failure {
    message: String,
    hint: Option<String>,
    exit: Exit,
}

impl Failure {
    fn of(error: &impl ToString) -> Self {
        Self { message: error.to_string(), hint: None, exit: Exit::Failed }
    }
}

/// Reads the configuration again, and says so to a service manager that waits for it.
async fn reload(engine: &Engine) {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        let _ = sd_notify::notify(&[NotifyState::Reloading, now]);
    }
    match daemon::configure_again(std::env::args_os()) {
        Ok(config) => engine.reload(config).await,
        Err(error) => tracing::error!("the configuration stays as it was: {error}"),
    }
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

async fn run(config: Config) -> Result<Exit, Failure> {
    let socket = config.socket.clone();
    let engine = Engine::start(config).await.map_err(|error| Failure {
        message: error.to_string(),
        hint: error.hint(),
        exit: error.exit(),
    })?;
    let engine = Arc::new(engine);
    let listener = Listener::bind(&socket).map_err(|error| Failure {
        message: error.to_string(),
        hint: error.hint(),
        exit: Exit::Failed,
    })?;
    // Watch first, look afterwards: no change is missed.
    let watcher = engine.watch().map_err(|error| Failure::of(&error))?;
    engine.settle().await;

    let mut terminated = signal(SignalKind::terminate()).map_err(|error| Failure::of(&error))?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(|error| Failure::of(&error))?;
    let ending = Arc::clone(&engine);
    let until = async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
            () = ending.exit_requested() => {}
        }
    };
    let mut reloads = signal(SignalKind::hangup()).map_err(|error| Failure::of(&error))?;
    let reloading = Arc::clone(&engine);
    let reload = async move {
        while reloads.recv().await.is_some() {
            reload(&reloading).await;
        }
    };
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    tokio::select! {
        served = serve(listener, Arc::clone(&engine), until) => {
            served.map_err(|error| Failure::of(&error))?;
        }
        () = reload => {}
        followed = engine.run(watcher) => {
            followed.map_err(|error| Failure::of(&error))?;
        }
    }
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    engine.stop();
    Ok(Exit::Ok)
}
