//! How many sessions there can be, what one costs, and how fast they may come and go.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use publisher_tests::bench::statistics::{Ratio, median};
use publisher_tests::case;
use publisher_tests::drops::drops;
use publisher_tests::lab::TARGET;
use publisher_tests::load::opener::{Clients, Opener};
use publisher_tests::load::scene::Scene;
use publisher_tests::load::{accounts, churn, is_full};
use publisher_tests::topology::host;
use publisher_tests::traffic::tcp;

const ANY: [u8; 4] = [0, 0, 0, 0];
/// Pairs of windows, with the empty and with the full table.
const PAIRS: usize = 75;
/// What is measured of each.
const WINDOW: Duration = Duration::from_millis(60);
/// What is left of the request rate when the table is full.
const KEPT: f64 = 0.95;
/// The part of a processor that the daemon may take when nothing happens.
const IDLE: f64 = 0.01;
const KIBIBYTE: f64 = 1024.0;

/// Requests in a second on one connection that stays open.
fn requests(stream: &mut TcpStream) -> Result<f64> {
    let (start, mut count) = (Instant::now(), 0u32);
    let mut answer = [0; 64];
    while start.elapsed() < WINDOW {
        stream.write_all(&[count as u8; 64])?;
        stream.read_exact(&mut answer).context("no answer")?;
        ensure!(answer == [count as u8; 64], "another answer");
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

/// The request rate of the second connection against that of the first.
fn compared(streams: &mut [TcpStream; 2]) -> Result<Ratio> {
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..PAIRS {
        // Each of them is the first of a pair in turn.
        for index in [round % 2, 1 - round % 2] {
            rates[index].push(requests(&mut streams[index])?);
        }
    }
    println!("  {:.0} and {:.0} requests per second", median(&rates[0]), median(&rates[1]));
    Ok(Ratio::of(&rates[1], &rates[0]))
}

/// Sessions that end within the test would make it another one: they live for an hour.
fn config(capacity: u64) -> String {
    format!("[sessions]\ncapacity = {capacity}\n[timers]\nudp = 3600\n")
}

fn filled(sessions: u64) {
    case::run(|case| {
        let [mut empty, mut full] =
            [Scene::new(case, &config(sessions))?, Scene::new(case, &config(sessions))?];
        let mut servers = Vec::new();
        let mut connect = |scene: &mut Scene<'_>| -> Result<TcpStream> {
            let server = tcp::Server::start(scene.net.container(), (ANY, 81), |stream| {
                // Nobody asks while the table fills.
                if stream.set_read_timeout(None).is_ok() {
                    tcp::echo(stream);
                }
            })?;
            servers.push(server);
            scene.daemon.add("8081", &TARGET.replace(":80", ":81"))?;
            tcp::connect(scene.net.client(), host(8081))
        };
        let mut streams = [connect(&mut empty)?, connect(&mut full)?];
        let both_empty = compared(&mut streams)?;

        // The open connection is one of them.
        let (start, wanted) = (Instant::now(), sessions - 1);
        let mut opener = Opener::new(full.net.client(), "eth0", &full.to, Clients::MANY)?;
        let opened = opener.open(0..wanted)?;
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{sessions} sessions: {opened} opened in {seconds:.1} s, {:.0} per second",
            opened as f64 / seconds,
        );
        let used = full.daemon.used("established")?;
        println!("  {used} in the table; drops {:?}", drops(&full.daemon)?);

        let pid = full.daemon.pid()?;
        let maps = accounts::maps(pid)?;
        let bytes = |pick: &dyn Fn(&accounts::Map) -> bool| {
            maps.iter().filter(|map| pick(map)).map(|map| map.bytes).sum::<u64>() as f64
        };
        // The tables whose size follows the capacity: sessions in both directions, and aliases.
        let growing = bytes(&|map| map.capacity == sessions);
        println!(
            "  {:.0} bytes of map for each session, all maps {:.0} MiB",
            growing / sessions as f64,
            bytes(&|_| true) / KIBIBYTE / KIBIBYTE,
        );

        // Passes over the sessions lie apart the further the more there are.
        let idle = Duration::from_secs(if is_full() { 150 } else { 15 });
        let before = accounts::processor_time(pid)?;
        std::thread::sleep(idle);
        let spent = accounts::processor_time(pid)? - before;
        let busy = spent.as_secs_f64() / idle.as_secs_f64();
        println!(
            "  idle for {idle:?}: the daemon takes {spent:?}, {:.2} % of a processor",
            busy * 100.0
        );

        println!(
            "  the daemon's memory was at most {:.1} MiB, with an empty table {:.1} MiB",
            accounts::most_resident(pid)? as f64 / KIBIBYTE / KIBIBYTE,
            accounts::most_resident(empty.daemon.pid()?)? as f64 / KIBIBYTE / KIBIBYTE,
        );

        let kept = compared(&mut streams)?;
        println!(
            "  requests: full against empty {:.3}, 95 % of {:.3?}; when both were empty {:.3}",
            kept.paired, kept.interval, both_empty.paired
        );

        // A sample is enough to see that they are still there, and in use.
        let sample = wanted.min(20_000);
        let alive = opener.refresh(wanted - sample..wanted)?;
        ensure!(opened == wanted, "{opened} of {wanted} sessions opened");
        ensure!(used == sessions, "{used} of {sessions} sessions are established");
        ensure!(alive == sample, "{alive} of {sample} sessions still answer");
        // Noise alone decides nothing: it fails where all of the interval lies below.
        ensure!(kept.interval[1] >= KEPT, "requests keep {:.3} of their rate", kept.paired);
        ensure!(busy < IDLE, "the daemon takes {:.2} % of a processor", busy * 100.0);
        Ok(())
    });
}

#[test]
fn a_full_table_costs_memory_and_nothing_else() {
    filled(if is_full() { 1_000_000 } else { 100_000 });
}

#[test]
fn a_fuller_table_does_not_either() {
    // Some minutes and gigabytes: in the long runs only.
    filled(if is_full() { 4_000_000 } else { 200_000 });
}

/// Four addresses of the client's, so that no port comes again soon.
fn addresses(scene: &Scene<'_>) -> Result<Vec<std::net::Ipv6Addr>> {
    let address = |index: u16| std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 1, index);
    (0..4)
        .map(|index| {
            let address = address(index);
            scene.net.client().ip(&format!("addr add {address}/64 dev eth0 nodad"))?;
            Ok(address)
        })
        .collect()
}

fn shown(what: &str, outcome: &churn::Outcome) {
    println!(
        "{what}: {} answered, {} failed, {:.0} per second, the longest took {:?}",
        outcome.answered,
        outcome.failed,
        outcome.per_second(),
        outcome.longest
    );
}

#[test]
fn short_connections_in_a_row() {
    case::run(|case| {
        let scene = Scene::new(case, "")?;
        let plan = churn::Plan {
            threads: 1,
            per_second: f64::INFINITY,
            count: if is_full() { 100_000 } else { 20_000 },
            duration: Duration::from_secs(600),
        };
        let outcome = churn::run(scene.net.client(), host(8080), &addresses(&scene)?[..1], &plan)?;
        shown("in a row", &outcome);
        ensure!(outcome.failed == 0, "{:?}; drops {:?}", outcome.faults, drops(&scene.daemon)?);
        ensure!(outcome.answered == plan.count, "{} answered", outcome.answered);
        Ok(())
    });
}

#[test]
fn many_connections_a_second_with_the_daemon_killed() {
    case::run(|case| {
        let mut scene = Scene::new(case, "")?;
        let addresses = addresses(&scene)?;
        let plan = churn::Plan {
            threads: 8,
            per_second: 10_000.0,
            count: u64::MAX,
            duration: Duration::from_secs(if is_full() { 600 } else { 20 }),
        };
        let Scene { daemon, net, .. } = &mut scene;
        let outcome = std::thread::scope(|scope| -> Result<churn::Outcome> {
            let connections =
                scope.spawn(|| churn::run(net.client(), host(8080), &addresses, &plan));
            std::thread::sleep(Duration::from_secs(3));
            daemon.kill()?;
            connections.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        shown("with the daemon killed after 3 s", &outcome);
        daemon.launch()?;
        println!("  drops: {:?}", drops(daemon)?);
        ensure!(outcome.failed == 0, "{:?}", outcome.faults);
        Ok(())
    });
}
