//! UDP sessions by the million, opened by real packets: a first datagram, the container's echo, and a
//! second one, which a spoofed source could not have sent in answer.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::frame::{LONGEST, Template, To, Vary};
use super::link::{Receiver, Sender};
use super::sources::Sources;
use crate::netns::Netns;

/// Sessions that are opened at once: no queue on the way is that short, the sockets' least of all.
const AT_ONCE: u64 = 192;
/// How often a datagram without an echo is sent again.
const TRIES: usize = 20;
/// How long an echo may take before its datagram is sent again.
const PATIENCE: Duration = Duration::from_millis(20);
/// Where the payload begins in an echo.
const PAYLOAD: usize = 14 + 40 + 8;
/// Sessions of one address, each from a port of its own.
const PER_ADDRESS: u64 = 50;
const FIRST_PORT: u16 = 10_000;

/// Clients of a lot of sessions: 50 from each address, 50,000 from each /64.
const CLIENTS: Sources = Sources { count: 1 << 20, per_network: 1_000, ..Sources::CLIENTS };

/// Opens sessions from a namespace to an echoing service.
#[derive(Debug)]
pub struct Opener {
    sender: Sender,
    receiver: Receiver,
    template: Template,
}

impl Opener {
    /// Will open sessions to `to` through `interface` in `ns`.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn new(ns: &Netns, interface: &str, to: &To) -> Result<Self> {
        Ok(Self {
            sender: Sender::open(ns, interface)?,
            receiver: Receiver::open(ns, interface, &CLIENTS.filter(), PATIENCE)?,
            template: Template::udp(to),
        })
    }

    /// Opens the sessions with these numbers. Returns how many of them were echoed both times.
    ///
    /// # Errors
    /// When frames can't be sent.
    pub fn open(&mut self, numbers: Range<u64>) -> Result<u64> {
        let (mut next, mut opened) = (numbers.start, 0);
        while next < numbers.end {
            let end = numbers.end.min(next + AT_ONCE);
            let mut both = self.ask((next..end).collect())?;
            both = self.ask(both)?;
            opened += both.len() as u64;
            next = end;
        }
        Ok(opened)
    }

    /// Sends a datagram of each of these sessions once more; the number of those echoed.
    ///
    /// # Errors
    /// When frames can't be sent.
    pub fn refresh(&mut self, numbers: Range<u64>) -> Result<u64> {
        let (mut next, mut echoed) = (numbers.start, 0);
        while next < numbers.end {
            let end = numbers.end.min(next + AT_ONCE);
            echoed += self.ask((next..end).collect())?.len() as u64;
            next = end;
        }
        Ok(echoed)
    }

    /// Sends a datagram of each of these sessions until it is echoed; returns those that were.
    fn ask(&mut self, sessions: Vec<u64>) -> Result<Vec<u64>> {
        let mut waiting: HashSet<u64> = sessions.iter().copied().collect();
        ensure!(waiting.len() == sessions.len(), "a session is asked twice");
        for _ in 0..TRIES {
            for session in sessions.iter().filter(|session| waiting.contains(session)) {
                let (template, vary) = (&self.template, vary(*session));
                self.sender.push(|room: &mut [u8; LONGEST]| template.write(&vary, room))?;
            }
            self.sender.flush()?;
            while !waiting.is_empty() {
                let heard = self.receiver.receive(|frame| {
                    if let Some(payload) = frame.get(PAYLOAD..).and_then(<[u8]>::first_chunk) {
                        waiting.remove(&u64::from_be_bytes(*payload));
                    }
                })?;
                if heard == 0 {
                    break;
                }
            }
            if waiting.is_empty() {
                break;
            }
        }
        Ok(sessions.into_iter().filter(|session| !waiting.contains(session)).collect())
    }
}

/// The datagrams of a session. Its number is the payload.
fn vary(session: u64) -> Vary {
    let (address, port) = (session / PER_ADDRESS, (session % PER_ADDRESS) as u16);
    Vary { source: CLIENTS.address(address), port: FIRST_PORT + port, number: session }
}
