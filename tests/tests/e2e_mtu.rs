//! The MTUs that segments are clamped to: of interfaces and routes, as they change, or the
//! configuration's.

use std::time::Duration;

use anyhow::{Result, ensure};
use etherparse::{TcpOptionElement, TransportSlice};
use publisher_tests::case::{self, Case};
use publisher_tests::daemon::Daemon;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::shell;
use publisher_tests::topology::{Options, Topology, host};
use publisher_tests::traffic::raw::{Capture, Frame};
use publisher_tests::traffic::tcp;

const ANY: [u8; 4] = [0, 0, 0, 0];
/// A change takes so long at the most. The daemon looks by itself every 5 s only: it was told.
const SOON: Duration = Duration::from_secs(2);

/// The segment size of a SYN or SYN-ACK.
fn segment_size(frame: &Frame) -> Option<u16> {
    let Some(TransportSlice::Tcp(tcp)) = frame.parsed()?.transport else { return None };
    tcp.options_iterator().find_map(|option| match option {
        Ok(TcpOptionElement::MaximumSegmentSize(size)) if tcp.syn() => Some(size),
        _ => None,
    })
}

/// What a new connection's ends are told: the container, then the client.
fn told(lab: &Lab<'_>) -> Result<[Option<u16>; 2]> {
    let inside = Capture::start(lab.net.container(), "eth0")?;
    let outside = Capture::start(lab.net.client(), "eth0")?;
    drop(tcp::connect(lab.net.client(), host(8080))?);
    let arrives = |frame: &Frame| !frame.outgoing && segment_size(frame).is_some();
    let [syn, answer] = [inside.wait_for(SOON, arrives)?, outside.wait_for(SOON, arrives)?];
    Ok([segment_size(&syn), segment_size(&answer)])
}

/// Waits until both ends are told this.
fn both_are_told(lab: &Lab<'_>, expected: u16, why: &str) -> Result<()> {
    let mut last = Ok([None; 2]);
    let reached = shell::wait_until(SOON, || {
        last = told(lab);
        last.as_ref().is_ok_and(|told| *told == [Some(expected); 2])
    });
    ensure!(reached, "{why}: {last:?}, not {expected}");
    Ok(())
}

#[test]
fn s19_a_changed_mtu_of_an_uplink_is_followed() {
    case::run(|case| {
        let mut lab = Lab::simple(case)?;
        let _server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        both_are_told(&lab, 1_440, "1500 on both sides")?;
        for (mtu, expected) in [(1_400, 1_340), (1_280, 1_220), (1_450, 1_390), (1_500, 1_440)] {
            lab.daemon.alter(|| lab.net.host.ip(&format!("link set up0 mtu {mtu}")))?;
            both_are_told(&lab, expected, &format!("uplink with {mtu}"))?;
        }
        Ok(())
    });
}

#[test]
fn s19_a_changed_mtu_of_a_container_link_is_followed() {
    case::run(|case| {
        let mut lab = Lab::simple(case)?;
        let _server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        // The container's own end keeps 1500: what it is told is the daemon's doing.
        let changes = [("vc0", 1_300, 1_260), ("vc0", 1_500, 1_440), ("br0", 1_200, 1_160)];
        for (interface, mtu, expected) in changes {
            lab.daemon.alter(|| lab.net.host.ip(&format!("link set {interface} mtu {mtu}")))?;
            both_are_told(&lab, expected, &format!("{interface} with {mtu}"))?;
        }
        Ok(())
    });
}

#[test]
fn s19_a_routes_own_mtu_counts_where_it_is_smaller() {
    case::run(|case| {
        let mut lab = Lab::simple(case)?;
        let _server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        for (mtu, expected) in [(1_350, 1_310), (1_250, 1_210), (9_000, 1_440)] {
            let route = format!("route replace 172.17.0.2/32 dev br0 mtu {mtu}");
            lab.daemon.alter(|| lab.net.host.ip(&route))?;
            both_are_told(&lab, expected, &route)?;
        }
        Ok(())
    });
}

/// A lab whose daemon has a configuration file.
fn configured<'a>(case: &'a Case, text: &str) -> Result<Lab<'a>> {
    let net = Topology::build(Options::default())?;
    let file = case.directory().join("publisher.toml");
    std::fs::write(&file, text)?;
    let daemon = Daemon::start_with(case, &net.host, &["--config", &file.to_string_lossy()])?;
    let lab = Lab { daemon, net };
    lab.daemon.add("8080", TARGET)?;
    Ok(lab)
}

#[test]
fn s19_configured_mtus_come_before_the_interfaces() {
    for (text, status, expected) in [
        ("[mtu]\nipv6 = 1280\n", 1_280, 1_220),
        ("[mtu]\nipv4 = 1200\n", 1_400, 1_160),
        // Larger than the uplink's own: the owner's word counts.
        ("[mtu]\nipv6 = 1480\nipv4 = 9000\n", 1_480, 1_420),
    ] {
        case::run(|case| {
            let mut lab = configured(case, text)?;
            let _server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
            lab.daemon.alter(|| lab.net.host.ip("link set up0 mtu 1400"))?;
            both_are_told(&lab, expected, text)?;
            let uplinks = &lab.daemon.json(&["status"])?["uplinks"];
            assert_eq!(uplinks[0]["mtu"], status, "{uplinks}");
            Ok(())
        });
    }
}
