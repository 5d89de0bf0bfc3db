//! The newest `docker-proxy`, beside which Publisher has to hold its own.

use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::docker::Version;
use crate::netns::Netns;
use crate::shell;
use crate::traffic::tcp::{self, Outcome};

/// A running proxy for one port; dropping it ends it.
#[derive(Debug)]
pub struct DockerProxy(Child);

impl DockerProxy {
    /// Listens on `[::]:port` of `host` and forwards to `target` (IPv4).
    ///
    /// # Errors
    /// When Docker 28.5 isn't unpacked, or the proxy doesn't listen within 5 s.
    pub fn start(host: &Netns, port: u16, target: SocketAddr) -> Result<Self> {
        let proxy = Self::spawn(host, "tcp", port, target)?;
        let listens = || {
            let own = (std::net::Ipv6Addr::LOCALHOST, port);
            let outcome = tcp::try_connect(host, own, Duration::from_millis(200));
            matches!(outcome, Outcome::Connected(_))
        };
        ensure!(shell::wait_until(Duration::from_secs(5), listens), "docker-proxy doesn't listen");
        Ok(proxy)
    }

    /// The same for a UDP port.
    ///
    /// # Errors
    /// As [`DockerProxy::start`].
    pub fn start_udp(host: &Netns, port: u16, target: SocketAddr) -> Result<Self> {
        let proxy = Self::spawn(host, "udp", port, target)?;
        let taken = || host.run(|| std::net::UdpSocket::bind(("::", port))).is_err();
        ensure!(shell::wait_until(Duration::from_secs(5), taken), "docker-proxy doesn't bind");
        Ok(proxy)
    }

    fn spawn(host: &Netns, protocol: &str, port: u16, target: SocketAddr) -> Result<Self> {
        let program = Version::V28_5.proxy()?;
        ensure!(program.is_file(), "no docker-proxy at {}", program.display());
        // It reports to its parent on descriptor 3.
        let child = host
            .command("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3>/dev/null"])
            .arg(program)
            .args(["-proto", protocol, "-host-ip", "::", "-host-port", &port.to_string()])
            .args(["-container-ip", &target.ip().to_string()])
            .args(["-container-port", &target.port().to_string()])
            .stdin(Stdio::null())
            .spawn()
            .context("start docker-proxy")?;
        Ok(Self(child))
    }
}

impl Drop for DockerProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
