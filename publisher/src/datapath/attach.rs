//! Programs at tc ingress: as tcx links where the kernel has them, else as clsact filters.
//!
//! An attachment outlives the daemon. A tcx link is pinned; a clsact filter stays by itself, and the
//! program is pinned in its place, so that the next daemon knows of it.

use super::error::{DatapathError, chain};
use super::object::program;
use super::pins::Pins;
use aya::Ebpf;
use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{
    self, NlOptions, SchedClassifier, SchedClassifierLink, TcAttachOptions, TcAttachType, TcHandle,
};
use std::collections::BTreeMap;
use std::fs;
use std::mem::forget;
use tracing::{debug, warn};

/// Priority of our clsact filters.
const PRIORITY: u16 = 0x6464;
/// Handle of our clsact filters.
const HANDLE: TcHandle = TcHandle::new(0, 1);
/// Suffix of pins that stand for a clsact filter.
const CLSACT: &str = "-clsact";

/// Which program an interface gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Clients' packets, with Ethernet headers.
    UplinkEthernet,
    /// Clients' packets, without link-layer headers.
    UplinkRaw,
    /// Packets of the host's own processes, at the loopback interface.
    Loopback,
    /// A container's packets, at the host's side of its veth.
    Veth,
    /// Containers' packets, at a bridge or another interface.
    Bridge,
    /// Packets that have to be fragmented, at the end of the slow lane.
    SlowLane,
}

impl Hook {
    const ALL: [Self; 6] = [
        Self::UplinkEthernet,
        Self::UplinkRaw,
        Self::Loopback,
        Self::Veth,
        Self::Bridge,
        Self::SlowLane,
    ];

    const fn is_uplink(self) -> bool {
        matches!(self, Self::UplinkEthernet | Self::UplinkRaw | Self::Loopback)
    }

    /// The program's name.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::UplinkEthernet => "uplink_ethernet",
            Self::UplinkRaw => "uplink_raw",
            Self::Loopback => "loopback",
            Self::Veth => "container_veth",
            Self::Bridge => "container_bridge",
            Self::SlowLane => "slow_lane",
        }
    }
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// A tcx link (Linux 6.6).
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
}

/// A program at an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// Interface index.
    pub ifindex: u32,
    /// The program.
    pub hook: Hook,
}

impl Attachment {
    fn pin_name(&self, means: Means) -> String {
        let suffix = if means == Means::Clsact { CLSACT } else { "" };
        format!("{}-{}{suffix}", self.ifindex, self.hook.program())
    }

    fn from_pin_name(name: &str) -> Option<(Self, Means)> {
        let (name, means) = match name.strip_suffix(CLSACT) {
            Some(name) => (name, Means::Clsact),
            None => (name, Means::Tcx),
        };
        let (ifindex, hook) = name.split_once('-')?;
        let hook = Hook::ALL.into_iter().find(|candidate| candidate.program() == hook)?;
        Some((Self { ifindex: ifindex.parse().ok()?, hook }, means))
    }
}

/// All attachments of this datapath.
pub(super) struct Attachments {
    known: BTreeMap<Attachment, Means>,
    /// Whether the kernel has refused a tcx link.
    without_tcx: bool,
}

impl Attachments {
    /// Puts the newly loaded programs in the place of those that are attached, each in one step.
    pub fn take_over(pins: &Pins, programs: &mut Ebpf) -> Result<Self, DatapathError> {
        let mut attachments = Self { known: BTreeMap::new(), without_tcx: false };
        let directory = pins.links();
        let entries = fs::read_dir(&directory).map_err(DatapathError::io(&directory))?;
        let known = entries.flatten().filter_map(|entry| {
            let name = entry.file_name();
            let (at, means) = Attachment::from_pin_name(&name.to_string_lossy())?;
            Some((at, means, name))
        });
        let mut known: Vec<_> = known.collect();
        // The containers' side first: what it doesn't find yet, it finds in older tables.
        known.sort_by_key(|(at, ..)| at.hook.is_uplink());
        for (at, means, name) in known {
            let path = directory.join(&name);
            let replaced = match means {
                Means::Tcx => replace_tcx(&path, &at, programs),
                Means::Clsact => attach_clsact(&at, programs, false),
            };
            match replaced {
                Ok(()) => {
                    attachments.known.insert(at, means);
                }
                // The interface is gone, and with it what was attached there.
                Err(error) => {
                    debug!("forgetting {}: {error}", name.display());
                    let _ = fs::remove_file(path);
                }
            }
        }
        Ok(attachments)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Attachment, Means)> {
        self.known.iter().map(|(at, means)| (at, *means))
    }

    pub fn attach(
        &mut self,
        at: &Attachment,
        pins: &Pins,
        programs: &mut Ebpf,
    ) -> Result<Means, DatapathError> {
        if let Some(means) = self.known.get(at) {
            return Ok(*means);
        }
        let means = if self.without_tcx {
            self.attach_filter(at, pins, programs)?
        } else {
            match attach_tcx(at, pins, programs) {
                Ok(()) => Means::Tcx,
                Err(error) => {
                    debug!("{error}; trying clsact");
                    let means = self.attach_filter(at, pins, programs)?;
                    self.without_tcx = true;
                    means
                }
            }
        };
        self.known.insert(at.clone(), means);
        Ok(means)
    }

    fn attach_filter(
        &self,
        at: &Attachment,
        pins: &Pins,
        programs: &mut Ebpf,
    ) -> Result<Means, DatapathError> {
        // A filter of an earlier daemon that left no pin is replaced, not doubled.
        attach_clsact(at, programs, false).or_else(|_| attach_clsact(at, programs, true))?;
        let path = pins.links().join(at.pin_name(Means::Clsact));
        let _ = fs::remove_file(&path);
        program(programs, at.hook.program())?
            .pin(&path)
            .map_err(|error| attach_error(at, &chain(&error)))?;
        Ok(Means::Clsact)
    }

    pub fn detach(&mut self, at: &Attachment, pins: &Pins) {
        let Some(means) = self.known.remove(at) else { return };
        if means == Means::Clsact
            && let Some(name) = interface_name(at.ifindex)
        {
            let link =
                SchedClassifierLink::attached(&name, TcAttachType::Ingress, PRIORITY, HANDLE, None);
            // Dropping the link detaches it.
            if let Err(error) = link.map(drop) {
                warn!("can't detach {} from {name}: {error}", at.hook.program());
            }
        }
        let path = pins.links().join(at.pin_name(means));
        if let Err(error) = fs::remove_file(&path) {
            warn!("{}: {error}", path.display());
        }
    }

    pub fn detach_all(&mut self, pins: &Pins) {
        let all: Vec<_> = self.known.keys().cloned().collect();
        for at in all {
            self.detach(&at, pins);
        }
    }
}

/// Runs `work` while a program is attached to an interface of the calling thread's namespace.
pub(super) fn while_attached<T>(
    program: &mut SchedClassifier,
    interface: &str,
    work: impl FnOnce() -> T,
) -> Result<T, DatapathError> {
    let ingress = TcAttachType::Ingress;
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program.attach_with_options(interface, ingress, options).or_else(|_| {
        let _ = tc::qdisc_add_clsact(interface);
        program.attach_with_options(
            interface,
            ingress,
            TcAttachOptions::Netlink(NlOptions::default()),
        )
    });
    let fail = |error: &dyn std::error::Error| DatapathError::Attach {
        program: "route_probe",
        interface: interface.into(),
        reason: chain(error),
    };
    let id = id.map_err(|error| fail(&error))?;
    let result = work();
    program.detach(id).map_err(|error| fail(&error))?;
    Ok(result)
}

fn replace_tcx(
    path: &std::path::Path,
    at: &Attachment,
    programs: &mut Ebpf,
) -> Result<(), DatapathError> {
    let fail = |error: &dyn std::error::Error| attach_error(at, &chain(error));
    let pinned = PinnedLink::from_pin(path).map_err(|error| fail(&error))?;
    let link: SchedClassifierLink = FdLink::from(pinned)
        .try_into()
        .map_err(|error: aya::programs::links::LinkError| fail(&error))?;
    let program = program(programs, at.hook.program())?;
    let id = program.attach_to_link(link).map_err(|error| fail(&error))?;
    // The pin keeps the link; the program need not.
    program.take_link(id).map(drop).map_err(|error| fail(&error))
}

fn attach_tcx(at: &Attachment, pins: &Pins, programs: &mut Ebpf) -> Result<(), DatapathError> {
    let fail = |error: &dyn std::error::Error| attach_error(at, &chain(error));
    let name = interface_name(at.ifindex).ok_or_else(|| attach_error(at, "no such interface"))?;
    let program = program(programs, at.hook.program())?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program
        .attach_with_options(&name, TcAttachType::Ingress, options)
        .map_err(|error| fail(&error))?;
    let link = program.take_link(id).map_err(|error| fail(&error))?;
    let link: FdLink =
        link.try_into().map_err(|error: aya::programs::links::LinkError| fail(&error))?;
    let path = pins.links().join(at.pin_name(Means::Tcx));
    // Left by an interface that had the same index.
    let _ = fs::remove_file(&path);
    link.pin(path).map(drop).map_err(|error| fail(&error))
}

/// Adds a filter (`create`), or replaces the one that is there.
fn attach_clsact(at: &Attachment, programs: &mut Ebpf, create: bool) -> Result<(), DatapathError> {
    let fail = |error: &dyn std::error::Error| attach_error(at, &chain(error));
    let name = interface_name(at.ifindex).ok_or_else(|| attach_error(at, "no such interface"))?;
    let program = program(programs, at.hook.program())?;
    let ingress = TcAttachType::Ingress;
    let id = if create {
        // Somebody else's clsact serves as well.
        let _ = tc::qdisc_add_clsact(&name);
        let options = TcAttachOptions::Netlink(NlOptions {
            priority: PRIORITY,
            handle: HANDLE,
            classid: None,
        });
        program.attach_with_options(&name, ingress, options).map_err(|error| fail(&error))?
    } else {
        let link = SchedClassifierLink::attached(&name, ingress, PRIORITY, HANDLE, None)
            .map_err(|error| fail(&error))?;
        program.attach_to_link(link).map_err(|error| fail(&error))?
    };
    // A filter is detached with its link; this one shall outlive the daemon.
    program.take_link(id).map(forget).map_err(|error| fail(&error))
}

fn interface_name(ifindex: u32) -> Option<String> {
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
            .ok()?;
    rustix::net::netdevice::index_to_name(&socket, ifindex).ok()
}

fn attach_error(at: &Attachment, reason: &str) -> DatapathError {
    DatapathError::Attach {
        program: at.hook.program(),
        interface: interface_name(at.ifindex).unwrap_or_else(|| format!("#{}", at.ifindex)),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_names_lead_back() {
        for hook in Hook::ALL {
            for means in [Means::Tcx, Means::Clsact] {
                let at = Attachment { ifindex: 17, hook };
                assert_eq!(Attachment::from_pin_name(&at.pin_name(means)), Some((at, means)));
            }
        }
        for name in ["", "17", "17-", "x-uplink_raw", "17-other", "-uplink_raw"] {
            assert_eq!(Attachment::from_pin_name(name), None, "{name}");
        }
    }
}
