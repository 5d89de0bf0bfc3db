//! What the socket proxy has to do with publications: which it holds the ports of, and which it serves
//! alone.

use super::{Engine, Inner};
use crate::api::types::CloseReason;
use crate::datapath::Entry;
use crate::model::{Protocol, Publication};
use crate::plan::{Way, is_held, way_of};
use crate::proxy::Unheld;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What `reconcile` has last found out about the proxy's part.
#[derive(Default)]
pub(super) struct Proxied {
    /// Ways that aren't the kernel's, and why.
    pub ways: BTreeMap<u32, String>,
    /// Publications whose ports are held, and those of their ports that aren't.
    pub held: BTreeMap<u32, BTreeSet<u16>>,
    /// Why others aren't.
    pub unheld: BTreeMap<u32, String>,
}

impl Inner {
    /// The interface index of a link-local host address, 0 for others; `None` where there is no such
    /// interface now.
    fn scope_of(&self, publication: &Publication) -> Option<u32> {
        let Some(name) = publication.spec.host().scope() else { return Some(0) };
        let mut links = self.snapshot.links.values();
        links.find(|link| link.name == name).map(|link| link.ifindex)
    }

    /// Holds the ports of a publication.
    pub(super) fn hold(&self, engine: &Engine, publication: &Publication) -> Result<(), Unheld> {
        match self.scope_of(publication) {
            Some(scope) => engine.proxy.hold(publication, scope),
            // They are held once the interface is there.
            None => Ok(()),
        }
    }

    /// Holds what is to be held, lets go of the rest, and finds out which way each publication goes.
    pub(super) fn look_at_proxy(&mut self, engine: &Engine) {
        let said = engine.config().host_firewall;
        let publications = self.state.publications();
        let mut found = Proxied::default();
        for publication in publications {
            if let Way::Proxy(reason) =
                way_of(&publication.spec, &self.firewall, said, self.loopback.is_ok())
            {
                found.ways.insert(publication.id, reason);
            }
            if is_held(&publication.spec)
                && let Err(error) = self.hold(engine, publication)
            {
                found.unheld.insert(publication.id, error.to_string());
            }
        }
        let wanted: BTreeSet<u32> =
            publications.iter().filter(|it| is_held(&it.spec)).map(|it| it.id).collect();
        engine.proxy.keep(|id| wanted.contains(&id));
        let held = publications.iter().filter_map(|it| Some((it.id, engine.proxy.missing(it)?)));
        found.held = held.collect();
        for (id, reason) in &found.unheld {
            if self.proxied.unheld.get(id) != Some(reason) {
                tracing::warn!("{reason}: {} aren't served there", self.unserved());
            }
        }
        self.proxied = found;
    }
}

impl Engine {
    /// Ends the proxy's sessions of what was removed: at once where `kill` says so, and those of UDP; the
    /// others after the time that they may drain.
    pub(super) fn end_proxied(&self, removed: &BTreeSet<u32>, kill: bool) {
        let is_gone = |entry: &Entry| removed.contains(&entry.session.publication.index);
        let udp = Protocol::Udp.number();
        self.proxy.end(|entry| match (is_gone(entry), kill) {
            (true, true) => Some(CloseReason::Killed),
            (true, false) if entry.reply.protocol == udp => Some(CloseReason::Removed),
            _ => None,
        });
        if kill {
            return;
        }
        let (proxy, removed) = (self.proxy.clone(), removed.clone());
        let drain = self.config().drain;
        tokio::spawn(async move {
            tokio::time::sleep(drain.min(Duration::from_secs(u32::MAX.into()))).await;
            let is_gone = |entry: &Entry| removed.contains(&entry.session.publication.index);
            proxy.end(|entry| is_gone(entry).then_some(CloseReason::Removed));
        });
    }
}
