//! Ours beside docker-proxy on one kind of work: for what the benchmark's table doesn't have.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::service::{SHORT_PORT, STREAM_PORT};
use super::statistics::{Ratio, median};
use crate::case::{self, Case};
use crate::daemon::Daemon;
use crate::docker_proxy::DockerProxy;
use crate::lab::Lab;
use crate::load::is_full;
use crate::topology::Topology;

const ROUNDS: usize = 5;
/// The host's ports, for the container's [`SHORT_PORT`] and [`STREAM_PORT`].
pub const PORTS: [u16; 2] = [8080, 8081];

/// What is compared.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// Words for the figure.
    pub what: &'a str,
    /// Whether the ports are UDP's.
    pub udp: bool,
    /// How ours is published (`--path`).
    pub path: &'a str,
    /// What the ratio of medians must be above: far below what is measured, so that noise doesn't fail it.
    pub floor: f64,
}

/// How long one figure is measured for.
pub fn window() -> Duration {
    Duration::from_millis(if is_full() { 3_000 } else { 700 })
}

impl Pair<'_> {
    /// Two networks that are alike but for who has the host's ports, in turns; `work` says how much was
    /// done.
    ///
    /// # Panics
    /// When the work can't be done, or ours is below the floor.
    pub fn compare(self, work: impl Fn(&Lab<'_>) -> Result<f64>) {
        case::run(|case| self.attempt(case, work));
    }

    fn attempt(self, case: &Case, work: impl Fn(&Lab<'_>) -> Result<f64>) -> Result<()> {
        let (ours, theirs) = (lab(case)?, lab(case)?);
        let mut proxies = Vec::new();
        for (port, inside) in PORTS.into_iter().zip([SHORT_PORT, STREAM_PORT]) {
            let target = SocketAddr::from((theirs.net.containers[0].address, inside));
            let published = if self.udp { format!("{port}/udp") } else { port.to_string() };
            let arguments = ["add", &published, &target.to_string(), "--path", self.path];
            ours.daemon.ctl(&arguments)?.ok()?;
            proxies.push(match self.udp {
                true => DockerProxy::start_udp(&theirs.net.host, port, target)?,
                false => DockerProxy::start(&theirs.net.host, port, target)?,
            });
        }
        let mut values = [Vec::new(), Vec::new()];
        for round in 0..=ROUNDS {
            for which in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                let value = work([&ours, &theirs][which])?;
                // The first round warms up.
                if round > 0 {
                    values[which].push(value);
                }
            }
        }
        let ratio = Ratio::of(&values[0], &values[1]);
        let Self { what, floor, .. } = self;
        println!("{what}: {:.1?} and {:.1?}", values[0], values[1]);
        println!(
            "{what}: {:.1} against docker-proxy's {:.1}: {:.2} (paired {:.2}, 95 % {:.2}-{:.2})",
            median(&values[0]),
            median(&values[1]),
            ratio.of_medians,
            ratio.paired,
            ratio.interval[0],
            ratio.interval[1]
        );
        ensure!(ratio.of_medians > floor, "{what}: {ratio:?}");
        Ok(())
    }
}

/// A network without pacing: a proxy's sockets have no option for that, so their routes say it.
fn lab(case: &Case) -> Result<Lab<'_>> {
    let net = Topology::simple()?;
    let host = &net.host;
    host.ip(
        "route change 172.17.0.0/16 dev br0 proto kernel scope link src 172.17.0.1 congctl cubic",
    )?;
    host.ip("-6 route add local ::1 dev lo table local metric 1 congctl cubic")?;
    host.ip("-6 route del local ::1 dev lo table local metric 0")?;
    Ok(Lab { daemon: Daemon::start(case, host)?, net })
}
