//! What the API shows.

use super::{Engine, Inner, clock};
use crate::api::types::{
    Attach, DropView, EventsView, FeatureView, LinkKind, LinkView, Path, ProgramView,
    PublicationView, SessionPath, SessionState, SessionView, Source, SourceView, StatusView,
    TableView, UplinkView,
};
use crate::config::HostFirewall;
use crate::datapath::{DatapathError, Entry, Hook, Means};
use crate::model::{HostAddress, PathMode, Protocol, Publication};
use crate::plan::{self, source_of};
use publisher_common::layout::{Class, State, VERSION, link_flags};
use publisher_common::reason::Reason;
use publisher_common::wire::protocol;
use std::collections::BTreeMap;
use std::process;

/// A table that is fuller than this is worth a warning, in percent.
const FULL: u64 = 80;

impl Inner {
    /// A publication and what became of it.
    pub(super) fn publication(&self, publication: &Publication, sessions: u64) -> PublicationView {
        let spec = &publication.spec;
        let target = spec.target();
        let resolved = self.resolutions.get(&target);
        let link = self.links.link(target);
        let name = |ifindex: u32| self.interface(ifindex);
        let is_up = link.is_some_and(|link| link.flags & link_flags::UP != 0);
        let (path, path_reason) = match resolved {
            _ if let Some(reason) = self.proxied.ways.get(&publication.id) => {
                (Path::Proxy, Some(reason.clone()))
            }
            _ if !is_up => {
                let reason = resolved.and_then(|found| found.as_ref().err());
                (Path::Down, Some(reason.map_or("not resolved yet".into(), ToString::to_string)))
            }
            Some(Ok(found)) => match &found.peer {
                Ok(()) if found.veth.is_some() => (Path::Peer, None),
                Ok(()) => (Path::Neigh, Some("no veth of the container is known".into())),
                Err(reason) => (Path::Neigh, Some(reason.clone())),
            },
            _ => (Path::Peer, Some("the container does not answer".into())),
        };
        let source = match resolved {
            Some(Ok(found)) => match source_of(spec.source(), found) {
                plan::Source::Alias => (Some(Source::Alias), None),
                plan::Source::Gateway(reason) => (Some(Source::Gateway), Some(reason)),
            },
            _ => (None, None),
        };
        PublicationView {
            id: publication.id,
            host: spec.host().clone(),
            ports: spec.ports(),
            protocol: spec.protocol(),
            target,
            target_ports: spec.target_ports(),
            source: SourceView { requested: spec.source(), used: source.0, reason: source.1 },
            access: spec.access().clone(),
            limits: spec.limits(),
            path_requested: spec.path(),
            proxy_protocol: spec.proxy_protocol(),
            path,
            path_reason,
            link: link.filter(|link| is_up && link.device != 0).map(|link| name(link.device)),
            veth: link.filter(|link| is_up && link.veth != 0).map(|link| name(link.veth)),
            sessions,
            warnings: self.warnings_about(publication, path),
            created: publication.created,
        }
    }

    /// What a publication's owner should know.
    fn warnings_about(&self, publication: &Publication, path: Path) -> Vec<String> {
        let mut warnings = Vec::new();
        if let HostAddress::One { address, .. } = publication.spec.host()
            && !address.is_loopback()
            && !self.is_local(publication.spec.host())
        {
            warnings.push(format!(
                "{address} is not an address of this host now; the port answers once it is"
            ));
        }
        // Others have the proxy.
        if publication.spec.path() == PathMode::Kernel {
            match &self.loopback {
                Err(reason) => warnings.push(format!("the host itself isn't served: {reason}")),
                Ok(()) if path == Path::Neigh => warnings.push(
                    "the host itself isn't served: packets don't go straight into the container"
                        .into(),
                ),
                Ok(()) => {}
            }
        }
        if let Some(reason) = self.proxied.unheld.get(&publication.id) {
            warnings.push(format!("{reason}: {} aren't served there", self.unserved()));
        }
        warnings
    }

    /// Who isn't served where no socket of the proxy has the port.
    pub(super) const fn unserved(&self) -> &'static str {
        match self.loopback {
            Ok(()) => "IPv4 clients",
            Err(_) => "the host itself and IPv4 clients",
        }
    }

    fn is_local(&self, host: &HostAddress) -> bool {
        let address = u128::from(host.address());
        self.snapshot.locals.iter().any(|prefix| {
            let bits = u32::from(prefix.prefix_len);
            let mask = if bits == 0 { 0 } else { u128::MAX << (128 - bits) };
            let on_link = prefix.scope == 0
                || host.scope().is_some_and(|name| self.interface(prefix.scope) == name);
            on_link && (u128::from(prefix.address) ^ address) & mask == 0
        })
    }

    /// An interface's name; its number where it is gone.
    pub(super) fn interface(&self, ifindex: u32) -> String {
        let link = self.snapshot.links.get(&ifindex);
        link.map_or_else(|| format!("#{ifindex}"), |link| link.name.clone())
    }

    /// A session.
    pub(super) fn session(&self, entry: &Entry, path: SessionPath) -> SessionView {
        let now = clock::now();
        let Entry { forward, reply, session, sent, received, last_seen, class } = entry;
        let (uplink, link) = match path {
            SessionPath::Kernel => {
                let link = self.links.by_index(session.link.index);
                let link = link.map_or_else(String::new, |link| self.interface(link.device));
                (self.interface(session.uplink), link)
            }
            SessionPath::Proxy => (String::new(), String::new()),
        };
        let is_udp = reply.protocol == protocol::UDP;
        SessionView {
            protocol: if is_udp { Protocol::Udp } else { Protocol::Tcp },
            client: forward.client.into(),
            client_port: u16::from_be_bytes(forward.client_port),
            scope: (forward.scope != 0).then(|| self.interface(forward.scope)),
            host: forward.host.into(),
            host_port: u16::from_be_bytes(forward.host_port),
            alias: reply.alias.into(),
            alias_port: u16::from_be_bytes(reply.alias_port),
            target: reply.target.into(),
            target_port: u16::from_be_bytes(reply.target_port),
            state: state_of(session.state, *class),
            path,
            publication: session.publication.index,
            uplink,
            link,
            packets_in: sent.packets,
            bytes_in: sent.bytes,
            packets_out: received.packets,
            bytes_out: received.bytes,
            age_seconds: clock::seconds_since(session.created, now),
            idle_seconds: clock::seconds_since(*last_seen, now),
        }
    }

    /// Dropped packets, by reason.
    pub(super) fn drops(&mut self, engine: &Engine) -> Result<Vec<DropView>, DatapathError> {
        let Some(datapath) = &mut self.datapath else { return Ok(Vec::new()) };
        let refused = engine.proxy.refused();
        let view = |(reason, count): (Reason, u64)| {
            let proxied =
                refused.iter().find(|(it, _)| *it == reason).map_or(0, |(_, count)| *count);
            DropView {
                reason: reason.name().into(),
                count: count + proxied,
                meaning: reason.meaning().into(),
            }
        };
        Ok(datapath.tables().drops()?.into_iter().map(view).collect())
    }

    /// The daemon's state.
    pub(super) fn status(&mut self, engine: &Engine) -> StatusView {
        let mut attached: BTreeMap<u32, (Hook, Means)> = BTreeMap::new();
        let seen = engine.tally().seen;
        let (mut tables, mut programs) = (Vec::new(), Vec::new());
        if let Some(datapath) = &mut self.datapath {
            attached
                .extend(datapath.attachments().map(|(at, means)| (at.ifindex, (at.hook, means))));
            tables.extend(datapath.tables().usage(&seen).into_iter().map(|table| TableView {
                name: table.name.into(),
                used: table.used,
                capacity: table.capacity,
                memory_bytes: (table.memory > 0).then_some(table.memory),
            }));
            programs.extend(datapath.statistics().into_iter().map(|program| ProgramView {
                name: program.name.into(),
                verified_instructions: program.verified_instructions,
                run_ns: program.run_ns,
                run_count: program.run_count,
            }));
        }
        let uplinks = self.snapshot.uplinks.iter().filter_map(|uplink| {
            let (_, means) = attached.get(&uplink.ifindex)?;
            Some(UplinkView {
                name: uplink.name.clone(),
                ifindex: uplink.ifindex,
                mtu: self.applied.uplinks.get(&uplink.ifindex).map_or(uplink.mtu, |it| it.mtu),
                attach: attach_of(*means),
                ethernet: uplink.ethernet,
            })
        });
        let links = attached.iter().filter_map(|(ifindex, (hook, means))| {
            let is_bridge =
                || self.snapshot.links.get(ifindex).is_some_and(|link| link.is_kind("bridge"));
            let kind = match hook {
                Hook::Veth => LinkKind::Veth,
                Hook::Bridge if is_bridge() => LinkKind::Bridge,
                Hook::Bridge => LinkKind::Other,
                Hook::SlowLane => LinkKind::SlowLane,
                Hook::Loopback => LinkKind::Loopback,
                Hook::UplinkEthernet | Hook::UplinkRaw => return None,
            };
            Some(LinkView { name: self.interface(*ifindex), kind, attach: attach_of(*means) })
        });
        let (uplinks, links): (Vec<_>, Vec<_>) = (uplinks.collect(), links.collect());
        let warnings = self.warnings(engine, &tables);
        StatusView {
            version: env!("CARGO_PKG_VERSION").into(),
            layout: VERSION,
            pid: process::id(),
            uptime_seconds: engine.started.elapsed().as_secs(),
            uplinks,
            links,
            alias_pool: engine.pool.to_string(),
            publications: self.state.publications().len() as u64,
            tables,
            events: EventsView {
                lost: engine.events.lost(),
                not_written: engine.events.not_written(),
            },
            features: features(attached.values().map(|(_, means)| *means), &self.loopback),
            programs,
            warnings,
        }
    }

    /// What the host's owner should know.
    fn warnings(&self, engine: &Engine, tables: &[TableView]) -> Vec<String> {
        let mut warnings = self.notices.clone();
        warnings.extend(self.failures.iter().cloned());
        warnings.extend(self.snapshot.warnings.iter().cloned());
        warnings.extend(self.firewall_warnings(engine));
        let full = tables.iter().filter(|table| table.used * 100 > table.capacity * FULL);
        warnings.extend(full.map(|table| {
            let effect = match table.name.as_str() {
                "half-open" => ": older half-open sessions make way for new ones",
                "closing" => ": older closing sessions make way for new ones",
                "established" => ": no more sessions are established once it is full",
                "aliases" => ": clients will share aliases once it is full",
                _ => "",
            };
            let percent = table.used * 100 / table.capacity.max(1);
            format!("table {} is {percent} % full{effect}", table.name)
        }));
        warnings.extend(engine.events.trouble());
        warnings.extend(engine.proxy.trouble());
        if self.snapshot.uplinks.is_empty() && !self.state.publications().is_empty() {
            warnings.push("no uplink: no interface is up that clients could arrive on".into());
        }
        warnings
    }

    /// What the host's firewall means for what is published.
    pub(super) fn firewall_warnings(&self, engine: &Engine) -> Vec<String> {
        let Some(finding) = self.firewall.first() else { return Vec::new() };
        if engine.config().host_firewall == HostFirewall::Bypass {
            return Vec::new();
        }
        // Where it is said who may connect, that has been thought of.
        let open =
            self.state.publications().iter().filter(|it| it.spec.access().allow().is_empty());
        let (kernel, auto): (Vec<_>, Vec<_>) = open
            .filter(|it| {
                it.spec.path() != PathMode::Proxy && !it.spec.host().address().is_loopback()
            })
            .partition(|it| it.spec.path() == PathMode::Kernel);
        let bypasses = (!kernel.is_empty()).then(|| {
            format!(
                "ports published with --path kernel bypass the host's firewall, which may block them ({finding})"
            )
        });
        let obeys = (!auto.is_empty()).then(|| {
            format!(
                "published ports go by the proxy, behind the host's firewall, which may block clients ({finding}); \
                 --allow CIDR with a publication, or host_firewall = \"bypass\", puts them on the kernel path"
            )
        });
        bypasses.into_iter().chain(obeys).collect()
    }
}

fn features(means: impl Iterator<Item = Means>, loopback: &Result<(), String>) -> Vec<FeatureView> {
    let means: Vec<_> = means.collect();
    let loopback = FeatureView {
        name: "loopback".into(),
        available: loopback.is_ok(),
        means: match loopback {
            Ok(()) => "local processes are served in the kernel".into(),
            Err(reason) => format!("local processes are served by the proxy: {reason}"),
        },
    };
    if means.is_empty() {
        return vec![loopback];
    }
    let tcx = means.contains(&Means::Tcx);
    let what = if tcx {
        "programs are replaced in one step, and seen by `bpftool net`"
    } else {
        "programs are attached as clsact filters"
    };
    vec![FeatureView { name: "tcx".into(), available: tcx, means: what.into() }, loopback]
}

const fn attach_of(means: Means) -> Attach {
    match means {
        Means::Tcx => Attach::Tcx,
        Means::Clsact => Attach::Clsact,
    }
}

pub(super) const fn state_of(state: State, class: Option<Class>) -> SessionState {
    match (class, state) {
        (Some(Class::HalfOpen), _) => SessionState::HalfOpen,
        (_, State::V6_FIN_RCV) => SessionState::V6Fin,
        (_, State::V4_FIN_RCV) => SessionState::V4Fin,
        (_, State::V4_FIN_V6_FIN_RCV) => SessionState::Closing,
        (_, State::TRANS) => SessionState::Trans,
        _ => SessionState::Established,
    }
}
