//! The two stories: a container made of a namespace, and one of a real Docker engine.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use publisher_tests::case::Case;
use publisher_tests::daemon::Daemon;
use publisher_tests::docker::{self, Engine, Version};
use publisher_tests::interrupt;
use publisher_tests::netns::Netns;
use publisher_tests::shell;
use publisher_tests::topology::{HOST, Options, Topology};

use crate::tell;

/// The published port.
const PORT: u16 = 8080;

/// A container that is a namespace behind a bridge, as every engine makes it.
pub fn plain(case: &Case) -> Result<()> {
    tell::step("A client with IPv6 only, a host, and a container with IPv4 only")?;
    let net = Topology::simple()?;
    let target = net.containers[0].address;
    picture(target);

    tell::step("A web server in the container; its page says where a request came from")?;
    let server = Server::start(case, net.container())?;
    refused(net.client())?;

    let daemon = publish(case, &net, target)?;
    let alias = fetch(&net, target)?;
    look(&net, &daemon, alias)?;
    drop(daemon);
    drop(server);
    Ok(())
}

/// A real engine, run as the CIS benchmark demands it.
pub fn docker(case: &Case) -> Result<()> {
    let version = Version::V28_5;
    tell::step(&format!("A client with IPv6 only, and a host that runs Docker {version}"))?;
    let net = Topology::build(Options { containers: 0, ..Options::default() })?;
    // Docker makes its own bridge, with the same addresses.
    net.host.ip("link del br0")?;
    tell::command("host", "dockerd --userland-proxy=false");
    let engine = Engine::start(version, &net.host, &["--userland-proxy=false"])?;
    tell::answer(&engine.docker(&["version", "-f", "Docker {{.Server.Version}} is running"])?);

    tell::step("A container with a published port")?;
    tell::command(
        "host",
        &format!("docker run -d --name web -p {PORT}:80 {} httpd", docker::IMAGE),
    );
    let target = engine.web("web", &["-p", &format!("{PORT}:80")])?;
    tell::answer(&engine.docker(&[
        "ps",
        "--format",
        "table {{.Names}}\t{{.Status}}\t{{.Ports}}",
    ])?);
    picture(target);

    tell::step("Docker without its proxy publishes on IPv4 only")?;
    refused(net.client())?;

    let daemon = publish(case, &net, target)?;
    let alias = fetch(&net, target)?;
    look(&net, &daemon, alias)?;
    tell::step("Docker's own rule against packets that don't come in by its bridge")?;
    tell::command("host", "iptables -t raw -vnL PREROUTING");
    tell::answer(&net.host.sh("iptables -t raw -vnL PREROUTING")?);
    drop(daemon);
    drop(engine);
    Ok(())
}

fn picture(target: Ipv4Addr) {
    tell::answer(&format!(
        "\n  client 2001:db8:1::c0 ──── {HOST} host 172.17.0.1 ──── {target} container\n "
    ));
}

/// Shows that nothing answers yet.
fn refused(client: &Netns) -> Result<()> {
    tell::command("client", &format!("wget -O - http://[{HOST}]:{PORT}/"));
    let address = format!("http://[{HOST}]:{PORT}/");
    let mut command = client.command("timeout");
    let (reached, _) = tell::run(command.args(["5", "busybox", "wget", "-O", "-", &address]))?;
    ensure!(!reached, "the port answers before it was published");
    Ok(())
}

fn publish<'a>(case: &'a Case, net: &'a Topology, target: Ipv4Addr) -> Result<Daemon<'a>> {
    tell::step("The daemon, and one command")?;
    tell::command("host", "publisherd &");
    let daemon = Daemon::start(case, &net.host)?;
    ctl(&daemon, &["add", &PORT.to_string(), &format!("{target}:80")])?;
    Ok(daemon)
}

/// Fetches the page and returns the address that the container saw.
fn fetch(net: &Topology, target: Ipv4Addr) -> Result<Ipv4Addr> {
    tell::step("The page, over IPv6, from a server that has no IPv6")?;
    let address = format!("http://[{HOST}]:{PORT}/");
    tell::command("client", &format!("wget -q -O - {address}"));
    let mut command = net.client().command("timeout");
    let (reached, page) =
        tell::run(command.args(["10", "busybox", "wget", "-q", "-O", "-", &address]))?;
    ensure!(reached, "no page came from {target}");
    let seen = page.split_whitespace().find_map(|word| word.parse().ok());
    seen.with_context(|| format!("the page names no address: {page:?}"))
}

/// What the daemon tells about it, with one connection held open.
fn look(net: &Topology, daemon: &Daemon<'_>, alias: Ipv4Addr) -> Result<()> {
    tell::step("What is published, who is connected, and who that address is")?;
    let host = SocketAddr::from((HOST, PORT));
    let connection = net
        .client()
        .run(|| TcpStream::connect_timeout(&host, Duration::from_secs(5)))
        .context("a second connection")?;
    ctl(daemon, &["ls"])?;
    ctl(daemon, &["sessions"])?;
    ctl(daemon, &["whois", &alias.to_string()])?;
    drop(connection);
    Ok(())
}

fn ctl(daemon: &Daemon<'_>, args: &[&str]) -> Result<()> {
    interrupt::check()?;
    tell::command("host", &format!("publisherctl {}", args.join(" ")));
    let (well, _) = tell::run(&mut daemon.ctl_command(args)?)?;
    ensure!(well, "publisherctl {} failed; the daemon wrote:\n{}", args[0], daemon.log());
    Ok(())
}

/// busybox's web server in a namespace.
struct Server(Child);

impl Server {
    fn start(case: &Case, container: &Netns) -> Result<Self> {
        let root = case.directory().join("www");
        docker::whoami_into(&root)?;
        tell::command("container", "httpd -f -p 80 &");
        let child = container
            .command("busybox")
            .args(["httpd", "-f", "-p", "0.0.0.0:80", "-h"])
            .arg(&root)
            .stdin(Stdio::null())
            .spawn()
            .context("start busybox httpd")?;
        let server = Self(child);
        let port: SocketAddr = (Ipv4Addr::LOCALHOST, 80).into();
        let up = shell::wait_until(Duration::from_secs(5), || {
            container.run(|| TcpStream::connect(port)).is_ok()
        });
        ensure!(up, "busybox httpd doesn't answer");
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
