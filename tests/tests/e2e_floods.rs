//! Floods from a million sources that don't exist: established transfers go on as if only the flood's
//! sender were running, distant clients still get in, and no table of established sessions fills.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use publisher_tests::bench::statistics::{Ratio, median};
use publisher_tests::case;
use publisher_tests::daemon::Daemon;
use publisher_tests::drops::drops;
use publisher_tests::load::flood::{self, Flood, Kind};
use publisher_tests::load::flood_seconds;
use publisher_tests::load::patient::{self, Outcome, Plan};
use publisher_tests::load::scene::Scene;
use publisher_tests::load::sources::{PREFIX_LENGTH, Sources};
use publisher_tests::load::transfers::Transfers;
use publisher_tests::shell;
use publisher_tests::topology::host;
use serde_json::Value;

/// Transfers that go on during a flood.
const TRANSFERS: usize = 200;
/// Rounds of windows, with the flood elsewhere and here.
const ROUNDS: u32 = 5;
/// What is left of the throughput beside the flood's sender.
const KEPT: f64 = 0.9;
/// The part of the clients that get in.
const ANSWERED: f64 = 0.99;
/// The time between the SYN/ACK and the ACK of a client nearby, and of one far away.
const DELAYS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(200)];
/// Clients of each kind that begin in a second.
const CLIENTS_PER_SECOND: f64 = 50.0;
/// What passes before a window is measured.
const SETTLE: Duration = Duration::from_millis(100);

/// Established sessions whose client is a source of the flood.
fn of_the_flood(daemon: &Daemon<'_>) -> Result<Vec<Value>> {
    let prefix = u128::from(Sources::FLOOD.prefix) >> (128 - PREFIX_LENGTH);
    let all = daemon.entries(&["sessions", "state=established", "limit=5000"])?;
    let is_flood = |session: &Value| {
        let client = session["client"].as_str().and_then(|text| text.parse::<Ipv6Addr>().ok());
        client.is_none_or(|client| u128::from(client) >> (128 - PREFIX_LENGTH) == prefix)
    };
    Ok(all.into_iter().filter(is_flood).collect())
}

fn shown(delay: Duration, outcome: &Outcome) -> String {
    let millis = |part: f64| {
        let mut took: Vec<f64> =
            outcome.took.iter().map(|took| took.as_secs_f64() * 1_000.0).collect();
        took.sort_by(f64::total_cmp);
        took.get((took.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN)
    };
    format!(
        "{delay:?}: {} of {} answered, {} reset, {} sent their SYN again, median {:.0} ms, 99 % in {:.0} ms",
        outcome.answered,
        outcome.started,
        outcome.reset,
        outcome.syn_again,
        millis(0.5),
        millis(0.99),
    )
}

/// One window beside a flood.
struct Window {
    /// Throughput of the transfers, in Gbit/s.
    transfers: f64,
    /// Frames of the flood that were sent, in millions per second.
    sent: f64,
    /// Frames of all kinds that the host has taken in, in millions per second.
    taken: f64,
}

/// Frames of floods so far, so that no flood repeats a tuple of another one.
type Sent = u64;

impl Window {
    fn measure(
        scene: &Scene<'_>,
        transfers: &Transfers,
        length: Duration,
        plan: flood::Plan,
        sent: &mut Sent,
    ) -> Result<Self> {
        let plan = flood::Plan { first: *sent, ..plan };
        let flood = Flood::start(scene.net.client(), "eth0", plan)?;
        std::thread::sleep(SETTLE);
        let (start, before, taken) = (Instant::now(), flood.sent(), scene.taken()?);
        let gigabits = transfers.gigabits(&scene.hub, length);
        let millions = |count: u64| count as f64 / 1e6 / start.elapsed().as_secs_f64();
        let window = Self {
            transfers: gigabits,
            sent: millions(flood.sent() - before),
            taken: millions(scene.taken()? - taken),
        };
        *sent += flood.end()?;
        Ok(window)
    }
}

fn flooded(kind: Kind) {
    case::run(|case| {
        let scene = Scene::new(case, "")?;
        let client = scene.net.client();
        let transfers = Transfers::start(client, host(8080), TRANSFERS)?;
        let length = flood_seconds() / (3 * ROUNDS + 3);
        std::thread::sleep(Duration::from_millis(500));
        let before = transfers.gigabits(&scene.hub, 3 * length);
        println!("{kind:?}: {TRANSFERS} transfers alone: {before:.2} Gbit/s");

        let real =
            flood::Plan { kind, to: scene.to, sources: Sources::FLOOD, first: 0, per_second: None };
        let alone = flood::Plan { to: scene.elsewhere(), ..real };
        let mut sent = 0;
        let mut windows = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let mut measure = |plan| Window::measure(&scene, &transfers, length, plan, &mut sent);
            let under = measure(real)?;
            windows[0].push(measure(alone)?);
            // What the sender takes for the frames that it gets rid of in a real flood, where the
            // host's work on them is done in its time.
            let same = flood::Plan { per_second: Some(under.sent * 1e6), ..alone };
            windows[1].push(measure(same)?);
            windows[2].push(under);
        }
        let of = |windows: &[Window], pick: fn(&Window) -> f64| -> Vec<f64> {
            windows.iter().map(pick).collect()
        };
        let names = ["a flood elsewhere", "one as slow as the real one", "the real one"];
        for (what, windows) in names.iter().zip(&windows) {
            println!(
                "  beside {what}: {:.2} Gbit/s; {:.2} million frames/s sent, {:.2} taken in",
                median(&of(windows, |window| window.transfers)),
                median(&of(windows, |window| window.sent)),
                median(&of(windows, |window| window.taken)),
            );
        }
        let [alone, same, under] = windows.map(|windows| of(&windows, |window| window.transfers));
        let (kept, of_same) = (Ratio::of(&under, &alone), Ratio::of(&under, &same));
        println!(
            "  kept: {:.2}, 95 % of {:.2?}; of what the slow one leaves: {:.2}, 95 % of {:.2?}",
            kept.paired, kept.interval, of_same.paired, of_same.interval
        );

        // Longer, without a break, and with the processors for itself: clients that come meanwhile.
        transfers.go_gently();
        let spread = flood_seconds() / 2;
        let flood = Flood::start(client, "eth0", flood::Plan { first: sent, ..real })?;
        std::thread::sleep(SETTLE);
        let (start, before, taken) = (Instant::now(), flood.sent(), scene.taken()?);
        let plan = Plan {
            delays: DELAYS,
            count: (spread.as_secs_f64() * CLIENTS_PER_SECOND) as usize,
            spread,
            first: 0,
        };
        let outcomes = patient::run(client, "eth0", scene.to, &plan)?;
        let millions = |count: u64| count as f64 / 1e6 / start.elapsed().as_secs_f64();
        println!(
            "  then {:.2} million frames/s sent, {:.2} taken in",
            millions(flood.sent() - before),
            millions(scene.taken()? - taken),
        );
        let established = scene.daemon.used("established")?;
        sent += flood.end()?;
        for (delay, outcome) in DELAYS.iter().zip(&outcomes) {
            println!("  clients {}", shown(*delay, outcome));
        }
        println!("  {sent} frames in all, {established} sessions established");
        println!("  drops: {:?}", drops(&scene.daemon)?);

        transfers.all_go_on(&scene.hub)?;
        // The clients have gone by now. One whose last packets were lost in the flood may have left its
        // session behind; a source of the flood may have none.
        let mut left = Vec::new();
        let settled = shell::wait_until(Duration::from_secs(5), || {
            let found = of_the_flood(&scene.daemon);
            let is_read = found.is_ok();
            left = found.unwrap_or_default();
            is_read && left.is_empty()
        });
        ensure!(settled, "{} sessions of the flood: {:?}", left.len(), left.first());
        let used = scene.daemon.used("established")?;
        let clients: usize = outcomes.iter().map(|outcome| outcome.started).sum();
        let expected = TRANSFERS as u64..=(TRANSFERS + clients / 100) as u64;
        ensure!(expected.contains(&used), "{used} sessions are left");
        for (delay, outcome) in DELAYS.iter().zip(&outcomes) {
            ensure!(outcome.rate() >= ANSWERED, "clients {}", shown(*delay, outcome));
        }
        // Noise alone decides nothing: it fails where all of the interval lies below.
        ensure!(kept.interval[1] >= KEPT, "transfers keep {:.2} of their throughput", kept.paired);
        Ok(())
    });
}

#[test]
fn a_flood_of_syns() {
    flooded(Kind::Syn);
}

#[test]
fn a_flood_of_syns_and_guessed_acks() {
    flooded(Kind::SynAck);
}

#[test]
fn a_flood_of_datagrams() {
    flooded(Kind::Udp);
}
