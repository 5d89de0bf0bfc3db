//! Aliases under pressure: more clients than there are aliases, and a /64 that wants them all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use etherparse::{NetSlice, TransportSlice};
use publisher_tests::case;
use publisher_tests::load::opener::{Clients, Opener};
use publisher_tests::load::scene::Scene;
use publisher_tests::load::sources::Sources;
use publisher_tests::shell;
use publisher_tests::traffic::raw::{Capture, Frame};

/// Clients of a pool of six aliases.
const CLIENTS: u64 = 1_000;
/// Addresses of one /64.
const ADDRESSES: u64 = 200_000;
/// Clients that come after them, each of a /64 of its own.
const OTHERS: u64 = 500;

/// What the container sees of a datagram: its source, and the number of the session in its payload.
fn seen(frame: &Frame) -> Option<((Ipv4Addr, u16), u64)> {
    let packet = frame.parsed()?;
    let (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) = (packet.net?, packet.transport?) else {
        return None;
    };
    let number = u64::from_be_bytes(*udp.payload().first_chunk()?);
    let source = (ip.header().source_addr(), udp.source_port());
    (!frame.outgoing).then_some((source, number))
}

#[test]
fn a_thousand_clients_share_six_aliases_and_each_is_known() {
    case::run(|case| {
        let scene = Scene::new(case, "[alias]\npool = \"198.18.0.0/29\"\n")?;
        let clients = Clients { sources: Sources::CLIENTS, per_address: 1 };
        let capture = Capture::start(scene.net.container(), "eth0")?;
        let mut opener = Opener::new(scene.net.client(), "eth0", &scene.to, clients)?;
        ensure!(opener.open(0..CLIENTS)? == CLIENTS, "not all of them are served");
        let by_source = || -> BTreeMap<_, _> { capture.frames().iter().filter_map(seen).collect() };
        shell::wait_until(Duration::from_secs(5), || by_source().len() as u64 >= CLIENTS);
        let by_source = by_source();
        ensure!(by_source.len() as u64 == CLIENTS, "{} sources", by_source.len());
        let aliases: BTreeSet<_> = by_source.keys().map(|(alias, _)| *alias).collect();
        ensure!(aliases.len() == 6, "{aliases:?}");
        for ((alias, port), number) in &by_source {
            let found = scene.daemon.entry(&["whois", &format!("{alias}:{port}")])?;
            let client: Ipv6Addr = found["client"].as_str().context("a client")?.parse()?;
            let expected = Ipv6Addr::from(clients.address(*number));
            ensure!(client == expected, "{alias}:{port} is {expected}, not {found}");
        }
        ensure!(opener.refresh(0..CLIENTS)? == CLIENTS, "they still are");
        Ok(())
    });
}

#[test]
fn a_network_with_200_000_addresses_leaves_the_pool_to_others() {
    case::run(|case| {
        // 16,382 aliases, of which a /64 may have 1,023 for single clients, and 64 to share.
        let config = "[alias]\npool = \"198.18.0.0/18\"\n[sessions]\nper_source = 0\n";
        let scene = Scene::new(case, config)?;
        let greedy = Sources { count: ADDRESSES, per_network: ADDRESSES, ..Sources::CLIENTS };
        let greedy = Clients { sources: greedy, per_address: 1 };
        let mut opener = Opener::new(scene.net.client(), "eth0", &scene.to, greedy)?;
        let opened = opener.open(0..ADDRESSES)?;
        let bound = scene.daemon.used("aliases")?;
        println!("{opened} sessions of {ADDRESSES} addresses in one /64 have {bound} aliases");
        ensure!(opened == ADDRESSES, "{opened} opened");
        // Both processors count: one or two more may slip through.
        ensure!(bound <= 1_023 + 64 + 8, "{bound} aliases");

        let prefix = Ipv6Addr::new(0x2001, 0xdb8, 0x7000, 0, 0, 0, 0, 0);
        let others = Sources { prefix, count: OTHERS, per_network: 1 };
        let others = Clients { sources: others, per_address: 1 };
        let capture = Capture::start(scene.net.container(), "eth0")?;
        let mut opener = Opener::new(scene.net.client(), "eth0", &scene.to, others)?;
        ensure!(opener.open(0..OTHERS)? == OTHERS);
        let own = || -> BTreeSet<_> {
            let frames = capture.frames();
            frames.iter().filter_map(seen).map(|((alias, _), _)| alias).collect()
        };
        shell::wait_until(Duration::from_secs(5), || own().len() as u64 >= OTHERS - 20);
        let own = own().len();
        println!("{OTHERS} clients of others have {own} aliases");
        // Two that come at the same moment may be seen as one; that is as likely as their homes are close.
        ensure!(own as u64 >= OTHERS - 20, "{own} aliases");
        Ok(())
    });
}
