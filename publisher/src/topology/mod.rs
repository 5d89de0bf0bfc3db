//! What the host's network looks like: uplinks, addresses, and the way to a target.
//!
//! Everything is read by netlink in the network namespace that [`Topology::connect`] was called
//! in. Results are plain data; nothing here changes the host, except that an ARP entry which has
//! turned out to be dead is asked for again.

mod firewall;
#[cfg(test)]
mod kernel_tests;
mod links;
mod neighbours;
pub(crate) mod netlink;
mod netns;
mod peer;
mod pool;
pub mod reserved_ports;
mod resolve;
mod routes;
mod types;
pub(crate) mod uapi;
mod uplinks;
mod watch;

use std::{io, net::Ipv4Addr, sync::Arc};

use ipnet::Ipv4Net;
use tokio::task::spawn_blocking;

pub use self::{
    firewall::FirewallWatcher,
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
    unlearned: resolve::Unlearned,
    /// None where the kernel has no netfilter.
    netfilter: Option<netlink::Client>,
}

impl Topology {
    /// Opens the sockets, in the calling thread's network namespace.
    ///
    /// # Errors
    /// When netlink isn't available.
    pub fn connect() -> io::Result<Self> {
        let route = netlink::Client::open(libc::NETLINK_ROUTE)?;
        let netfilter = netlink::Client::open(libc::NETLINK_NETFILTER).ok();
        let finder = netns::Finder::default();
        let unlearned = resolve::Unlearned::default();
        Ok(Self { shared: Arc::new(Shared { route, finder, unlearned, netfilter }) })
    }

    /// Reads interfaces and local addresses, and chooses the uplinks.
    ///
    /// # Errors
    /// When netlink fails.
    pub async fn snapshot(&self, options: &SnapshotOptions) -> io::Result<Snapshot> {
        let options = options.clone();
        self.blocking(move |shared| {
            let mut links = links::all(&shared.route)?;
            let routes::Ipv6Routes { locals, default_devices } = routes::ipv6(&shared.route)?;
            for link in links.values_mut() {
                link.has_default_route = default_devices.contains(&link.ifindex);
            }
            let (uplinks, warnings) = uplinks::choose(&links, &options);
            Ok(Snapshot { uplinks, locals, links, warnings })
        })
        .await
    }

    /// Finds the way to `target`, without any container engine's help. Takes less than a
    /// millisecond when the kernel knows the target's hardware address, up to 0.3 s when it has
    /// to ask. `alias_probe` is an address of the alias pool, for
    /// [`ResolvedTarget::alias_route`].
    ///
    /// # Errors
    /// [`Unresolved`] says why the target can't be reached now. It may be a moment later: an
    /// address that is added inside a container is announced by no [`Changes`], so callers
    /// should try again from time to time as well.
    pub async fn resolve(
        &self,
        target: Ipv4Addr,
        alias_probe: Ipv4Addr,
    ) -> Result<ResolvedTarget, Unresolved> {
        self.blocking(move |shared| {
            let Shared { route: netlink, finder, unlearned, netfilter: _ } = shared;
            resolve::Resolver { netlink, finder, unlearned }.resolve(target, alias_probe)
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

    /// What at the host's INPUT may refuse IPv6 traffic, sorted; empty when nothing does. What
    /// can't be found out is a finding too ([`FirewallBackend::Unknown`]).
    pub async fn firewall(&self) -> Vec<FirewallFinding> {
        self.blocking(|shared| firewall::findings(shared.netfilter.as_ref())).await
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
