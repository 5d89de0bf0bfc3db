//! A flood from sources that don't exist, as fast as one thread can send.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::frame::{Template, To, Vary};
use super::link::Sender;
use super::sources::{Sources, mixed};
use crate::netns::Netns;

/// How many SYNs later the blind ACK of a tuple follows: some milliseconds.
const ACK_AFTER: u64 = 4_096;

/// What a flood is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SYNs, none of which is followed by anything.
    Syn,
    /// SYNs, each followed a moment later by an ACK that guesses.
    SynAck,
    /// Datagrams, each from another port and address.
    Udp,
}

/// A flood.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// What it is made of.
    pub kind: Kind,
    /// Where it goes.
    pub to: To,
    /// Who it is from.
    pub sources: Sources,
    /// The number of its first frame: floods that go on from where another one ended repeat none of
    /// its tuples.
    pub first: u64,
    /// How many frames in a second; without it, as many as one thread can send.
    pub per_second: Option<f64>,
}

/// A running flood; dropping it ends it.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Flood {
    /// Starts to flood out of `interface` in `ns`.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn start(ns: &Netns, interface: &str, plan: Plan) -> Result<Self> {
        let Plan { kind, to, sources, first, per_second } = plan;
        let mut sender = Sender::open(ns, interface)?;
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let (ended, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let (syn, ack, udp) = (Template::syn(&to), Template::ack(&to), Template::udp(&to));
            let mut number = first;
            let start = Instant::now();
            while !ended.load(Ordering::Relaxed) {
                let vary = vary(&sources, number);
                let mut accepted = match kind {
                    Kind::Syn | Kind::SynAck => sender.push(|room| syn.write(&vary, room))?,
                    Kind::Udp => sender.push(|room| udp.write(&vary, room))?,
                };
                if kind == Kind::SynAck && number >= first + ACK_AFTER {
                    let mut vary = self::vary(&sources, number - ACK_AFTER);
                    // The first number after the SYN's, and any acknowledgment.
                    let sequence = ((vary.number >> 32) as u32).wrapping_add(1);
                    let guess = mixed(vary.number) as u32;
                    vary.number = u64::from(sequence) << 32 | u64::from(guess);
                    accepted += sender.push(|room| ack.write(&vary, room))?;
                }
                let sent = count.fetch_add(accepted as u64, Ordering::Relaxed);
                if let Some(rate) = per_second.filter(|_| accepted > 0) {
                    let due = Duration::from_secs_f64(sent as f64 / rate);
                    std::thread::sleep(due.saturating_sub(start.elapsed()));
                }
                number += 1;
            }
            Ok(())
        });
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    /// Frames sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends the flood and returns how many frames it was.
    ///
    /// # Errors
    /// When sending has failed.
    pub fn end(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("flood")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(self.sent())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Who the frame with this number is from: sources take turns, and each comes from another port at
/// every turn.
fn vary(sources: &Sources, number: u64) -> Vary {
    let random = mixed(number);
    let port = 1_024 + (random % (65_536 - 1_024)) as u16;
    // Turns go through the networks in an order of their own, not one network after the other.
    let source = sources.address(number.wrapping_mul(611_953));
    Vary { source, port, number: random & 0xffff_ffff_0000_0000 }
}
