//! Random and damaged packets through the loaded programs and through the native core: verdict,
//! bytes, sessions and counters must be the same.
//!
//! `PUBLISHER_DIFFERENTIAL_PACKETS` sets how many (200,000), `PUBLISHER_DIFFERENTIAL_SEED` repeats a
//! run that failed.

mod random;

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use publisher_common::decide::Stop;
use publisher_common::native::Outcome;
use publisher_common::reason::Reason;
use publisher_tests::mirror::{Mirror, Step, hex};
use publisher_tests::{case, netns::Netns};
use random::{Random, Traffic};

/// Packets on one set of tables.
const EPISODE: u64 = 400;
/// Of all packets, how many must have been rewritten for the run to mean something, in percent.
const REWRITTEN: u64 = 30;
/// So many packets come to every reason for a drop.
const ENOUGH: u64 = 200_000;

#[test]
fn random_packets_come_to_the_same() {
    let packets = setting("PUBLISHER_DIFFERENTIAL_PACKETS").unwrap_or(200_000);
    let seed = setting("PUBLISHER_DIFFERENTIAL_SEED").unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |age| age.as_nanos() as u64)
    });
    println!("seed {seed}");
    case::run(|_| {
        let netns = Netns::new("differential")?;
        let mut mirror = Mirror::new(&netns)?;
        let result = netns.run(|| play(&mut mirror, packets, seed));
        result.with_context(|| format!("PUBLISHER_DIFFERENTIAL_SEED={seed}"))
    });
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn play(mirror: &mut Mirror, packets: u64, seed: u64) -> Result<()> {
    let checked = mirror.checks_sums()?;
    println!("the kernel checks skb->csum: {checked}");
    let start = Instant::now();
    let mut counts = BTreeMap::new();
    let (mut done, mut episode) = (0, 0);
    while done < packets {
        episode += 1;
        let random = Random::new(seed.wrapping_add(episode));
        mirror.clear()?;
        done += play_episode(mirror, random, checked, &mut counts)
            .with_context(|| format!("episode {episode}"))?;
    }
    let elapsed = start.elapsed();
    let total: u64 = counts.values().sum();
    println!("{total} packets in {elapsed:.1?}, {episode} sets of tables");
    for (what, count) in &counts {
        println!("{count:>8}  {what}");
    }
    let suppressed = format!("drop {}", Reason::AnswerSuppressed.name());
    println!("{:>8}  {suppressed}", mirror.suppressed);
    counts.insert(suppressed, mirror.suppressed);
    let count = |what: &str| counts.get(what).copied().unwrap_or(0);
    let rewritten = count("to the container") + count("to the client");
    ensure!(rewritten * 100 >= total * REWRITTEN, "{rewritten} of {total} were rewritten");
    if total >= ENOUGH {
        for reason in Reason::ALL.iter().filter(|reason| **reason != Reason::HelperFailed) {
            let what = format!("drop {}", reason.name());
            ensure!(count(&what) > 0, "the random packets never reached: {what}");
        }
    }
    ensure!(count("the clock moved") * 100 <= total, "too many sets of tables were given up");
    Ok(())
}

/// Runs packets on fresh tables, and returns how many.
fn play_episode(
    mirror: &mut Mirror,
    random: Random,
    checked: bool,
    counts: &mut BTreeMap<String, u64>,
) -> Result<u64> {
    let mut traffic = Traffic::new(random, checked);
    for number in 0..EPISODE {
        if let Some(index) = traffic.changed_link() {
            let mut link = mirror.native.links[index];
            traffic.change(&mut link);
            mirror.set_link(index as u32, link)?;
        }
        let frame = traffic.next_frame();
        let step = mirror
            .step(&frame)
            .with_context(|| format!("packet {number}, {:?}: {}", frame.hook, hex(&frame.bytes)))?;
        let what = match &step {
            Step::Agreed(Outcome::ToContainer(packet, _)) => {
                traffic.note(packet);
                "to the container".into()
            }
            Step::Agreed(Outcome::ToClient(..)) => "to the client".into(),
            Step::Agreed(Outcome::Stop(Stop::Pass)) => "passed".into(),
            Step::Agreed(Outcome::Stop(Stop::Drop(reason)) | Outcome::Answered(_, reason)) => {
                format!("drop {}", reason.name())
            }
            Step::Agreed(Outcome::Stop(Stop::Answer(answer))) => bail!("no answer: {answer:?}"),
            Step::Refused => "not taken by the kernel".into(),
            Step::Moved => "the clock moved".into(),
        };
        *counts.entry(what).or_default() += 1;
        if step == Step::Moved {
            return Ok(number + 1);
        }
    }
    mirror.compare()?;
    Ok(EPISODE)
}
