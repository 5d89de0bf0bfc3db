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
const FIRST_PORT: u16 = 10_000;

/// Who opens sessions.
#[derive(Debug, Clone, Copy)]
pub struct Clients {
    /// Their addresses.
    pub sources: Sources,
    /// Sessions of one address, each from a port of its own.
    pub per_address: u64,
}

impl Clients {
    /// Clients of a lot of sessions: 50 from each address, 10,000 from each /64.
    pub const MANY: Self = Self {
        sources: Sources { count: 1 << 20, per_network: 200, ..Sources::CLIENTS },
        per_address: 50,
    };

    /// The address that a session is opened from.
    pub fn address(&self, session: u64) -> [u8; 16] {
        self.sources.address(session / self.per_address)
    }

    /// The datagrams of a session. Its number is the payload.
    fn vary(&self, session: u64) -> Vary {
        let port = FIRST_PORT + (session % self.per_address) as u16;
        Vary { source: self.address(session), port, number: session }
    }
}

/// Opens sessions from a namespace to an echoing service.
#[derive(Debug)]
pub struct Opener {
    sender: Sender,
    receiver: Receiver,
    template: Template,
    clients: Clients,
}

impl Opener {
    /// Will open sessions to `to` through `interface` in `ns`.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn new(ns: &Netns, interface: &str, to: &To, clients: Clients) -> Result<Self> {
        Ok(Self {
            sender: Sender::open(ns, interface)?,
            receiver: Receiver::open(ns, interface, &clients.sources.filter(), PATIENCE)?,
            template: Template::udp(to),
            clients,
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
                let (template, vary) = (&self.template, self.clients.vary(*session));
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
