//! Passes over the sessions: what is idle is moved, what must end is ended, and all are counted. They run
//! on a thread for blocking work and without the engine's lock, a few milliseconds of it aside.

use super::drain::{self, Asked, Ends};
use super::reload::timeouts;
use super::{Engine, Inner, clock, probe};
use crate::datapath::{Counts, DatapathError, Differences, EndReason, Entry, Pace, Seen, Sessions};
use crate::plan::Draining;
use publisher_common::layout::Timeouts;
use publisher_common::wire::protocol;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

/// Between two passes, unless a timer is so short that it asks for more.
const LONGEST: Duration = Duration::from_secs(60);
/// At least this lies between two passes.
const SHORTEST: Duration = Duration::from_secs(1);
/// How often a pass also counts what each /64 has, gives aliases back and looks for orphans.
const THOROUGH: Duration = Duration::from_secs(600);
/// Between two passes lies at least so many times the work of the first: with a million sessions, at 0.6 µs
/// for each, all passes together take less than a hundredth of a core.
const USUAL_SHARE: u32 = 200;
/// The same of thorough passes.
const THOROUGH_SHARE: u32 = 250;
/// Between the two looks at an orphan.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// How often time over for draining publications is looked at.
const DRAINING: Duration = Duration::from_secs(5);

/// Connections that are asked after in a pass.
const PROBES: usize = 256;

/// What the last pass has found.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) seen: Seen,
    differences: Differences,
}

/// How a pass is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// At once, only to end what must.
    Quick,
    /// At leisure.
    Usual,
    /// At leisure, with all that is done now and then.
    Thorough,
}

impl Engine {
    /// Looks after the sessions for as long as the daemon runs.
    pub(super) async fn keep_sessions(&self) {
        let (mut usual, mut thorough) = (Instant::now(), Instant::now());
        loop {
            let depth = tokio::select! {
                () = self.must_end.notified() => Depth::Quick,
                () = sleep_until(usual) => match Instant::now() >= thorough {
                    true => Depth::Thorough,
                    false => Depth::Usual,
                },
                () = self.drained() => Depth::Quick,
            };
            let every = interval(&timeouts(&self.config()));
            let started = Instant::now();
            let worked = self.pass(depth, Asked::default()).await.worked;
            let now = Instant::now();
            match depth {
                Depth::Quick => {}
                Depth::Usual => usual = now.max(started + every.max(worked * USUAL_SHARE)),
                Depth::Thorough => {
                    usual = now + every;
                    thorough = started + THOROUGH.max(worked * THOROUGH_SHARE);
                }
            }
        }
    }

    /// Ready when a draining publication's time is over.
    async fn drained(&self) {
        loop {
            tokio::time::sleep(DRAINING).await;
            let now = clock::now();
            let inner = self.inner.lock().await;
            if inner.draining.iter().any(|entry| drain::is_over(entry, now)) {
                return;
            }
        }
    }

    /// Ends what must end now, what was asked for among it; says how many sessions those were.
    pub(super) async fn end_sessions(&self, asked: Asked) -> u64 {
        self.pass(Depth::Quick, asked).await.ended
    }

    async fn pass(&self, depth: Depth, asked: Asked) -> Passed {
        // What must end at once doesn't wait for a pass that takes its time.
        let _one = match depth {
            Depth::Quick => None,
            _ => Some(self.passing.lock().await),
        };
        let Some((mut ends, draining)) = self.inner.lock().await.ends(asked) else {
            return Passed::default();
        };
        let work = Work {
            sessions: self.sessions.clone(),
            timeouts: timeouts(&self.config()),
            depth,
            pool: (self.pool.network().octets(), self.pool.netmask().octets()),
            differences: match depth {
                Depth::Quick => Differences::default(),
                _ => std::mem::take(&mut self.tally().differences),
            },
            pace: match depth {
                Depth::Quick => Pace::quick(),
                _ => Pace::gentle(Arc::clone(&self.stopping)),
            },
        };
        let events = Arc::clone(&self.events);
        let done = tokio::task::spawn_blocking(move || {
            let mut probes = Vec::new();
            let done = work.carry_out(
                |entry| ends.reason(entry),
                |entry, reason| {
                    events.ended(entry, reason);
                    let is_tcp = entry.reply.protocol == protocol::TCP;
                    if reason == EndReason::Idle && is_tcp && probes.len() < PROBES {
                        probes.push(*entry);
                    }
                },
            );
            (done, ends, probes)
        });
        let (done, ends, probes) = match done.await {
            Ok((Ok(done), ends, probes)) => (done, ends, probes),
            Ok((Err(error), ..)) => {
                self.inner.lock().await.fail(format!("can't end old sessions: {error}"));
                return Passed::default();
            }
            Err(error) => {
                self.inner
                    .lock()
                    .await
                    .fail(format!("a pass over the sessions broke off: {error}"));
                return Passed::default();
            }
        };
        {
            let mut tally = self.tally();
            tally.seen = done.seen;
            if let Some(differences) = done.differences {
                tally.differences = differences;
            }
        }
        let mut inner = self.inner.lock().await;
        match probe::send_all(&probes, |index| inner.applied.links.get(&index)) {
            Ok(sent) if sent > 0 => debug!("asked after {sent} idle connections"),
            Ok(_) => {}
            Err(error) => inner.fail(format!("can't ask after idle connections: {error}")),
        }
        // What was removed meanwhile drains too.
        let still = |entry: &&Draining| !draining.contains(entry) || ends.is_busy(entry);
        let left: Vec<_> = inner.draining.iter().filter(still).cloned().collect();
        if left != inner.draining {
            inner.draining = left;
            drop(inner);
            self.changed.notify_one();
        }
        Passed { ended: done.seen.ended, worked: done.worked }
    }

    /// What the last pass has found.
    pub(super) fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Inner {
    /// What ends sessions now, and what drains.
    fn ends(&mut self, asked: Asked) -> Option<(Ends, Vec<Draining>)> {
        let Self { datapath: Some(datapath), state, draining, .. } = self else { return None };
        match datapath.tables().links() {
            Ok(links) => {
                let ends = Ends::new(&links, state, draining, asked);
                Some((ends, draining.clone()))
            }
            Err(error) => {
                self.fail(format!("can't end old sessions: {error}"));
                None
            }
        }
    }
}

/// A pass, ready for a thread of its own.
struct Work {
    sessions: Sessions,
    timeouts: Timeouts,
    depth: Depth,
    pool: ([u8; 4], [u8; 4]),
    differences: Differences,
    pace: Pace,
}

/// What a pass has done, for those who asked for it.
#[derive(Default)]
struct Passed {
    ended: u64,
    worked: Duration,
}

struct Done {
    seen: Seen,
    worked: Duration,
    /// `None` where nothing was counted.
    differences: Option<Differences>,
}

impl Work {
    fn carry_out(
        self,
        ends: impl FnMut(&Entry) -> Option<EndReason>,
        ended: impl FnMut(&Entry, EndReason),
    ) -> Result<Done, DatapathError> {
        let Self { sessions, timeouts, depth, pool, mut differences, mut pace } = self;
        if depth == Depth::Thorough {
            let orphans = sessions.remove_orphans(&mut pace, || std::thread::sleep(SECOND_LOOK))?;
            if orphans > 0 {
                info!("removed {orphans} halves of sessions that had no other half");
            }
        }
        let mut counts = match depth {
            Depth::Thorough => Counts::thorough(pool.0, pool.1),
            _ => Counts::default(),
        };
        let seen = sessions.pass(clock::now, &timeouts, &mut pace, &mut counts, ends, ended)?;
        if depth != Depth::Quick {
            sessions.correct(counts, &mut differences, clock::now(), &mut pace)?;
        }
        let differences = (depth != Depth::Quick).then_some(differences);
        debug!("{depth:?} pass: {seen:?}, {:?} of work", pace.worked());
        Ok(Done { seen, worked: pace.worked(), differences })
    }
}

/// How often sessions are looked through: four times in the shortest of the timers.
fn interval(timeouts: &Timeouts) -> Duration {
    let Timeouts { udp, tcp_established, tcp_transitory, .. } = *timeouts;
    let idle = tcp_established.saturating_sub(tcp_transitory).max(1);
    let shortest = Duration::from_secs(udp.min(tcp_transitory).min(idle).into());
    (shortest / 4).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_timers_are_looked_at_more_often() {
        assert_eq!(interval(&Timeouts::default()), LONGEST);
        let short = Timeouts { udp: 20, ..Timeouts::default() };
        assert_eq!(interval(&short), Duration::from_secs(5));
        let shortest = Timeouts { tcp_established: 3, tcp_transitory: 3, ..Timeouts::default() };
        assert_eq!(interval(&shortest), SHORTEST);
    }
}
