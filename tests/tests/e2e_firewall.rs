//! The host's firewall: a published port is reachable exactly when a plain listener on it would be.

use std::net::Ipv6Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use publisher_tests::case::{self, Case};
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::shell;
use publisher_tests::topology::{Options, host};
use publisher_tests::traffic::tcp;
use publisher_tests::ufw::Ufw;

const ANY: [u8; 4] = [0, 0, 0, 0];
/// Where a plain listener of the host is.
const PLAIN: u16 = 9_090;
/// How long the daemon may take to notice: it is told of changes.
const NOTICED: Duration = Duration::from_secs(3);

/// What a client is answered on a port, if it is let in.
fn page(lab: &Lab<'_>, port: u16) -> Option<String> {
    let limit = Duration::from_millis(500);
    let mut stream = tcp::try_connect(lab.net.client(), host(port), limit).connected().ok()?;
    tcp::ask(&mut stream, "GET /").ok()
}

fn path(lab: &Lab<'_>, port: u16) -> Result<String> {
    let all = lab.daemon.entries(&["ls"])?;
    let found = all.iter().find(|it| it["ports"]["first"] == port);
    Ok(found.and_then(|it| it["path"].as_str()).context("no such publication")?.to_owned())
}

/// Whether 8080 goes by `way` within a moment.
fn goes_by(lab: &Lab<'_>, way: &str) -> Result<()> {
    let there = || path(lab, 8080).is_ok_and(|it| it == way);
    ensure!(shell::wait_until(NOTICED, there), "8080 goes by {}", path(lab, 8080)?);
    Ok(())
}

/// Rules that keep everybody out, rules that let clients of a port in, and those that take all away.
struct Firewall {
    drops: Vec<String>,
    allows: Box<dyn Fn(u16) -> String>,
    opens: String,
}

impl Firewall {
    fn new(drops: &[&str], allows: fn(u16) -> String, opens: &str) -> Self {
        let drops = drops.iter().map(|line| (*line).to_owned()).collect();
        Self { drops, allows: Box::new(allows), opens: opens.to_owned() }
    }
}

fn is_obeyed(make: impl Fn(&Case) -> Result<Firewall>) {
    case::run(|case| {
        let firewall = make(case)?;
        let lab = Lab::with(case, Options::default())?;
        let _server = tcp::Server::page(lab.net.container(), (ANY, 80), "inside")?;
        let _plain = tcp::Server::page(&lab.net.host, (Ipv6Addr::UNSPECIFIED, PLAIN), "plain")?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.ctl(&["add", "8081", TARGET, "--allow", "2001:db8::/32"])?.ok()?;
        lab.daemon.ctl(&["add", "8082", TARGET, "--path", "kernel"])?.ok()?;
        let reached = |port| page(&lab, port).is_some();
        goes_by(&lab, "peer")?;
        ensure!(reached(8080) && reached(PLAIN), "without a firewall");

        for line in &firewall.drops {
            lab.net.host.sh(line)?;
        }
        goes_by(&lab, "proxy")?;
        ensure!(!reached(8080) && !reached(PLAIN), "the firewall keeps clients out");
        // Who says who may connect, or asks for the kernel path, has said that it doesn't matter.
        ensure!(reached(8081) && reached(8082), "--allow and --path kernel");
        let warnings = lab.daemon.json(&["status"])?["warnings"].to_string();
        ensure!(warnings.contains("behind the host's firewall"), "{warnings}");
        ensure!(warnings.contains("--path kernel bypass the host's firewall"), "{warnings}");

        for port in [8080, PLAIN] {
            lab.net.host.sh(&(firewall.allows)(port))?;
        }
        ensure!(shell::wait_until(NOTICED, || reached(8080)) && reached(PLAIN), "let in");
        goes_by(&lab, "proxy")?;

        lab.net.host.sh(&firewall.opens)?;
        goes_by(&lab, "peer")?;
        ensure!(reached(8080) && reached(PLAIN), "after it was taken away");
        Ok(())
    });
}

#[test]
fn iptables_with_a_drop_rule_and_one_that_lets_in() {
    is_obeyed(|_| {
        Ok(Firewall::new(
            &["ip6tables -A INPUT -p tcp -m tcp --dport 8080:9999 --syn -j DROP"],
            |port| format!("ip6tables -I INPUT -p tcp --dport {port} -j ACCEPT"),
            "ip6tables -F INPUT",
        ))
    });
}

#[test]
fn nftables_with_a_drop_policy_and_a_rule_that_lets_in() {
    is_obeyed(|_| {
        Ok(Firewall::new(
            &[
                "nft add table inet f",
                "nft add chain inet f i { type filter hook input priority 0 ; policy drop ; }",
                "nft add rule inet f i iifname { lo, br0 } accept",
                "nft add rule inet f i meta l4proto ipv6-icmp accept",
            ],
            |port| format!("nft add rule inet f i tcp dport {port} accept"),
            "nft delete table inet f",
        ))
    });
}

#[test]
fn ufw_which_keeps_clients_out_until_a_port_is_allowed() {
    is_obeyed(|case| {
        let ufw = Ufw::new(case)?;
        let (drops, opens) = (vec![ufw.line("--force enable")], ufw.line("disable"));
        let allows = Box::new(move |port| ufw.line(&format!("allow {port}/tcp")));
        Ok(Firewall { drops, allows, opens })
    });
}

#[test]
fn bypass_leaves_the_firewall_out() {
    case::run(|case| {
        let net = publisher_tests::topology::Topology::simple()?;
        let file = case.directory().join("p.toml");
        std::fs::write(&file, "host_firewall = \"bypass\"\n")?;
        let args = ["--config", file.to_str().context("path")?];
        let daemon = publisher_tests::daemon::Daemon::start_with(case, &net.host, &args)?;
        let lab = Lab { daemon, net };
        let _server = tcp::Server::page(lab.net.container(), (ANY, 80), "inside")?;
        lab.net.host.sh("ip6tables -A INPUT -p tcp --dport 8080 -j DROP")?;
        lab.daemon.add("8080", TARGET)?;
        assert_eq!(path(&lab, 8080)?, "peer");
        ensure!(page(&lab, 8080).is_some());
        lab.net.host.sh("ip6tables -F INPUT")?;
        Ok(())
    });
}
