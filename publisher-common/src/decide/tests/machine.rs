//! The whole translator against a reference of the state machine: whatever both sides send, in whatever
//! order, a session is in the state that RFC 6146 §3.5.2.2 has it in, and lives for as long.
//!
//! The reference is written down again, apart from `decide::state`.

use super::packets::ISN;
use super::*;
use crate::layout::{ReplyKey, State};
use crate::wire::tcp_flags::{ACK, FIN, RST, SYN};
use proptest::prelude::*;
use std::vec::Vec;

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The client sends these flags; whether it acknowledges the container's SYN.
    Client(u8, bool),
    /// The container sends these flags.
    Container(u8),
    /// Seconds go by.
    Wait(u32),
}

fn event() -> impl Strategy<Value = Event> {
    let flags = || prop::sample::select(&[SYN, SYN | ACK, ACK, ACK, FIN | ACK, RST, RST | ACK]);
    prop_oneof![
        8 => (prop::sample::select(&[SYN, ACK, ACK, FIN | ACK, RST, SYN | ACK]), prop::bool::weighted(0.8))
            .prop_map(|(flags, right)| Event::Client(flags, right)),
        8 => flags().prop_map(Event::Container),
        2 => prop::sample::select(&[1u32, 30, 120, 239, 240, 241, 5_000]).prop_map(Event::Wait),
    ]
}

/// What RFC 6146 makes of one session.
struct Reference {
    state: State,
    /// When the session was last refreshed.
    refreshed: u32,
    /// Whether the container has sent its SYN.
    answered: bool,
}

/// TCP_TRANS.
const TRANSITORY: u32 = 240;

impl Reference {
    /// Whether only another packet in time keeps the session.
    fn is_transitory(&self) -> bool {
        matches!(self.state, State::V6_INIT | State::TRANS | State::V4_FIN_V6_FIN_RCV)
    }

    /// Lets the session end if its time is over. That of an established one is up to the daemon.
    fn look_at(&mut self, now: u32) {
        if self.is_transitory() && now - self.refreshed > TRANSITORY {
            self.state = State::CLOSED;
        }
    }

    /// Returns whether the packet is translated.
    fn client(&mut self, flags: u8, right: bool, now: u32) -> bool {
        self.look_at(now);
        let opens = flags & (SYN | ACK) == SYN;
        match self.state {
            State::CLOSED | State::TRANS | State::V4_FIN_V6_FIN_RCV if opens => {
                *self = Self { state: State::V6_INIT, refreshed: now, answered: false };
            }
            State::CLOSED => return false,
            State::V6_INIT => {
                if self.answered && right && flags & (ACK | SYN | RST) == ACK {
                    (self.state, self.refreshed) = (State::ESTABLISHED, now);
                } else if opens {
                    self.refreshed = now;
                }
            }
            _ => self.either(flags, State::V6_FIN_RCV, State::V4_FIN_RCV, now),
        }
        true
    }

    fn container(&mut self, flags: u8, now: u32) -> bool {
        self.look_at(now);
        match self.state {
            State::CLOSED => return false,
            State::V6_INIT => {
                if flags & SYN != 0 {
                    self.refreshed = now;
                    self.answered |= flags & ACK != 0;
                }
            }
            _ => self.either(flags, State::V4_FIN_RCV, State::V6_FIN_RCV, now),
        }
        true
    }

    /// From the third packet on; `own` is the state after a FIN of the side that sends.
    fn either(&mut self, flags: u8, own: State, other: State, now: u32) {
        let (reset, fin) = (flags & RST != 0, flags & RST == 0 && flags & FIN != 0);
        match self.state {
            State::TRANS if reset => {}
            State::TRANS => (self.state, self.refreshed) = (State::ESTABLISHED, now),
            State::V4_FIN_V6_FIN_RCV => {}
            _ => {
                self.refreshed = now;
                if reset {
                    self.state = State::TRANS;
                } else if fin && self.state == State::ESTABLISHED {
                    self.state = own;
                } else if fin && self.state == other {
                    self.state = State::V4_FIN_V6_FIN_RCV;
                }
            }
        }
    }
}

/// The state that the tables have the session in, and when it was last refreshed.
fn found(scene: &Scene, reply: &ReplyKey) -> (State, u32) {
    let tables = &scene.tables;
    if let Some(entry) = tables.half_open.get(reply).or_else(|| tables.closing.get(reply)) {
        return (entry.session.state, entry.last_seen);
    }
    match tables.reverse.get(reply) {
        Some(entry) => {
            let forward = &tables.forward[&entry.forward];
            assert_eq!(forward.session.state, entry.session.state);
            (entry.session.state, entry.last_seen.max(forward.last_seen))
        }
        None => (State::CLOSED, 0),
    }
}

/// Returns the states that the session came to.
fn play(events: &[Event]) -> Vec<State> {
    let flow = samples::flow();
    let mut scene = Scene::new();
    let reply = Scene::new().open(&flow);
    let mut reference = Reference { state: State::CLOSED, refreshed: 0, answered: false };
    let mut states = Vec::new();
    for event in events {
        let (translated, expected) = match *event {
            Event::Wait(seconds) => {
                scene.now += seconds;
                continue;
            }
            Event::Client(flags, right) => {
                let acknowledgment = ISN.wrapping_add(if right { 1 } else { 77 });
                let segment = Segment { acknowledgment, ..Segment::new(flags) };
                let outcome = scene.client(&flow, segment);
                let expected = reference.client(flags, right, scene.now);
                (matches!(outcome, Outcome::ToContainer(..)), expected)
            }
            Event::Container(flags) => {
                let segment = Segment { sequence: ISN, ..Segment::new(flags) };
                let outcome = scene.container(&reply, segment);
                let expected = reference.container(flags, scene.now);
                (matches!(outcome, Outcome::ToClient(..)), expected)
            }
        };
        assert_eq!(translated, expected, "{event:?} in {}", reference.state.name());
        let (state, refreshed) = found(&scene, &reply);
        // A session that is over may lie there until somebody asks for its tuple.
        let is_over = reference.state == State::CLOSED;
        if !is_over {
            assert_eq!(state, reference.state, "after {event:?}");
            assert_eq!(refreshed, reference.refreshed, "after {event:?} in {}", state.name());
        }
        states.push(reference.state);
        scene.assert_paired();
    }
    states
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn s4_s5_s6_s13_states_and_timers_are_those_of_the_reference(
        events in prop::collection::vec(event(), 1..120),
    ) {
        let _ = play(&events);
    }
}

#[test]
fn the_random_events_come_to_every_state() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let events = prop::collection::vec(event(), 120);
    let states: Vec<State> = (0..60)
        .flat_map(|_| play(&events.new_tree(&mut runner).expect("events").current()))
        .collect();
    for state in 0..7 {
        let count = states.iter().filter(|found| **found == State(state)).count();
        assert!(count > 50, "{} {count} times", State(state).name());
    }
}

/// The timers of RFC 6146 §4, read back after each step of a connection's life.
#[test]
fn s3_s4_s5_s6_timers_after_each_event() {
    let flow = samples::flow();
    let mut scene = Scene::new();
    let start = scene.now;
    let reply = scene.open(&flow);
    assert_eq!(found(&scene, &reply), (State::V6_INIT, start));
    let after = |scene: &mut Scene, what: &str, state, refreshed: bool| {
        let (found, at) = found(scene, &reply);
        assert_eq!(found, state, "{what}");
        assert_eq!(at == scene.now, refreshed, "{what}");
        scene.now += 10;
    };
    scene.now += 10;
    let _ = scene.client(&flow, Segment::syn());
    after(&mut scene, "a SYN again", State::V6_INIT, true);
    let _ = scene.client(&flow, Segment::data(3));
    after(&mut scene, "data too early", State::V6_INIT, false);
    let _ = scene.container(&reply, Segment::rst());
    after(&mut scene, "a RST for that", State::V6_INIT, false);
    let _ = scene.container(&reply, Segment::syn_ack());
    after(&mut scene, "the container's SYN", State::V6_INIT, true);
    let _ = scene.client(&flow, Segment::ack(ISN.wrapping_add(1)));
    after(&mut scene, "the client's proof", State::ESTABLISHED, true);
    let _ = scene.container(&reply, Segment::data(1));
    after(&mut scene, "data", State::ESTABLISHED, true);
    let _ = scene.client(&flow, Segment::rst());
    after(&mut scene, "a forged RST", State::TRANS, true);
    let _ = scene.client(&flow, Segment::rst());
    after(&mut scene, "and again", State::TRANS, false);
    let passed = scene.container(&reply, Segment::data(1));
    assert!(matches!(passed, Outcome::ToClient(..)), "data that follows a forged RST");
    after(&mut scene, "data", State::ESTABLISHED, true);
    let _ = scene.container(&reply, Segment::fin());
    after(&mut scene, "FIN", State::V4_FIN_RCV, true);
    let _ = scene.client(&flow, Segment::data(1));
    after(&mut scene, "data in the open half", State::V4_FIN_RCV, true);
    let _ = scene.client(&flow, Segment::fin());
    after(&mut scene, "FIN", State::V4_FIN_V6_FIN_RCV, true);
    let _ = scene.container(&reply, Segment::data(0));
    after(&mut scene, "the last ACK", State::V4_FIN_V6_FIN_RCV, false);
    let _ = scene.client(&flow, Segment::syn());
    after(&mut scene, "the tuple again", State::V6_INIT, true);
}

#[test]
fn s10_a_container_opens_nothing() {
    let flow = samples::flow();
    let mut scene = Scene::new();
    let reply = Scene::new().open(&flow);
    for segment in [Segment::syn(), Segment::syn_ack()] {
        assert_eq!(scene.container(&reply, segment), dropped(Reason::ReplyNoSession));
    }
    // Nor is its SYN without ACK an answer to the client's: that would be simultaneous open.
    let _ = scene.open(&flow);
    assert!(matches!(scene.container(&reply, Segment::syn()), Outcome::ToClient(..)));
    let _ = scene.client(&flow, Segment::ack(ISN.wrapping_add(1)));
    assert_eq!(scene.state(&reply), Some(State::V6_INIT));
}

#[test]
fn s20_neither_time_nor_load_changes_what_a_client_gets() {
    let flow = samples::flow();
    let reply = Scene::new().open(&flow);
    let mut busy = Scene::new();
    for other in 0..2_000u16 {
        let mut flow = flow;
        flow.client[4..6].copy_from_slice(&(other + 1).to_be_bytes());
        let _ = busy.establish(&flow);
    }
    busy.now += 1_000_000;
    assert_eq!(busy.establish(&flow), reply);
}
