//! Daemons die, containers come and go, publications end: what goes on and what must not.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use publisher_tests::case;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::netns::Netns;
use publisher_tests::shell;
use publisher_tests::topology::{Options, host};
use publisher_tests::traffic::pulse::Pulse;
use publisher_tests::traffic::tcp::{self, Outcome};
use publisher_tests::traffic::{raw, udp};

const ANY: [u8; 4] = [0, 0, 0, 0];

fn refused(client: &Netns, to: SocketAddr) -> Result<()> {
    let outcome = tcp::try_connect(client, to, Duration::from_secs(1));
    ensure!(matches!(outcome, Outcome::Refused), "{to}: {outcome:?}");
    Ok(())
}

#[test]
fn a_killed_daemon_interrupts_nothing_and_a_new_one_takes_over() {
    case::run(|case| {
        let mut lab = Lab::simple(case)?;
        let server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        let _datagrams = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.add("8080/udp", TARGET)?;
        let transfer = Pulse::tcp(tcp::connect(lab.net.client(), host(8080))?);
        let datagrams = Pulse::udp(lab.net.client(), host(8080))?;
        transfer.goes_on(50)?;
        datagrams.goes_on(50)?;

        lab.daemon.kill()?;
        transfer.goes_on(50)?;
        datagrams.goes_on(50)?;
        for n in 0..20 {
            let line = format!("with the daemon dead, {n}");
            assert_eq!(tcp::ask(&mut tcp::connect(lab.net.client(), host(8080))?, &line)?, line);
        }
        let (reply, _) = udp::ask(&udp::client(lab.net.client(), 0)?, host(8080), b"new")?;
        assert_eq!(reply, b"new");

        lab.daemon.launch()?;
        transfer.goes_on(50)?;
        datagrams.goes_on(50)?;
        let sessions = lab.daemon.entries(&["sessions"])?;
        let of_transfer =
            |s: &&serde_json::Value| s["protocol"] == "tcp" && s["packets_in"].as_u64() > Some(50);
        ensure!(sessions.iter().find(of_transfer).is_some(), "the new daemon knows the session");
        let transfer = transfer.end()?;
        let datagrams = datagrams.end()?;
        println!("transfer {transfer:?}, datagrams {datagrams:?}");
        assert_eq!(datagrams.lost, 0, "{datagrams:?}");
        ensure!(transfer.longest < Duration::from_secs(1), "{transfer:?}");
        assert_eq!(server.peers().len(), 21);
        Ok(())
    });
}

#[test]
fn a_stopped_daemon_leaves_the_datapath_forwarding() {
    case::run(|case| {
        let mut lab = Lab::simple(case)?;
        let _server = tcp::Server::page(lab.net.container(), (ANY, 80), "still here")?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.stop()?;
        ensure!(tcp::fetch(lab.net.client(), host(8080))?.starts_with("still here"));
        lab.daemon.ctl(&["ls"])?.failed_with(3)?;
        lab.daemon.launch()?;
        ensure!(tcp::fetch(lab.net.client(), host(8080))?.starts_with("still here"));
        Ok(())
    });
}

#[test]
fn rm_stops_new_connections_and_lets_old_ones_drain() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.add("8081", TARGET)?;
        let mut old = tcp::connect(lab.net.client(), host(8080))?;
        assert_eq!(tcp::ask(&mut old, "before")?, "before");
        lab.daemon.ctl(&["rm", "8080"])?.ok()?;
        refused(lab.net.client(), host(8080))?;
        assert_eq!(tcp::ask(&mut old, "after")?, "after");
        assert_eq!(server.peers().len(), 1, "the refused connection never reached the container");
        let mut other = tcp::connect(lab.net.client(), host(8081))?;
        assert_eq!(tcp::ask(&mut other, "another port")?, "another port");
        lab.daemon.ctl(&["rm", "8080"])?.failed_with(4)?;
        lab.daemon.ctl(&["rm", "--all"])?.ok()?;
        refused(lab.net.client(), host(8081))?;
        assert_eq!(tcp::ask(&mut other, "drains")?, "drains");
        Ok(())
    });
}

#[test]
fn rm_kill_ends_old_connections() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let _server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        let mut old = tcp::connect(lab.net.client(), host(8080))?;
        assert_eq!(tcp::ask(&mut old, "before")?, "before");
        let capture = raw::Capture::start(lab.net.container(), "eth0")?;
        lab.daemon.ctl(&["rm", "8080", "--kill"])?.ok()?;
        assert_eq!(lab.daemon.entries(&["sessions"])?.len(), 0);
        old.set_read_timeout(Some(Duration::from_millis(700)))?;
        let answer = tcp::ask(&mut old, "a line after the end");
        ensure!(!matches!(&answer, Ok(line) if !line.is_empty()), "{answer:?}");
        let leaked = capture.frames().into_iter().find(|f| f.contains(b"after the end"));
        ensure!(leaked.is_none(), "the old client's data reached the container");
        Ok(())
    });
}

#[test]
fn rm_ends_udp_sessions_at_once() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let server = udp::Server::sink(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let socket = udp::client(lab.net.client(), 0)?;
        socket.send_to(b"first", host(8080))?;
        let alias = server.wait_for(b"first")?;
        server.reply(alias, b"welcome")?;
        ensure!(!udp::silent(&socket, Duration::from_secs(1))?, "no reply before rm");
        socket.send_to(b"second", host(8080))?;
        server.wait_for(b"second")?;
        lab.daemon.ctl(&["rm", "8080/udp"])?.ok()?;
        server.reply(alias, b"too late")?;
        ensure!(udp::silent(&socket, Duration::from_millis(300))?, "a reply after rm");
        let _ = socket.send_to(b"third", host(8080));
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(server.seen().len(), 2, "a datagram after rm reached the container");
        Ok(())
    });
}

#[test]
fn a_restarted_container_works_within_a_second() {
    case::run(|case| {
        let mut lab = Lab::simple(case)?;
        let server = tcp::Server::page(lab.net.container(), (ANY, 80), "one")?;
        lab.daemon.add("8080", TARGET)?;
        ensure!(tcp::fetch(lab.net.client(), host(8080))?.starts_with("one"));
        drop(server);
        for round in ["two", "three"] {
            lab.daemon.alter(|| lab.net.restart_container(0))?;
            let _server = tcp::Server::page(lab.net.container(), (ANY, 80), round)?;
            let _echo = udp::Server::echo(lab.net.container(), (ANY, 80))?;
            let start = Instant::now();
            let limit = Duration::from_millis(100);
            let page = loop {
                let outcome = tcp::try_connect(lab.net.client(), host(8080), limit);
                if let Outcome::Connected(mut stream) = outcome {
                    break tcp::ask(&mut stream, "GET /")?;
                }
                ensure!(start.elapsed() < Duration::from_secs(5), "never came back");
            };
            ensure!(page.starts_with(round), "{page}");
            ensure!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
            // And by the fast path again.
            let fast =
                || lab.daemon.entry(&["ls"]).is_ok_and(|publication| publication["path"] == "peer");
            ensure!(shell::wait_until(Duration::from_secs(2), fast), "stays off the fast path");
        }
        Ok(())
    });
}

#[test]
fn an_address_given_to_another_container_inherits_no_client() {
    case::run(|case| {
        let mut lab = Lab::simple(case)?;
        let server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        let datagrams = udp::Server::sink(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.add("8080/udp", TARGET)?;
        let mut old = tcp::connect(lab.net.client(), host(8080))?;
        assert_eq!(tcp::ask(&mut old, "before")?, "before");
        let socket = udp::client(lab.net.client(), 0)?;
        socket.send_to(b"before", host(8080))?;
        datagrams.wait_for(b"before")?;
        let address = lab.daemon.alter(|| lab.net.remove_container(0))?;
        drop((server, datagrams));
        let ended = || lab.daemon.entries(&["sessions"]).is_ok_and(|sessions| sessions.is_empty());
        // The list is swept every 5 s; no packet waits for that.
        ensure!(shell::wait_until(Duration::from_secs(8), ended), "sessions outlive their target");
        lab.daemon.ctl(&["rm", "8080/udp"])?.ok()?;

        lab.daemon.alter(|| lab.net.add_container(address))?;
        let capture = raw::Capture::start(lab.net.container(), "eth0")?;
        let heir = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        let heir_udp = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        std::thread::sleep(Duration::from_millis(500));
        old.set_read_timeout(Some(Duration::from_secs(1)))?;
        let answer = tcp::ask(&mut old, "secret of the old client");
        ensure!(!matches!(&answer, Ok(line) if !line.is_empty()), "{answer:?}");
        let _ = socket.send_to(b"another secret", host(8080));
        ensure!(udp::silent(&socket, Duration::from_millis(300)).unwrap_or(true));
        let leaked = capture.frames().into_iter().filter(|f| f.contains(b"secret"));
        assert_eq!(leaked.count(), 0, "the old client's packets reach the heir");
        ensure!(heir.peers().is_empty() && heir_udp.seen().is_empty());
        // The publication leads to the heir now; a new connection is a new matter.
        let mut new = tcp::connect(lab.net.client(), host(8080))?;
        assert_eq!(tcp::ask(&mut new, "hello")?, "hello");
        Ok(())
    });
}

#[test]
fn a_session_isnt_taken_over_while_its_publication_drains() {
    case::run(|case| {
        let mut lab = Lab::simple(case)?;
        let server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        let mut old = tcp::connect(lab.net.client(), host(8080))?;
        assert_eq!(tcp::ask(&mut old, "before")?, "before");
        lab.daemon.ctl(&["rm", "8080"])?.ok()?;
        let address = lab.daemon.alter(|| lab.net.remove_container(0))?;
        drop(server);
        lab.daemon.alter(|| lab.net.add_container(address))?;
        let capture = raw::Capture::start(lab.net.container(), "eth0")?;
        let _heir = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        std::thread::sleep(Duration::from_millis(500));
        old.set_read_timeout(Some(Duration::from_millis(700)))?;
        let _ = old.write_all(b"secret of the old client");
        let _ = old.read(&mut [0; 16]);
        ensure!(!capture.frames().iter().any(|f| f.contains(b"secret")), "it reached the heir");
        Ok(())
    });
}

#[test]
fn publications_come_back_from_disk_after_a_reboot() {
    case::run(|case| {
        let mut lab = Lab::with(case, Options { containers: 2, ..Options::default() })?;
        let _first = tcp::Server::page(lab.net.container(), (ANY, 80), "first")?;
        let _second = tcp::Server::page(&lab.net.containers[1].ns, (ANY, 81), "second")?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.add("9000-9001", "172.17.0.3:80-81")?;
        lab.daemon.add("7000", "172.17.0.3:81")?;
        lab.daemon.ctl(&["rm", "7000"])?.ok()?;
        let before = lab.daemon.entries(&["ls"])?;
        lab.daemon.kill()?;
        // What a reboot takes: the pins, and with them programs and maps.
        std::fs::remove_dir_all(lab.daemon.pin_dir())?;
        lab.daemon.launch()?;
        let after = lab.daemon.entries(&["ls"])?;
        for (old, new) in before.iter().zip(&after) {
            for field in ["id", "ports", "protocol", "target", "created"] {
                assert_eq!(old[field], new[field], "{field}");
            }
        }
        assert_eq!(before.len(), after.len());
        ensure!(tcp::fetch(lab.net.client(), host(8080))?.starts_with("first"));
        ensure!(tcp::fetch(lab.net.client(), host(9001))?.starts_with("second"));
        // An id is never given twice.
        lab.daemon.add("7000", "172.17.0.3:81")?;
        let ids = |list: &[serde_json::Value]| list.iter().filter_map(|p| p["id"].as_u64()).max();
        ensure!(ids(&lab.daemon.entries(&["ls"])?) > ids(&before).map(|id| id + 1));
        Ok(())
    });
}

#[test]
fn two_daemons_on_one_machine_keep_to_themselves() {
    case::run(|case| {
        let first = Lab::simple(case)?;
        let mut second = Lab::simple(case)?;
        let _one = tcp::Server::page(first.net.container(), (ANY, 80), "one")?;
        let _two = tcp::Server::page(second.net.container(), (ANY, 80), "two")?;
        first.daemon.add("8080", TARGET)?;
        second.daemon.add("8081", TARGET)?;
        refused(first.net.client(), host(8081))?;
        ensure!(tcp::fetch(first.net.client(), host(8080))?.starts_with("one"));
        ensure!(tcp::fetch(second.net.client(), host(8081))?.starts_with("two"));
        second.daemon.uninstall()?;
        refused(second.net.client(), host(8081))?;
        ensure!(tcp::fetch(first.net.client(), host(8080))?.starts_with("one"));
        Ok(())
    });
}

#[test]
fn a_target_that_comes_later_is_reached_without_a_command() {
    case::run(|case| {
        let mut lab = Lab::simple(case)?;
        let answer = lab.daemon.ctl(&["add", "8080", "172.17.0.9:80"])?.ok()?;
        assert_eq!(answer.stdout, "8080/tcp -> 172.17.0.9:80\n");
        lab.daemon.alter(|| lab.net.add_container([172, 17, 0, 9].into()))?;
        let _server = tcp::Server::page(&lab.net.containers[1].ns, (ANY, 80), "late")?;
        let limit = Duration::from_millis(200);
        let connects = || {
            let outcome = tcp::try_connect(lab.net.client(), host(8080), limit);
            matches!(outcome, Outcome::Connected(_))
        };
        ensure!(shell::wait_until(Duration::from_secs(3), connects), "never reached");
        ensure!(tcp::fetch(lab.net.client(), host(8080))?.starts_with("late"));
        Ok(())
    });
}
