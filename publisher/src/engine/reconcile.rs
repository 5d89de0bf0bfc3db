//! From facts to the datapath: look, plan, carry out.

use super::{Engine, Inner};
use crate::datapath::{Datapath, DatapathError};
use crate::lane;
use crate::plan::{Action, Desired, Facts, Resolutions, plan};
use crate::topology::SnapshotOptions;
use crate::topology::reserved_ports::PortSet;
use futures_util::future::join_all;
use publisher_common::layout::{Config, config_flags, source_mode};
use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use tracing::{error, info};

impl Engine {
    /// Looks at the host and makes the datapath what it should be. Failures are kept for `status` and
    /// logged; the next reconciliation tries again.
    pub(super) async fn reconcile(&self) {
        let _one = self.reconciling.lock().await;
        // A target's own link must be known before uplinks are chosen, so targets come first.
        let resolutions = self.resolve_targets().await;
        let mut inner = self.inner.lock().await;
        let container_links = container_links(&resolutions, &inner);
        let options = SnapshotOptions {
            uplinks: self.config().uplinks.iter().map(|name| name.as_str().to_owned()).collect(),
            container_links,
            ignore: [lane::ENTRY, lane::END].map(String::from).into(),
        };
        inner.logged = std::mem::take(&mut inner.failures);
        if !inner.look(self, &options).await {
            return;
        }
        if inner.open_slow_lane() && !inner.look(self, &options).await {
            return;
        }
        inner.resolutions = resolutions;
        inner.apply(self);
        inner.close_slow_lane();
    }

    async fn resolve_targets(&self) -> Resolutions {
        let targets: BTreeSet<Ipv4Addr> = {
            let inner = self.inner.lock().await;
            let published = inner.state.publications().iter().map(|p| p.spec.target());
            let draining = inner.draining.iter().flat_map(|entry| entry.targets.iter().copied());
            published.chain(draining).collect()
        };
        let probe = self.alias_probe();
        let look = async |target| (target, self.topology.resolve(target, probe).await);
        join_all(targets.into_iter().map(look)).await.into_iter().collect()
    }
}

fn container_links(resolutions: &Resolutions, inner: &Inner) -> BTreeSet<u32> {
    let now = resolutions.values().flatten().flat_map(|resolved| resolved.container_links());
    // A container that restarts must not make an uplink of its bridge for a moment.
    let before =
        inner.resolutions.values().flatten().flat_map(|resolved| resolved.container_links());
    now.chain(before).collect()
}

impl Inner {
    /// Reads the host's interfaces; says whether that was possible.
    async fn look(&mut self, engine: &Engine, options: &SnapshotOptions) -> bool {
        match engine.topology.snapshot(options).await {
            Ok(snapshot) => {
                let links = snapshot.links.iter();
                engine
                    .events
                    .set_names(links.map(|(index, it)| (*index, it.name.clone())).collect());
                self.snapshot = snapshot;
            }
            Err(error) => {
                self.fail(format!("can't read the host's interfaces: {error}"));
                return false;
            }
        }
        true
    }

    /// Whether something is published, or still in use.
    fn is_busy(&self) -> bool {
        self.datapath.is_some()
            && !(self.state.publications().is_empty() && self.draining.is_empty())
    }

    /// Makes the slow lane's interfaces where they are wanted and missing; says whether it did.
    fn open_slow_lane(&mut self) -> bool {
        if !self.is_busy() || lane::find(&self.snapshot.links).is_some() {
            return false;
        }
        match lane::open(&self.snapshot.links) {
            Ok(()) => true,
            Err(error) => {
                let (entry, end) = (lane::ENTRY, lane::END);
                self.fail(format!(
                    "can't make the interfaces {entry} and {end} ({error}): what a container sends without \
                     DF and is too big for the uplink is dropped"
                ));
                false
            }
        }
    }

    /// Removes them where nobody wants them any more.
    fn close_slow_lane(&mut self) {
        if self.is_busy() {
            return;
        }
        if let Err(error) = lane::close(&self.snapshot.links) {
            self.fail(format!("can't remove the interface {}: {error}", lane::ENTRY));
        }
    }

    /// Plans and carries out.
    pub(super) fn apply(&mut self, engine: &Engine) {
        if self.datapath.is_none() {
            return;
        }
        self.look_at_proxy(engine);
        let counts = engine.session_counts();
        let ways = self.proxied.ways.keys();
        let proxied =
            ways.map(|id| (*id, counts.get(id).is_some_and(|count| *count > 0))).collect();
        let Self { datapath, state, bans, draining, links, applied, snapshot, resolutions, .. } =
            self;
        let Some(datapath) = datapath else { return };
        let config = engine.config();
        let facts = Facts {
            publications: state.publications(),
            bans: bans.ends(),
            draining,
            snapshot,
            resolutions,
            mtu: &config.mtu,
            proxied: &proxied,
            held: &self.proxied.held,
            loopback: self.loopback.is_ok(),
        };
        let mut desired = Desired::from_facts(&facts, links);
        applied.attachments = datapath.attachments().map(|(at, _)| at.clone()).collect();
        let mut failures = Vec::new();
        for action in plan(&desired, applied) {
            if let Action::SetLink(index) = action {
                // A first link at start too: an earlier daemon's sessions may go by another one.
                let before = applied.links.get(&index).map(|link| link.generation);
                if before != desired.links.get(&index).map(|link| link.generation) {
                    engine.must_end.notify_one();
                }
            }
            if let Err(error) = carry_out(&action, &desired, datapath) {
                failures.push(error.to_string());
                forget(&action, &mut desired, applied);
            }
        }
        *applied = desired;
        if let Err(error) = self.reserve_ports(engine) {
            failures.push(format!("can't reserve published ports: {error}"));
        }
        for failure in failures {
            self.fail(failure);
        }
    }

    /// Keeps published ports, and those of gateway mode while it is in use, from the host itself.
    fn reserve_ports(&mut self, engine: &Engine) -> io::Result<()> {
        let published = self.state.publications().iter().map(|publication| {
            let ports = publication.spec.ports();
            ports.first()..=ports.last()
        });
        let uses_gateway =
            self.applied.publications.values().any(|entry| entry.source == source_mode::GATEWAY);
        let gateway = engine.config().gateway.ports;
        let gateway = uses_gateway.then(|| gateway.first()..=gateway.last());
        let ports: PortSet = published.chain(gateway).collect();
        self.reserved.update(&ports)
    }

    /// Notes a failure, and logs it if it is new.
    pub(super) fn fail(&mut self, failure: String) {
        if !self.logged.contains(&failure) {
            error!("{failure}");
        }
        self.failures.push(failure);
    }
}

fn carry_out(
    action: &Action,
    desired: &Desired,
    datapath: &mut Datapath,
) -> Result<(), DatapathError> {
    match action {
        Action::Attach(at) => {
            let means = datapath.attach(at)?;
            info!("attached {} to interface {} ({means:?})", at.hook.program(), at.ifindex);
        }
        Action::Detach(at) => {
            datapath.detach(at);
            info!("detached {} from interface {}", at.hook.program(), at.ifindex);
        }
        Action::SetUplinks => datapath.tables().set_uplinks(&desired.uplinks)?,
        Action::SetLocals => datapath.tables().set_locals(&desired.locals)?,
        Action::SetLink(index) => {
            if let Some(link) = desired.links.get(index) {
                datapath.tables().set_link(*index, link)?;
            }
        }
        Action::SetAccess => datapath.tables().set_access(&desired.access)?,
        Action::TidyAccess => datapath.tables().tidy_access(&desired.access)?,
        Action::SetBans => {
            let config = datapath.tables().config()?;
            let others = config.flags & !config_flags::BANS;
            let flags = if desired.has_bans { others | config_flags::BANS } else { others };
            datapath.tables().set_config(&Config { flags, ..config })?;
        }
        Action::SetUses => datapath.tables().sessions().keep_uses(&desired.uses)?,
        Action::SetPublications => {
            datapath.tables().set_publications(&desired.publications, &desired.draining)?;
        }
        Action::SetSlowLane => {
            let config = datapath.tables().config()?;
            let config = Config { slow_lane: desired.slow_lane, ..config };
            datapath.tables().set_config(&config)?;
        }
    }
    Ok(())
}

/// What failed counts as not done, so that the next plan has it again.
fn forget(action: &Action, desired: &mut Desired, applied: &Desired) {
    match action {
        // Attachments are read from the datapath each time.
        Action::Attach(_) | Action::Detach(_) => {}
        Action::SetUplinks => desired.uplinks.clone_from(&applied.uplinks),
        Action::SetLocals => desired.locals.clone_from(&applied.locals),
        Action::SetLink(index) => {
            desired.links.remove(index);
        }
        Action::SetAccess | Action::TidyAccess => desired.access.clone_from(&applied.access),
        Action::SetBans => desired.has_bans = applied.has_bans,
        Action::SetUses => desired.uses.clone_from(&applied.uses),
        Action::SetPublications => {
            desired.publications.clone_from(&applied.publications);
            desired.draining.clone_from(&applied.draining);
        }
        Action::SetSlowLane => desired.slow_lane = applied.slow_lane,
    }
}
