//! Random and damaged packets through the loaded programs and through the native core: verdict,
//! bytes, sessions and counters must be the same, and etherparse must find nothing wrong with what
//! is translated.
//!
//! Episodes that are kept (`random/kept.txt`) come first. `PUBLISHER_DIFFERENTIAL_PACKETS` sets how
//! many random packets follow (200,000; 10,000,000 in a full run), `PUBLISHER_DIFFERENTIAL_SEED`
//! repeats a run, and `PUBLISHER_DIFFERENTIAL_KEEP=1` prints the first episode that comes to each
//! verdict, to be kept. One that fails is printed in any case, cut down to what it takes.

mod random;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use publisher_tests::mirror::{Mirror, Step};
use publisher_tests::{case, netns::Netns};
use random::counts::{Counts, verdict};
use random::episode::{self, Episode, Event};
use random::{Random, Traffic};

/// Packets on one set of tables.
const EPISODE: u64 = 400;
/// Random packets of a run.
const SHORT: u64 = 200_000;
/// The same where the long runs are asked for.
const LONG: u64 = 10_000_000;
/// Episodes that once found something, or that come to a rare verdict.
const KEPT: &str = include_str!("random/kept.txt");

#[test]
fn random_packets_come_to_the_same() {
    let full = std::env::var_os("PUBLISHER_TEST_FULL").is_some();
    let packets =
        setting("PUBLISHER_DIFFERENTIAL_PACKETS").unwrap_or(if full { LONG } else { SHORT });
    let seed = setting("PUBLISHER_DIFFERENTIAL_SEED").unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |age| age.as_nanos() as u64)
    });
    println!("seed {seed}");
    case::run(|_| {
        let netns = Netns::new("differential")?;
        let mut mirror = Mirror::new(&netns)?;
        netns.run(|| {
            replay(&mut mirror)?;
            let result = play(&mut mirror, packets, seed);
            result.with_context(|| format!("PUBLISHER_DIFFERENTIAL_SEED={seed}"))
        })
    });
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays the episodes that are kept.
fn replay(mirror: &mut Mirror) -> Result<()> {
    let mut episodes = Episode::read(KEPT).context("random/kept.txt")?;
    for Episode { events, verdict: expected } in &mut episodes {
        check_sums(events, mirror.checks_sums()?);
        let about = || format!("the kept episode that ends with: {expected}");
        let last = episode::play(mirror, events).with_context(about)?.with_context(about)?;
        ensure!(verdict(&last) == *expected, "{}: {}", about(), verdict(&last));
    }
    println!("{} kept episodes", episodes.len());
    Ok(())
}

fn check_sums(events: &mut [Event], checked: bool) {
    for event in events {
        if let Event::Frame(frame) = event {
            frame.checked = checked;
        }
    }
}

fn play(mirror: &mut Mirror, packets: u64, seed: u64) -> Result<()> {
    let checked = mirror.checks_sums()?;
    println!("the kernel checks skb->csum: {checked}");
    let start = Instant::now();
    let mut counts = Counts::default();
    let mut episode = 0;
    while counts.total() < packets {
        episode += 1;
        let random = Random::new(seed.wrapping_add(episode));
        mirror.clear()?;
        play_episode(mirror, random, checked, &mut counts)
            .with_context(|| format!("episode {episode}"))?;
    }
    counts.note_suppressed(mirror.suppressed);
    let (elapsed, total) = (start.elapsed(), counts.total());
    let rate = total as f64 / elapsed.as_secs_f64();
    println!("{total} packets in {elapsed:.1?} ({rate:.0} a second), {episode} sets of tables");
    print!("{counts}");
    counts.check()
}

/// Runs packets on fresh tables.
fn play_episode(
    mirror: &mut Mirror,
    random: Random,
    checked: bool,
    counts: &mut Counts,
) -> Result<()> {
    let keep = std::env::var_os("PUBLISHER_DIFFERENTIAL_KEEP").is_some();
    let mut traffic = Traffic::new(random, checked);
    let mut events = Vec::new();
    for _ in 0..EPISODE {
        let event = traffic.next_event(&mirror.native.links);
        events.push(event);
        let last = &events[events.len() - 1];
        let Some(step) = last.happen(mirror).map_err(|error| cut_down(mirror, &events, error))?
        else {
            continue;
        };
        traffic.note(&step);
        let verdict = verdict(&step);
        let first = counts.note(&verdict) == 1;
        if step == Step::Moved {
            return Ok(());
        }
        if keep && first {
            print!("{}", kept(mirror, &events, verdict)?);
            return Ok(());
        }
    }
    mirror.compare().map_err(|error| cut_down(mirror, &events, error))
}

/// An error that shows the least that still goes wrong.
fn cut_down(mirror: &mut Mirror, events: &[Event], error: anyhow::Error) -> anyhow::Error {
    let fails = |events: &[Event]| episode::play(mirror, events).is_err();
    let events = episode::shrink(events.to_vec(), fails);
    let verdict = "?, once it is put right".into();
    error.context(format!("to be kept:\n{}", Episode { events, verdict }))
}

/// The least that comes to a verdict.
fn kept(mirror: &mut Mirror, events: &[Event], verdict: String) -> Result<Episode> {
    let comes_to_it = |events: &[Event]| {
        let last = episode::play(mirror, events).ok().flatten();
        last.is_some_and(|step| random::counts::verdict(&step) == verdict)
    };
    let events = episode::shrink(events.to_vec(), comes_to_it);
    Ok(Episode { events, verdict })
}
