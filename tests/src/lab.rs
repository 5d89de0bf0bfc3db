//! A network with a daemon on its host: what nearly every case starts from.

use anyhow::Result;

use crate::case::Case;
use crate::daemon::Daemon;
use crate::topology::{Options, Topology};

/// The first container's port 80, as `publisherctl` takes it.
pub const TARGET: &str = "172.17.0.2:80";

/// Daemon and network; the daemon is uninstalled before the network goes.
#[derive(Debug)]
pub struct Lab<'a> {
    /// The daemon in the host's namespace.
    pub daemon: Daemon<'a>,
    /// The network.
    pub net: Topology,
}

impl<'a> Lab<'a> {
    /// One client, one uplink, one container, and a daemon without publications.
    ///
    /// # Errors
    /// As [`Topology::build`] and [`Daemon::start`].
    pub fn simple(case: &'a Case) -> Result<Self> {
        Self::with(case, Options::default())
    }

    /// Two clients, one container, and its port 80 published as 8080 for TCP and UDP by the socket proxy, with
    /// more arguments.
    ///
    /// # Errors
    /// As [`Topology::build`] and [`Daemon::start`].
    pub fn proxied(case: &'a Case, args: &[&str]) -> Result<Self> {
        let lab = Self::with(case, Options { clients: 2, ..Options::default() })?;
        for published in ["8080", "8080/udp"] {
            let all = [&["add", published, TARGET, "--path", "proxy"], args].concat();
            lab.daemon.ctl(&all)?.ok()?;
        }
        Ok(lab)
    }

    /// A network with `options` and a daemon without publications.
    ///
    /// # Errors
    /// As [`Topology::build`] and [`Daemon::start`].
    pub fn with(case: &'a Case, options: Options) -> Result<Self> {
        let net = Topology::build(options)?;
        let daemon = Daemon::start(case, &net.host)?;
        Ok(Self { daemon, net })
    }
}
