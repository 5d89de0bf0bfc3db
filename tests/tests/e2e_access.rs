//! Who is let in, how often, and who is kept out at run time.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use publisher_tests::case::{self, Case};
use publisher_tests::drops::drops;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::netns::Netns;
use publisher_tests::shell;
use publisher_tests::topology::{Options, client_address, host};
use publisher_tests::traffic::tcp::{self, Outcome};

const ANY: [u8; 4] = [0, 0, 0, 0];
/// Shorter than the first retransmission of a SYN.
const SHORT: Duration = Duration::from_millis(700);

/// Two clients in one /64, and an echo server on the container's port 80.
fn two_clients(case: &Case) -> Result<(Lab<'_>, tcp::Server)> {
    let lab = Lab::with(case, Options { clients: 2, ..Options::default() })?;
    let server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
    Ok((lab, server))
}

fn lets_in(client: &Netns, port: u16) -> Result<TcpStream> {
    let mut stream = tcp::connect(client, host(port))?;
    talks(&mut stream)?;
    Ok(stream)
}

/// Whether an echo comes back.
fn talks(stream: &mut TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"ping")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).context("no echo")?;
    ensure!(&answer == b"ping");
    Ok(())
}

fn keeps_out(client: &Netns, port: u16) -> Result<()> {
    let outcome = tcp::try_connect(client, host(port), SHORT);
    ensure!(matches!(outcome, Outcome::TimedOut), "{outcome:?}");
    Ok(())
}

/// Does `body` and says how often packets were dropped for `reason` meanwhile.
fn counted(lab: &Lab<'_>, reason: &str, body: impl FnOnce() -> Result<()>) -> Result<u64> {
    let count = |drops: BTreeMap<String, u64>| drops.get(reason).copied().unwrap_or(0);
    let before = count(drops(&lab.daemon)?);
    body()?;
    Ok(count(drops(&lab.daemon)?) - before)
}

fn ctl(lab: &Lab<'_>, args: &[&str]) -> Result<String> {
    Ok(lab.daemon.ctl(args)?.ok()?.stdout)
}

#[test]
fn the_longest_prefix_decides() {
    case::run(|case| {
        let (lab, _server) = two_clients(case)?;
        let [one, two] = [&lab.net.clients[0], &lab.net.clients[1]];
        let address = client_address(1).to_string();
        ctl(&lab, &["add", "8080", TARGET, "--allow", "2001:db8:1::/64", "--deny", &address])?;
        lets_in(one, 8080)?;
        let denied = counted(&lab, "denied", || keeps_out(two, 8080))?;
        ensure!(denied >= 1, "counted {denied}");
        // The other way round.
        ctl(&lab, &["add", "8081", TARGET, "--deny", "2001:db8:1::/64", "--allow", &address])?;
        lets_in(two, 8081)?;
        keeps_out(one, 8081)?;
        // Denied by name, everybody else is let in; allowed by name, nobody else is.
        ctl(&lab, &["add", "8082", TARGET, "--deny", &address])?;
        lets_in(one, 8082)?;
        keeps_out(two, 8082)?;
        ctl(&lab, &["add", "8083", TARGET, "--allow", "2001:db8:ffff::/48"])?;
        keeps_out(one, 8083)?;
        // Rules of one publication are none of another's, and what isn't published stays closed.
        ctl(&lab, &["add", "8084", TARGET])?;
        lets_in(two, 8084)?;
        for client in [one, two] {
            let outcome = tcp::try_connect(client, host(8085), SHORT);
            ensure!(matches!(outcome, Outcome::Refused), "{outcome:?}");
        }
        Ok(())
    });
}

#[test]
fn rules_change_in_place() {
    case::run(|case| {
        let (mut lab, _server) = two_clients(case)?;
        ctl(&lab, &["add", "8080", TARGET])?;
        let mut stream = lets_in(&lab.net.clients[1], 8080)?;
        let address = client_address(1).to_string();
        let said = ctl(&lab, &["add", "8080", TARGET, "--deny", &address])?;
        ensure!(said == "8080/tcp -> 172.17.0.2:80 (updated)\n", "{said}");
        keeps_out(&lab.net.clients[1], 8080)?;
        talks(&mut stream).context("a session that was there goes on")?;
        // The rules outlive the daemon, and hold without it.
        lab.daemon.kill()?;
        keeps_out(&lab.net.clients[1], 8080)?;
        lab.daemon.launch()?;
        keeps_out(&lab.net.clients[1], 8080)?;
        lets_in(&lab.net.clients[0], 8080)?;
        let answer = lab.daemon.ctl(&["add", "8080", TARGET])?.ok()?;
        ensure!(answer.stderr.contains("every client is let in now"), "{answer:?}");
        lets_in(&lab.net.clients[1], 8080)?;
        Ok(())
    });
}

#[test]
fn sessions_are_capped() {
    case::run(|case| {
        let (lab, _server) = two_clients(case)?;
        ctl(&lab, &["add", "8080", TARGET, "--max-sessions", "2"])?;
        ctl(&lab, &["add", "8081", TARGET])?;
        let client = lab.net.client();
        let first = lets_in(client, 8080)?;
        let mut second = lets_in(&lab.net.clients[1], 8080)?;
        let refused = counted(&lab, "session_limit", || keeps_out(client, 8080))?;
        ensure!(refused >= 1, "counted {refused}");
        talks(&mut second).context("one that is there goes on")?;
        lets_in(client, 8081).context("another publication")?;
        drop(first);
        let again = shell::wait_until(Duration::from_secs(3), || lets_in(client, 8080).is_ok());
        ensure!(again, "there is room once a session has ended");
        Ok(())
    });
}

#[test]
fn new_sessions_are_counted_by_the_second() {
    case::run(|case| {
        let (lab, _server) = two_clients(case)?;
        ctl(&lab, &["add", "8080", TARGET, "--rate", "5"])?;
        ctl(&lab, &["add", "8081", TARGET, "--source-rate", "5"])?;
        for (port, reason) in [(8080, "rate"), (8081, "source_rate")] {
            let client = lab.net.client();
            let mut connected = 0;
            let refused = counted(&lab, reason, || {
                // 30 at once fall into two seconds at most.
                std::thread::scope(|scope| {
                    let attempts: Vec<_> = (0..30)
                        .map(|_| scope.spawn(|| tcp::try_connect(client, host(port), SHORT)))
                        .collect();
                    for attempt in attempts {
                        let outcome = attempt.join().expect("an attempt");
                        connected += usize::from(matches!(outcome, Outcome::Connected(_)));
                    }
                });
                Ok(())
            })?;
            ensure!((5..=10).contains(&connected), "{reason}: {connected} connected");
            ensure!(refused >= 20, "{reason}: counted {refused}");
            std::thread::sleep(Duration::from_millis(1_100));
            lets_in(client, port).with_context(|| format!("{reason}: a second later"))?;
        }
        Ok(())
    });
}

#[test]
fn a_ban_by_address_ends_what_runs_and_nothing_else() {
    case::run(|case| {
        let (lab, _server) = two_clients(case)?;
        ctl(&lab, &["add", "8080", TARGET])?;
        let [one, two] = [&lab.net.clients[0], &lab.net.clients[1]];
        let mut kept = lets_in(one, 8080)?;
        let mut ended = lets_in(two, 8080)?;
        let address = client_address(1).to_string();
        let said = ctl(&lab, &["deny", "add", &address, "--for", "2s"])?;
        ensure!(said.contains("; 1 session ended"), "{said}");
        ensure!(talks(&mut ended).is_err(), "it goes on");
        talks(&mut kept)?;
        lets_in(one, 8080)?;
        // It ends by itself, and is gone from the list then.
        std::thread::sleep(Duration::from_secs(2));
        let over = shell::wait_until(Duration::from_secs(4), || lets_in(two, 8080).is_ok());
        ensure!(over, "the ban doesn't end");
        let gone = shell::wait_until(Duration::from_secs(3), || {
            lab.daemon.entries(&["deny", "ls"]).is_ok_and(|bans| bans.is_empty())
        });
        ensure!(gone, "it is still listed");
        lab.daemon.ctl(&["deny", "rm", &address])?.failed_with(4)?;
        Ok(())
    });
}

#[test]
fn a_ban_by_alias_is_the_clients() {
    case::run(|case| {
        let (lab, server) = two_clients(case)?;
        ctl(&lab, &["add", "8080", TARGET])?;
        let [one, two] = [&lab.net.clients[0], &lab.net.clients[1]];
        let mut kept = lets_in(one, 8080)?;
        let mut ended = lets_in(two, 8080)?;
        let alias = server.last_peer()?.ip().to_string();
        let said = ctl(&lab, &["deny", "add", &alias])?;
        let client = client_address(1);
        ensure!(said.starts_with(&format!("denied {client} (alias {alias}) for good")), "{said}");
        let denied = counted(&lab, "denied", || keeps_out(two, 8080))?;
        ensure!(denied >= 1, "counted {denied}");
        ensure!(talks(&mut ended).is_err(), "it goes on");
        talks(&mut kept)?;
        let ban = lab.daemon.entry(&["deny", "ls"])?;
        assert_eq!(
            (ban["clients"].as_str(), ban["alias"].as_str()),
            (Some(client.to_string().as_str()), Some(alias.as_str()))
        );
        let said = ctl(&lab, &["deny", "rm", &alias])?;
        ensure!(said.contains(&client.to_string()), "{said}");
        lets_in(two, 8080)?;
        lab.daemon.ctl(&["deny", "add", "198.19.250.250"])?.failed_with(4)?;
        Ok(())
    });
}

#[test]
fn a_ban_outlives_the_daemon() {
    case::run(|case| {
        let (mut lab, _server) = two_clients(case)?;
        ctl(&lab, &["add", "8080", TARGET])?;
        let address = client_address(1).to_string();
        ctl(&lab, &["deny", "add", &address])?;
        keeps_out(&lab.net.clients[1], 8080)?;
        lab.daemon.kill()?;
        keeps_out(&lab.net.clients[1], 8080).context("without a daemon")?;
        lab.daemon.launch()?;
        keeps_out(&lab.net.clients[1], 8080).context("with the next daemon")?;
        lets_in(&lab.net.clients[0], 8080)?;
        assert_eq!(lab.daemon.entry(&["deny", "ls"])?["clients"], address);
        ctl(&lab, &["deny", "rm", &address])?;
        lets_in(&lab.net.clients[1], 8080)?;
        Ok(())
    });
}
