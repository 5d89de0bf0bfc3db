//! The daemon is killed, stopped and started again, over and over: no session is lost, none is there twice,
//! and nothing piles up.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use publisher_tests::case;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::load::is_full;
use publisher_tests::topology::host;
use publisher_tests::traffic::pulse::Pulse;
use publisher_tests::traffic::{tcp, udp};

const ANY: [u8; 4] = [0, 0, 0, 0];
/// How often each is done in a full run, and otherwise.
const TIMES: [usize; 2] = [20, 5];
/// Connections that are open meanwhile.
const OPEN: usize = 100;

/// How a daemon ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Killed,
    Stopped,
}

fn again_and_again(end: End) {
    case::run(|case| {
        let mut lab = Lab::simple(case)?;
        let _server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        let _datagrams = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.add("8080/udp", TARGET)?;
        let transfer = Pulse::tcp(tcp::connect(lab.net.client(), host(8080))?);
        let datagrams = Pulse::udp(lab.net.client(), host(8080))?;
        let mut open: Vec<_> =
            (0..OPEN).map(|_| tcp::connect(lab.net.client(), host(8080))).collect::<Result<_>>()?;
        let mut pins = 0;
        for round in 0..if is_full() { TIMES[0] } else { TIMES[1] } {
            match end {
                End::Killed => lab.daemon.kill()?,
                End::Stopped => lab.daemon.stop()?,
            }
            // Opened while there is no daemon.
            open.push(tcp::connect(lab.net.client(), host(8080))?);
            transfer.goes_on(5)?;
            lab.daemon.launch()?;
            transfer.goes_on(5)?;
            datagrams.goes_on(5)?;
            for (number, connection) in open.iter_mut().enumerate() {
                let line = format!("{number} in round {round}");
                ensure!(tcp::ask(connection, &line)? == line);
            }
            let sessions = lab.daemon.entries(&["sessions", "proto=tcp", "state=established"])?;
            let flows: BTreeSet<_> =
                sessions.iter().map(|session| session["client_port"].as_u64()).collect();
            ensure!(flows.len() == open.len() + 1, "{} flows, round {round}", flows.len());
            ensure!(sessions.len() == flows.len(), "{} sessions, round {round}", sessions.len());
            let now = std::fs::read_dir(lab.daemon.pin_dir().join("v2/links"))?.count()
                + std::fs::read_dir(lab.daemon.pin_dir().join("v2/maps"))?.count();
            ensure!(pins == 0 || pins == now, "{pins} pins, then {now}");
            pins = now;
        }
        let (transfer, datagrams) = (transfer.end()?, datagrams.end()?);
        println!("{end:?}: transfer {transfer:?}, datagrams {datagrams:?}");
        ensure!(datagrams.lost == 0, "{datagrams:?}");
        ensure!(transfer.longest < Duration::from_secs(1), "{transfer:?}");
        Ok(())
    });
}

#[test]
fn twenty_kills_lose_nothing() {
    again_and_again(End::Killed);
}

#[test]
fn twenty_stops_lose_nothing() {
    again_and_again(End::Stopped);
}
