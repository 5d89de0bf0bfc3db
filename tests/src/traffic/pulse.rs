//! Steady traffic that notices every lost packet and every pause while something happens to the
//! datapath under it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;
use crate::shell;
use crate::traffic::{bulk, udp};

/// What a pulse has seen.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Exchanges that were answered rightly.
    pub answered: u64,
    /// Exchanges that weren't answered (UDP only).
    pub lost: u64,
    /// The longest time between a question and its answer.
    pub longest: Duration,
}

/// A running pulse.
#[derive(Debug)]
pub struct Pulse {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<Seen>>>,
}

impl Pulse {
    /// Blocks of 64 KiB through `stream` to an echo server and back, compared, without a break.
    pub fn tcp(mut stream: TcpStream) -> Self {
        let mut data = bulk::Data::new(11);
        let mut writer = stream.try_clone();
        Self::start(move || {
            let block = data.next_block();
            let mut answer = vec![0; block.len()];
            let writer = writer.as_mut().map_err(|error| anyhow::anyhow!("{error}"))?;
            writer.write_all(block).context("pulse")?;
            stream.read_exact(&mut answer).context("pulse")?;
            ensure!(answer == block, "the echo differs");
            Ok(true)
        })
    }

    /// A datagram to an echo server every 2 ms; one without an answer within 500 ms is lost.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn udp(ns: &Netns, to: SocketAddr) -> Result<Self> {
        let socket = udp::client(ns, 0)?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        let mut number = 0u64;
        Ok(Self::start(move || {
            number += 1;
            std::thread::sleep(Duration::from_millis(2));
            let answer = udp::ask(&socket, to, &number.to_be_bytes());
            Ok(answer.is_ok_and(|(content, from)| content == number.to_be_bytes() && from == to))
        }))
    }

    fn start(mut beat: impl FnMut() -> Result<bool> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let (ended, counter) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = std::thread::spawn(move || {
            let mut seen = Seen { answered: 0, lost: 0, longest: Duration::ZERO };
            while !ended.load(Ordering::Relaxed) {
                let start = Instant::now();
                let answered = beat().with_context(|| format!("after {seen:?}"))?;
                seen.longest = seen.longest.max(start.elapsed());
                if answered {
                    seen.answered += 1;
                    counter.fetch_add(1, Ordering::Relaxed);
                } else {
                    seen.lost += 1;
                }
            }
            Ok(seen)
        });
        Self { stop, count, thread: Some(thread) }
    }

    /// Waits until `more` exchanges were answered from now on.
    ///
    /// # Errors
    /// When that takes longer than 10 s: the traffic has stopped.
    pub fn goes_on(&self, more: u64) -> Result<()> {
        let goal = self.count.load(Ordering::Relaxed) + more;
        let reached = || self.count.load(Ordering::Relaxed) >= goal;
        ensure!(shell::wait_until(Duration::from_secs(10), reached), "the traffic has stopped");
        Ok(())
    }

    /// Ends the pulse and returns what it has seen.
    ///
    /// # Errors
    /// When an exchange failed.
    pub fn end(mut self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("pulse")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
