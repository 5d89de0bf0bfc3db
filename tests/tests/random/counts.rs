//! How often each verdict was come to.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, ensure};
use publisher_common::decide::Stop;
use publisher_common::native::Outcome;
use publisher_common::reason::Reason;
use publisher_common::wire::protocol;
use publisher_tests::mirror::Step;

/// Of all packets, how many must have been translated for a run to mean something, in percent.
const TRANSLATED: u64 = 30;
/// Of so many packets one at least comes to each verdict.
const RARE: u64 = 10_000;

const TO_CONTAINER: &str = "to the container";
const TO_CLIENT: &str = "to the client";
const ERROR_TO_CONTAINER: &str = "error to the container";
const ERROR_TO_CLIENT: &str = "error to the client";
const FRAGMENT_TO_CONTAINER: &str = "fragment to the container";
const FRAGMENT_TO_CLIENT: &str = "fragment to the client";
const PIECES_TO_CLIENT: &str = "fragment to the client, in pieces";
const TO_SLOW_LANE: &str = "to the client, by the slow lane";
const PASSED: &str = "passed";
const HELD: &str = "passed, and a copy kept";
const MOVED: &str = "the clock moved";

/// All verdicts by which a frame is translated.
const REWRITTEN: [&str; 8] = [
    TO_CONTAINER,
    TO_CLIENT,
    ERROR_TO_CONTAINER,
    ERROR_TO_CLIENT,
    FRAGMENT_TO_CONTAINER,
    FRAGMENT_TO_CLIENT,
    PIECES_TO_CLIENT,
    TO_SLOW_LANE,
];

/// What became of a frame, in words.
pub fn verdict(step: &Step) -> String {
    match step {
        Step::Agreed(Outcome::ToContainer(packet, _)) if packet[9] == protocol::ICMP => {
            ERROR_TO_CONTAINER.into()
        }
        Step::Agreed(Outcome::ToClient(packet, _)) if packet[6] == protocol::ICMPV6 => {
            ERROR_TO_CLIENT.into()
        }
        Step::Agreed(Outcome::ToContainer(packet, _)) if packet[6] & 0x3f | packet[7] != 0 => {
            FRAGMENT_TO_CONTAINER.into()
        }
        Step::Agreed(Outcome::ToContainer(..)) => TO_CONTAINER.into(),
        Step::Agreed(Outcome::ToClient(packet, _)) if packet[6] == protocol::FRAGMENT => {
            FRAGMENT_TO_CLIENT.into()
        }
        Step::Agreed(Outcome::Pieces(..)) => PIECES_TO_CLIENT.into(),
        Step::Agreed(Outcome::Detour(..)) => TO_SLOW_LANE.into(),
        Step::Agreed(Outcome::ToClient(..)) => TO_CLIENT.into(),
        Step::Agreed(Outcome::Stop(Stop::Pass)) => PASSED.into(),
        Step::Agreed(Outcome::Stop(Stop::Hold)) => HELD.into(),
        Step::Agreed(Outcome::Stop(Stop::Drop(reason)) | Outcome::Answered(_, reason)) => {
            drop_for(*reason)
        }
        Step::Agreed(Outcome::Stop(stop)) => {
            stop.answer().map_or_else(|| format!("{stop:?}"), |answer| drop_for(answer.reason()))
        }
        Step::Refused => "not taken by the kernel".into(),
        Step::Moved => MOVED.into(),
    }
}

fn drop_for(reason: Reason) -> String {
    format!("drop {}", reason.name())
}

/// How often each verdict was come to.
#[derive(Clone, Debug, Default)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// Counts a verdict; returns how often it has been come to.
    pub fn note(&mut self, verdict: &str) -> u64 {
        let count = self.0.entry(verdict.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// Takes in how many errors weren't sent, after many others: the kernel's clock decides that, and
    /// the packets have verdicts of their own.
    pub fn note_suppressed(&mut self, count: u64) {
        self.0.insert(drop_for(Reason::AnswerSuppressed), count);
    }

    /// Frames in all.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    fn of(&self, verdict: &str) -> u64 {
        self.0.get(verdict).copied().unwrap_or(0)
    }

    /// Whether the run means something: enough was translated, and no verdict is too rare. What a
    /// helper refuses can't be brought about by packets.
    ///
    /// # Errors
    /// When it doesn't.
    pub fn check(&self) -> Result<()> {
        let total = self.total();
        let translated: u64 = REWRITTEN.map(|verdict| self.of(verdict)).iter().sum();
        ensure!(translated * 100 >= total * TRANSLATED, "{translated} of {total} were translated");
        let reasons = Reason::ALL.iter().filter(|reason| **reason != Reason::HelperFailed);
        let verdicts = REWRITTEN.into_iter().chain([PASSED, HELD]).map(String::from);
        for verdict in reasons.map(|reason| drop_for(*reason)).chain(verdicts) {
            let (count, least) = (self.of(&verdict), total / RARE);
            ensure!(count >= least, "{verdict}: {count} of {total}, fewer than {least}");
        }
        ensure!(self.of(MOVED) * 100 <= total, "too many sets of tables were given up");
        Ok(())
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(verdict, count)| writeln!(f, "{count:>9}  {verdict}"))
    }
}
