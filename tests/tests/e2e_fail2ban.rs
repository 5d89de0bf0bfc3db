//! Fail2ban reads a container's log, where clients have aliases, and bans the clients themselves.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use publisher_tests::case::{self, Case};
use publisher_tests::daemon::programs;
use publisher_tests::fail2ban::{Fail2ban, Jail, PATIENCE, failed_login};
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::netns::Netns;
use publisher_tests::shell;
use publisher_tests::topology::{Options, client_address, host};
use publisher_tests::traffic::tcp::{self, Outcome, Server};
use serde_json::json;

const ANY: [u8; 4] = [0, 0, 0, 0];
/// How long a client that is denied waits in vain.
const SILENCE: Duration = Duration::from_millis(1_500);

/// The action that goes to users.
fn action() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../publisher/fail2ban/publisher.conf")
}

/// A service with a password, which logs who didn't know it.
fn service(lab: &Lab<'_>, log: &Path) -> Result<Server> {
    fs::write(log, "")?;
    let log = log.to_owned();
    Server::start(lab.net.container(), (ANY, 80), move |mut stream| {
        // A session may be silent for as long as a ban takes.
        let _ = stream.set_read_timeout(None);
        while let Some(password) = read_line(&mut stream) {
            let answer: &[u8] = if password == "secret" { b"welcome\n" } else { b"wrong\n" };
            if password != "secret"
                && let (Ok(peer), Ok(mut log)) =
                    (stream.peer_addr(), OpenOptions::new().append(true).open(&log))
            {
                let _ = log.write_all(failed_login(peer.ip()).as_bytes());
            }
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    })
}

fn read_line(stream: &mut TcpStream) -> Option<String> {
    let (mut line, mut byte) = (String::new(), [0]);
    loop {
        match stream.read(&mut byte) {
            Ok(1) if byte[0] == b'\n' => return Some(line),
            Ok(1) => line.push(char::from(byte[0])),
            _ => return None,
        }
    }
}

fn fails_to_log_in(client: &Netns, times: usize) -> Result<()> {
    for _ in 0..times {
        let answer = tcp::ask(&mut tcp::connect(client, host(8080))?, "guess")?;
        ensure!(answer == "wrong", "{answer}");
    }
    Ok(())
}

fn logs_in(client: &Netns) -> Result<TcpStream> {
    let mut stream = tcp::connect(client, host(8080))?;
    let answer = tcp::ask(&mut stream, "secret")?;
    ensure!(answer == "welcome", "{answer}");
    Ok(stream)
}

/// A program that writes down what it is called with, one call a line.
fn recorder(case: &Case) -> Result<(PathBuf, PathBuf)> {
    let (program, calls) = (case.directory().join("recorder"), case.directory().join("calls"));
    fs::write(&program, format!("#!/bin/sh\necho \"$@\" >> {}\n", calls.display()))?;
    fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    Ok((program, calls))
}

/// What the action calls, for a jail that bans for `seconds`, until the ban is lifted.
fn called(case: &Case, seconds: i64) -> Result<Vec<String>> {
    let net = Netns::new("host")?;
    let (program, calls) = recorder(case)?;
    let log = case.directory().join("service.log");
    fs::write(&log, "")?;
    let program = program.to_str().context("path")?;
    let jail = Jail {
        log: &log,
        action: &action(),
        parameters: &[("publisherctl", program), ("host", "unix:///somewhere/socket")],
        failures: 3,
        ban: seconds,
    };
    let fail2ban = Fail2ban::start(case, &net, &jail)?;
    let alias: IpAddr = "198.18.7.9".parse()?;
    let mut writer = OpenOptions::new().append(true).open(&log)?;
    for _ in 0..3 {
        writer.write_all(failed_login(alias).as_bytes())?;
    }
    fail2ban.has_banned(alias)?;
    let lines = || -> Vec<String> {
        fs::read_to_string(&calls).unwrap_or_default().lines().map(str::to_owned).collect()
    };
    ensure!(shell::wait_until(PATIENCE, || lines().len() == 1), "{}", fail2ban.log());
    fail2ban.unban(alias)?;
    ensure!(shell::wait_until(PATIENCE, || lines().len() == 2), "{}", fail2ban.log());
    Ok(lines())
}

#[test]
fn the_action_denies_for_as_long_as_the_jail_says() {
    case::run(|case| {
        let host = "-H unix:///somewhere/socket deny";
        assert_eq!(
            called(case, 90)?,
            [format!("{host} add 198.18.7.9 --for 90s"), format!("{host} rm 198.18.7.9")]
        );
        Ok(())
    });
}

#[test]
fn the_action_denies_for_good_where_the_jail_does() {
    case::run(|case| {
        let host = "-H unix:///somewhere/socket deny";
        assert_eq!(
            called(case, -1)?,
            [format!("{host} add 198.18.7.9"), format!("{host} rm 198.18.7.9")]
        );
        Ok(())
    });
}

#[test]
fn a_client_that_guesses_passwords_is_banned() {
    case::run(|case| {
        let lab = Lab::with(case, Options { clients: 2, ..Options::default() })?;
        let log = case.directory().join("service.log");
        let server = service(&lab, &log)?;
        lab.daemon.add("8080", TARGET)?;
        let (program, socket) = (programs()?.join("publisherctl"), lab.daemon.socket());
        let host_parameter = format!("unix://{}", socket.display());
        let jail = Jail {
            log: &log,
            action: &action(),
            parameters: &[
                ("publisherctl", program.to_str().context("path")?),
                ("host", &host_parameter),
            ],
            failures: 3,
            ban: 600,
        };
        let fail2ban = Fail2ban::start(case, &lab.net.host, &jail)?;
        let [bad, good] = [&lab.net.clients[0], &lab.net.clients[1]];

        let mut session = logs_in(bad)?;
        let alias = server.last_peer()?.ip();
        let mut other = logs_in(good)?;
        fails_to_log_in(bad, 3)?;
        fail2ban.has_banned(alias)?;
        let denied = || {
            let outcome = tcp::try_connect(bad, host(8080), SILENCE);
            matches!(outcome, Outcome::TimedOut)
        };
        ensure!(shell::wait_until(PATIENCE, denied), "not denied: {}", fail2ban.log());

        // Its session has ended, and everybody else's hasn't.
        session.set_read_timeout(Some(SILENCE))?;
        let answer = tcp::ask(&mut session, "secret");
        ensure!(answer.as_ref().map_or(true, String::is_empty), "still there: {answer:?}");
        let clients: Vec<_> = lab.daemon.entries(&["sessions"])?;
        let bads = clients.iter().filter(|entry| entry["client"] == json!(client_address(0)));
        ensure!(bads.count() == 0, "{clients:?}");
        ensure!(tcp::ask(&mut other, "secret")? == "welcome", "the other client's session");
        drop(logs_in(good).context("another client")?);

        fail2ban.unban(alias)?;
        let back = shell::wait_until(PATIENCE, || logs_in(bad).is_ok());
        ensure!(back, "still denied: {}", fail2ban.log());
        Ok(())
    });
}
