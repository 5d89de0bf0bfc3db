//! Many transfers at once that last: half of them up, half down, every byte compared.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::epoll;
use socket2::Domain;

use super::hub::{self, BLOCK, DOWN, Data, End, Hub, Turn, UP};
use crate::netns::Netns;
use crate::shell;

/// How long a transfer may stand still.
const STALL: Duration = Duration::from_secs(10);
/// What gentle transfers let pass between two turns.
const REST: Duration = Duration::from_millis(200);

#[derive(Debug)]
struct Shared {
    ended: AtomicBool,
    gentle: AtomicBool,
    verified: AtomicU64,
    /// How far each has got.
    positions: Vec<AtomicU64>,
    faults: Mutex<Vec<String>>,
}

/// Running transfers with a [`Hub`]; dropping them closes them.
#[derive(Debug)]
pub struct Transfers {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Transfers {
    /// Connects `count` times from `ns` and starts all transfers, in one thread.
    ///
    /// # Errors
    /// When a connection isn't made within 3 s.
    pub fn start(ns: &Netns, to: SocketAddr, count: usize) -> Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut ends = Vec::new();
        for number in 0..count {
            let socket = ns.run(|| hub::socket(Domain::for_address(to)))?;
            let connected = socket.connect_timeout(&to.into(), Duration::from_secs(3));
            connected.with_context(|| format!("transfer {number} to {to}"))?;
            let end = End::of_client(socket.into(), if number % 2 == 0 { DOWN } else { UP })?;
            hub::watch(&poll, end.socket(), number as u64, end.gives())?;
            ends.push(Some(end));
        }
        let shared = Arc::new(Shared {
            ended: AtomicBool::new(false),
            gentle: AtomicBool::new(false),
            verified: AtomicU64::new(0),
            positions: (0..count).map(|_| AtomicU64::new(0)).collect(),
            faults: Mutex::default(),
        });
        let inner = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let (data, mut room) = (Data::default(), vec![0; BLOCK]);
            let mut events = Vec::with_capacity(256);
            while !inner.ended.load(Ordering::Relaxed) {
                if inner.gentle.load(Ordering::Relaxed) {
                    std::thread::sleep(REST);
                }
                let Ok(names) = hub::ready(&poll, &mut events) else { return };
                for name in names.into_iter().map(|name| name as usize) {
                    let Some(end) = &mut ends[name] else { continue };
                    let fault = match end.turn(&data, &mut room) {
                        Ok(Turn::Closed) => "closed".to_owned(),
                        Err(error) => error.to_string(),
                        Ok(turn) => {
                            if let Turn::Verified(length) = turn {
                                inner.verified.fetch_add(length as u64, Ordering::Relaxed);
                            }
                            inner.positions[name].store(end.position(), Ordering::Relaxed);
                            continue;
                        }
                    };
                    let fault = format!("transfer {name} at {}: {fault}", end.position());
                    inner.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
                    ends[name] = None;
                }
            }
        });
        Ok(Self { shared, thread: Some(thread) })
    }

    /// From now on they go on without taking the processors from anybody.
    pub fn go_gently(&self) {
        self.shared.gentle.store(true, Ordering::Relaxed);
    }

    /// Payload of all transfers per second, in gigabits (10⁹ bits), over the next `window`.
    pub fn gigabits(&self, hub: &Hub, window: Duration) -> f64 {
        let verified = || self.shared.verified.load(Ordering::Relaxed) + hub.verified();
        let (start, before) = (Instant::now(), verified());
        std::thread::sleep(window);
        (verified() - before) as f64 * 8.0 / 1e9 / start.elapsed().as_secs_f64()
    }

    /// Checks that not one has broken, and that each one still goes on.
    ///
    /// # Errors
    /// When it isn't so; the error says what happened to which.
    pub fn all_go_on(&self, hub: &Hub) -> Result<()> {
        let at = |position: &AtomicU64| position.load(Ordering::Relaxed);
        let before: Vec<u64> = self.shared.positions.iter().map(at).collect();
        let mut standing = 0;
        shell::wait_until(STALL, || {
            let moved = self.shared.positions.iter().zip(&before);
            standing = moved.filter(|(now, before)| at(now) == **before).count();
            standing == 0
        });
        let faults = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let faults = [faults.clone(), hub.faults()].concat();
        ensure!(faults.is_empty(), "{} transfers broke: {faults:?}", faults.len());
        ensure!(standing == 0, "{standing} of {} transfers stand still", before.len());
        Ok(())
    }
}

impl Drop for Transfers {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
