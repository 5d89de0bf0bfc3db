//! Distant clients: TCP written out by hand, with a time of their own between the SYN/ACK and the
//! ACK, as if the way were long. They send again what isn't answered, as real ones do.
//!
//! Their addresses belong to nobody, so no kernel answers in their place.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use etherparse::PacketBuilder;

use super::frame::To;
use super::hub::ANSWER;
use super::link::Receiver;
use super::sources::{Sources, mixed};
use crate::netns::Netns;
use crate::traffic::raw::Injector;

/// How long a request may take, from the first SYN to the whole answer.
pub const LIMIT: Duration = Duration::from_secs(10);
/// When a SYN is sent again, counted from the first (RFC 6298 §2: 1 s, doubled each time).
const SYN_AGAIN: [u64; 3] = [1_000, 3_000, 7_000];
/// When a request is sent again, counted from the first: the round trip is known by then.
const REQUEST_AGAIN: [u64; 5] = [300, 900, 2_100, 4_500, 9_300];
const REQUEST: &[u8] = b"GET / HTTP/1.0\n";
const TRANSPORT: usize = 54;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// What some clients ask for.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The time between the SYN/ACK and the ACK, of each kind of client.
    pub delays: [Duration; 2],
    /// Clients of each kind.
    pub count: usize,
    /// The time in which they all begin.
    pub spread: Duration,
    /// The number of the first client's source.
    pub first: u64,
}

/// What became of the clients of one kind.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// How many there were.
    pub started: usize,
    /// How many got their whole answer in time.
    pub answered: usize,
    /// How many were reset.
    pub reset: usize,
    /// How many had to send their SYN again.
    pub syn_again: usize,
    /// How long each answer took, from the first SYN.
    pub took: Vec<Duration>,
}

impl Outcome {
    /// The part that got its answer.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.started as f64
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waits for the SYN/ACK.
    Opening,
    /// Has it, and waits for the delay to pass.
    Waiting,
    /// Waits for the answer.
    Asking,
    /// Has it.
    Answered,
    Failed,
}

#[derive(Debug)]
struct Client {
    kind: usize,
    source: [u8; 16],
    port: u16,
    state: State,
    begun: Instant,
    /// When the state was entered.
    since: Instant,
    /// How often its packet was sent again in this state.
    again: usize,
    /// The next number to send, and the next that is expected.
    next: u32,
    expected: u32,
}

/// Runs all clients of `plan` against `to` through `interface` in `ns`, and returns what became of
/// each kind.
///
/// # Errors
/// When frames can't be sent or received.
pub fn run(ns: &Netns, interface: &str, to: To, plan: &Plan) -> Result<[Outcome; 2]> {
    let sender = Injector::open_for_sending(ns, interface)?;
    let filter = Sources::CLIENTS.filter();
    let mut receiver = Receiver::open(ns, interface, &filter, Duration::from_millis(1))?;
    let mut outcomes = [Outcome::default(), Outcome::default()];
    let mut clients: BTreeMap<u64, Client> = BTreeMap::new();
    let start = Instant::now();
    let total = plan.count * plan.delays.len();
    let mut begun = 0;
    while begun < total || clients.values().any(Client::is_busy) {
        let due = start.elapsed().as_secs_f64() / plan.spread.as_secs_f64() * total as f64;
        while begun < total && (begun as f64) < due {
            let index = plan.first + begun as u64;
            let client = Client::new(index, begun % plan.delays.len());
            outcomes[client.kind].started += 1;
            client.send(&sender, &to, SYN, &[])?;
            clients.insert(index, client);
            begun += 1;
        }
        let mut frames = Vec::new();
        while receiver.receive(|frame| frames.push(frame.to_vec()))? > 0 && frames.len() < 1_000 {}
        for frame in frames {
            let Some(segment) = Segment::read(&frame) else { continue };
            let Some(client) = clients.get_mut(&segment.client) else { continue };
            client.hear(&segment, &sender, &to, &mut outcomes)?;
        }
        for client in clients.values_mut().filter(|client| client.is_busy()) {
            client.tick(plan.delays[client.kind], &sender, &to, &mut outcomes)?;
        }
    }
    Ok(outcomes)
}

impl Client {
    fn new(index: u64, kind: usize) -> Self {
        let now = Instant::now();
        Self {
            kind,
            source: Sources::CLIENTS.address(index),
            port: 20_000 + (index % 40_000) as u16,
            state: State::Opening,
            begun: now,
            since: now,
            again: 0,
            next: mixed(index) as u32,
            expected: 0,
        }
    }

    fn is_busy(&self) -> bool {
        matches!(self.state, State::Opening | State::Waiting | State::Asking)
    }

    fn enter(&mut self, state: State) {
        (self.state, self.since, self.again) = (state, Instant::now(), 0);
    }

    fn hear(
        &mut self,
        segment: &Segment<'_>,
        sender: &Injector,
        to: &To,
        outcomes: &mut [Outcome; 2],
    ) -> Result<()> {
        let outcome = &mut outcomes[self.kind];
        if segment.flags & RST != 0 {
            if self.is_busy() {
                outcome.reset += 1;
                self.state = State::Failed;
            }
            return Ok(());
        }
        let synchronizes = segment.flags & SYN != 0;
        match self.state {
            State::Opening if synchronizes && segment.acknowledges == self.next.wrapping_add(1) => {
                self.next = self.next.wrapping_add(1);
                self.expected = segment.number.wrapping_add(1);
                self.enter(State::Waiting);
            }
            // Its ACK was lost, or the request was.
            State::Asking if synchronizes => self.ask(sender, to)?,
            State::Asking if segment.number == self.expected && segment.payload == ANSWER => {
                outcome.answered += 1;
                outcome.took.push(self.begun.elapsed());
                let fin = u32::from(segment.flags & FIN);
                self.next = self.next.wrapping_add(REQUEST.len() as u32);
                self.expected = self.expected.wrapping_add(ANSWER.len() as u32 + fin);
                self.send(sender, to, FIN | ACK, &[])?;
                self.next = self.next.wrapping_add(1);
                self.enter(State::Answered);
            }
            // What ends the connection may come by itself, and more than once.
            State::Answered if segment.flags & FIN != 0 => {
                let end = segment.number.wrapping_add(segment.payload.len() as u32);
                self.expected = end.wrapping_add(1);
                self.send(sender, to, ACK, &[])?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Does what the time asks for.
    fn tick(
        &mut self,
        delay: Duration,
        sender: &Injector,
        to: &To,
        outcomes: &mut [Outcome; 2],
    ) -> Result<()> {
        if self.begun.elapsed() > LIMIT {
            self.state = State::Failed;
            return Ok(());
        }
        let waited = self.since.elapsed();
        let is_due = |times: &[u64]| {
            times.get(self.again).is_some_and(|time| waited >= Duration::from_millis(*time))
        };
        match self.state {
            State::Opening if is_due(&SYN_AGAIN) => {
                outcomes[self.kind].syn_again += usize::from(self.again == 0);
                self.again += 1;
                self.send(sender, to, SYN, &[])
            }
            State::Waiting if waited >= delay => {
                self.enter(State::Asking);
                self.ask(sender, to)
            }
            State::Asking if is_due(&REQUEST_AGAIN) => {
                self.again += 1;
                self.send(sender, to, ACK, REQUEST)
            }
            _ => Ok(()),
        }
    }

    /// The ACK, and the request behind it.
    fn ask(&self, sender: &Injector, to: &To) -> Result<()> {
        self.send(sender, to, ACK, &[])?;
        self.send(sender, to, ACK, REQUEST)
    }

    fn send(&self, sender: &Injector, to: &To, flags: u8, payload: &[u8]) -> Result<()> {
        let builder = PacketBuilder::ethernet2(to.from_mac, to.mac)
            .ipv6(self.source, to.address.octets(), 64)
            .tcp(self.port, to.port, self.next, 64_000);
        let builder = if flags & SYN != 0 { builder.syn() } else { builder.ack(self.expected) };
        let builder = if flags & FIN != 0 { builder.fin() } else { builder };
        let mut frame = Vec::with_capacity(builder.size(payload.len()));
        builder.write(&mut frame, payload).context("build a segment")?;
        match sender.send(&frame) {
            // A queue that the flood has filled: the frame is lost, as on a wire.
            Err(error) if is_lost(&error) => Ok(()),
            other => other,
        }
    }
}

fn is_lost(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.and_then(std::io::Error::raw_os_error) == Some(libc::ENOBUFS)
}

/// What a client hears.
struct Segment<'a> {
    client: u64,
    number: u32,
    acknowledges: u32,
    flags: u8,
    payload: &'a [u8],
}

impl<'a> Segment<'a> {
    fn read(frame: &'a [u8]) -> Option<Self> {
        let length = usize::from(u16::from_be_bytes(*frame.get(18..)?.first_chunk()?));
        if *frame.get(20)? != 6 {
            return None;
        }
        let tcp = frame.get(TRANSPORT..TRANSPORT + length)?;
        let number = |at: usize| Some(u32::from_be_bytes(*tcp.get(at..)?.first_chunk()?));
        let to = u128::from(Ipv6Addr::from(*frame.get(38..)?.first_chunk::<16>()?));
        Some(Self {
            client: (to >> 64) as u64 % Sources::CLIENTS.count,
            number: number(4)?,
            acknowledges: number(8)?,
            flags: *tcp.get(13)?,
            payload: tcp.get(usize::from(tcp[12] >> 4) * 4..)?,
        })
    }
}
