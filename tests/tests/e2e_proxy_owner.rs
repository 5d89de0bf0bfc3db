//! The socket proxy as its owner has it: who may connect, who has connected, what `rm` ends, and whose port
//! it is.

use std::io::ErrorKind;
use std::net::{Ipv6Addr, TcpListener};
use std::time::Duration;

use anyhow::{Result, ensure};
use publisher_tests::case;
use publisher_tests::drops::drops;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::shell;
use publisher_tests::topology::{HOST, Options, client_address, host};
use publisher_tests::traffic::{tcp, udp};

const ANY: [u8; 4] = [0, 0, 0, 0];
const SOON: Duration = Duration::from_secs(2);

#[test]
fn who_may_not_connect_is_refused_under_the_same_reasons() {
    case::run(|case| {
        let lab = Lab::proxied(case, &["--deny", "2001:db8:1::c1", "--max-sessions", "3"])?;
        let _server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        let refused = |client: usize| -> Result<()> {
            match tcp::try_connect(&lab.net.clients[client], host(8080), SOON) {
                tcp::Outcome::Connected(mut stream) => tcp::is_reset(&mut stream),
                // It came before the client had looked.
                tcp::Outcome::Failed(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
                other => anyhow::bail!("{other:?}"),
            }
        };
        let count = |reason: &str| -> Result<u64> {
            Ok(drops(&lab.daemon)?.get(reason).copied().unwrap_or(0))
        };
        refused(1)?;
        assert_eq!(count("denied")?, 1);
        let mut streams = Vec::new();
        for n in 0..3 {
            let mut stream = tcp::connect(lab.net.client(), host(8080))?;
            assert_eq!(tcp::ask(&mut stream, &format!("{n}"))?, format!("{n}"));
            streams.push(stream);
        }
        refused(0)?;
        assert_eq!(count("session_limit")?, 1);
        drop(streams.pop());
        let free = || lab.daemon.entries(&["sessions"]).is_ok_and(|it| it.len() == 2);
        ensure!(shell::wait_until(SOON, free), "a session that has ended counts");
        streams.push(tcp::connect(lab.net.client(), host(8080))?);
        // A ban ends what there is.
        lab.daemon.ctl(&["deny", "add", "2001:db8:1::c0"])?.ok()?;
        for stream in &mut streams {
            tcp::is_reset(stream)?;
        }
        refused(0)?;
        Ok(())
    });
}

#[test]
fn the_session_log_and_whois_know_the_proxys_sessions() {
    case::run(|case| {
        let lab = Lab::proxied(case, &[])?;
        let server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        tcp::ask(&mut stream, "four")?;
        let seen = server.last_peer()?;
        let whois = || lab.daemon.entry(&["whois", &seen.to_string()]);
        let view = whois()?;
        assert_eq!(view["client"], client_address(0).to_string());
        assert_eq!(view["client_port"], stream.local_addr()?.port());
        let session = lab.daemon.entry(&["sessions"])?;
        assert_eq!((&session["bytes_in"], &session["bytes_out"]), (&5.into(), &5.into()));
        drop(stream);
        let ended = || whois().is_ok_and(|view| !view["ended"].is_null());
        ensure!(shell::wait_until(SOON, ended), "{:?}", whois());
        Ok(())
    });
}

#[test]
fn rm_lets_connections_finish_and_kill_ends_them() {
    case::run(|case| {
        let lab = Lab::proxied(case, &[])?;
        let _server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        let _udp = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        tcp::ask(&mut stream, "before")?;
        lab.daemon.ctl(&["rm", "8080"])?.ok()?;
        assert_eq!(tcp::ask(&mut stream, "after")?, "after");
        let outcome = tcp::try_connect(lab.net.client(), host(8080), SOON);
        ensure!(matches!(outcome, tcp::Outcome::Refused), "{outcome:?}");
        // The port is free, and can be published again meanwhile.
        lab.daemon.ctl(&["add", "8080", TARGET, "--path", "proxy"])?.ok()?;
        let mut second = tcp::connect(lab.net.client(), host(8080))?;
        tcp::ask(&mut second, "a second one")?;
        lab.daemon.ctl(&["rm", "8080", "--kill"])?.ok()?;
        tcp::is_reset(&mut second)?;
        assert_eq!(tcp::ask(&mut stream, "still there")?, "still there");
        Ok(())
    });
}

#[test]
fn a_port_that_somebody_has_is_a_conflict_that_names_him() {
    case::run(|case| {
        let lab = Lab::with(case, Options::default())?;
        let _server = tcp::Server::page(lab.net.container(), (ANY, 80), "inside")?;
        let theirs = tcp::Server::page(&lab.net.host, (Ipv6Addr::UNSPECIFIED, 8080), "theirs")?;
        let me = format!("process {}", std::process::id());
        let line = lab.daemon.ctl(&["add", "8080", TARGET])?.failed_with(5)?;
        ensure!(line.contains("port 8080/tcp is held by") && line.contains(&me), "{line}");
        ensure!(lab.daemon.entries(&["ls"])?.is_empty(), "a refused publication is there");
        let udp = udp::Server::echo(&lab.net.host, (Ipv6Addr::UNSPECIFIED, 8080))?;
        let line = lab.daemon.ctl(&["add", "8080/udp", TARGET])?.failed_with(5)?;
        ensure!(line.contains("port 8080/udp is held by"), "{line}");
        drop(udp);
        // Beside it, clients are served by the kernel, the host itself among them.
        lab.daemon.ctl(&["add", "8080", TARGET, "--path", "kernel"])?.ok()?;
        let fetch = |ns, address| tcp::fetch(ns, (address, 8080));
        ensure!(fetch(lab.net.client(), HOST)?.starts_with("inside"));
        ensure!(fetch(&lab.net.host, HOST)?.starts_with("inside"));
        // Once it is free, the port can be held.
        drop(theirs);
        lab.daemon.ctl(&["add", "8080", TARGET, "--path", "auto"])?.ok()?;
        ensure!(fetch(&lab.net.host, HOST)?.starts_with("inside"));
        let line = lab.net.host.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 8080)));
        ensure!(line.is_err(), "a published port can be taken");
        Ok(())
    });
}
