//! A daemon takes over from the version before, whose maps have another layout: nobody notices.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use publisher_tests::case;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::load::is_full;
use publisher_tests::older;
use publisher_tests::topology::host;
use publisher_tests::traffic::pulse::Pulse;
use publisher_tests::traffic::{tcp, udp};

const ANY: [u8; 4] = [0, 0, 0, 0];

/// How often it is done in a full run, and otherwise.
const TIMES: [usize; 2] = [20, 5];
/// Connections that are open meanwhile, beside the ones that carry data.
const OPEN: usize = 50;

#[test]
fn upgrades_from_layout_1_and_back_interrupt_nothing() {
    case::run(|case| {
        let mut lab = Lab::simple(case)?;
        let _server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        let _datagrams = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.add("8080/udp", TARGET)?;
        let transfer = Pulse::tcp(tcp::connect(lab.net.client(), host(8080))?);
        let datagrams = Pulse::udp(lab.net.client(), host(8080))?;
        let mut idle: Vec<_> =
            (0..OPEN).map(|_| tcp::connect(lab.net.client(), host(8080))).collect::<Result<_>>()?;
        transfer.goes_on(20)?;
        datagrams.goes_on(20)?;
        for round in 0..if is_full() { TIMES[0] } else { TIMES[1] } {
            if round % 2 == 0 {
                lab.daemon.stop()?;
            } else {
                lab.daemon.kill()?;
            }
            older::put_in_place(lab.daemon.pin_dir())?;
            transfer.goes_on(20)?;
            datagrams.goes_on(20)?;
            // Opened by the older programs: one that stays, one that is closing, one that is half-open.
            let mut stays = tcp::connect(lab.net.client(), host(8080))?;
            let before = format!("before upgrade {round}");
            ensure!(tcp::ask(&mut stays, &before)? == before);
            idle.push(stays);
            drop(tcp::connect(lab.net.client(), host(8080))?);
            let one_way = udp::client(lab.net.client(), 0)?;
            let (reply, _) = udp::ask(&one_way, host(8080), b"half-open")?;
            ensure!(reply == b"half-open");

            lab.daemon.launch()?;
            ensure!(!lab.daemon.pin_dir().join("v1").exists(), "the older layout is still there");
            transfer.goes_on(20)?;
            datagrams.goes_on(20)?;
            for (number, connection) in idle.iter_mut().enumerate() {
                let line = format!("{number} after upgrade {round}");
                ensure!(tcp::ask(connection, &line)? == line);
            }
            let (reply, _) = udp::ask(&one_way, host(8080), b"and established")?;
            ensure!(reply == b"and established");
            let sessions = lab.daemon.entries(&["sessions", "proto=tcp", "state=established"])?;
            ensure!(sessions.len() == 1 + idle.len(), "{}", sessions.len());
            // Counted anew, as limits and `ls` need it.
            let listed = lab.daemon.entries(&["ls"])?;
            let tcp = listed.iter().find(|it| it["protocol"] == "tcp").context("published")?;
            ensure!(tcp["sessions"] == sessions.len(), "{tcp}");
        }
        let transfer = transfer.end()?;
        let datagrams = datagrams.end()?;
        println!("transfer {transfer:?}, datagrams {datagrams:?}");
        ensure!(datagrams.lost == 0, "{datagrams:?}");
        ensure!(transfer.longest < Duration::from_secs(1), "{transfer:?}");
        Ok(())
    });
}

#[test]
fn an_older_map_that_is_not_as_it_was_is_refused() {
    case::run(|case| {
        let mut lab = Lab::simple(case)?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.stop()?;
        older::put_in_place(lab.daemon.pin_dir())?;
        // A map of another value size in the place of one of layout 1's.
        let maps = lab.daemon.pin_dir().join("v1/maps");
        std::fs::remove_file(maps.join("REVERSE"))?;
        std::fs::rename(maps.join("FORWARD"), maps.join("REVERSE"))?;
        std::fs::rename(maps.join("HALF_OPEN"), maps.join("FORWARD"))?;
        let error = lab.daemon.launch().expect_err("it must not start");
        let text = format!("{error:#}");
        ensure!(text.contains("does not match"), "{text}");
        ensure!(text.contains("hint: "), "{text}");
        // What it had is left as it was.
        ensure!(maps.join("CONFIG").exists());
        std::fs::remove_dir_all(lab.daemon.pin_dir())?;
        lab.daemon.launch()?;
        Ok(())
    });
}
