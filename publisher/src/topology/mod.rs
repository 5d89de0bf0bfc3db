//! What the host's network looks like: uplinks, addresses, and the way to a target.
//!
//! Everything is read by netlink in the network namespace that [`Topology::connect`] was called
//! in. Results are plain data; nothing here changes the host, except that an ARP entry which has
//! turned out to be dead is asked for again.

mod links;
mod neighbours;
mod netlink;
mod netns;
mod peer;
mod pool;
mod resolve;
mod routes;
mod types;
#[expect(missing_docs, reason = "the kernel's own names; each group says which header has them")]
mod uapi;
mod uplinks;
mod watch;

use std::{io, net::Ipv4Addr, sync::Arc};

use ipnet::Ipv4Net;
use tokio::task::spawn_blocking;

pub use self::{
    pool::{DEFAULT_POOL, FALLBACK_POOL, PoolChoice, choose_pool},
    types::*,
    uplinks::choose as choose_uplinks,
    watch::Watcher,
};

/// A view of one network namespace. Clones share their sockets.
#[derive(Clone)]
pub struct Topology {
    shared: Arc<Shared>,
}

struct Shared {
    route: netlink::Client,
    finder: netns::Finder,
}

impl Topology {
    /// Opens the sockets, in the calling thread's network namespace.
    ///
    /// # Errors
    /// When netlink isn't available.
    pub fn connect() -> io::Result<Self> {
        let route = netlink::Client::open(libc::NETLINK_ROUTE)?;
        Ok(Self { shared: Arc::new(Shared { route, finder: netns::Finder::default() }) })
    }

    /// Reads interfaces and local addresses, and chooses the uplinks.
    ///
    /// # Errors
    /// When netlink fails.
    pub async fn snapshot(&self, options: &SnapshotOptions) -> io::Result<Snapshot> {
        let options = options.clone();
        self.blocking(move |shared| {
            let links = links::all(&shared.route)?;
            let locals = routes::locals(&shared.route)?;
            let (uplinks, warnings) = uplinks::choose(&links, &options);
            Ok(Snapshot { uplinks, locals, links, warnings })
        })
        .await
    }

    /// Finds the way to `target`, without any container engine's help. Takes microseconds when
    /// the kernel knows the target's hardware address, up to 0.3 s when it has to ask. `alias_probe` is
    /// an address of the alias pool, for [`ResolvedTarget::alias_route`].
    ///
    /// # Errors
    /// [`Unresolved`] says why the target can't be reached now. It may be a moment later: a
    /// container that starts isn't always announced by a [`Changes`] of its own.
    pub async fn resolve(
        &self,
        target: Ipv4Addr,
        alias_probe: Ipv4Addr,
    ) -> Result<ResolvedTarget, Unresolved> {
        self.blocking(move |shared| {
            resolve::resolve(&shared.route, &shared.finder, target, alias_probe)
        })
        .await
    }

    /// Starts to watch for changes, in the calling thread's network namespace. Subscribe first
    /// and take the [`Snapshot`] afterwards, and no change is missed.
    ///
    /// # Errors
    /// When netlink isn't available, or there is no tokio runtime to wait with.
    pub fn watch(&self) -> io::Result<Watcher> {
        Watcher::open()
    }

    /// IPv4 routes and addresses of the host (default routes left out) that overlap `pool`, in
    /// words.
    ///
    /// # Errors
    /// When netlink fails.
    pub async fn route_conflicts(&self, pool: Ipv4Net) -> io::Result<Vec<String>> {
        self.blocking(move |shared| {
            let links = links::all(&shared.route)?;
            routes::conflicts(&shared.route, &links, pool)
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> T + Send + 'static,
    ) -> T {
        let shared = Arc::clone(&self.shared);
        match spawn_blocking(move || work(&shared)).await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down, and drops this future too.
                Err(_) => std::future::pending().await,
            },
        }
    }
}
