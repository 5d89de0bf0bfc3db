//! Every state with every signal of both sides, and the machine against the whole translator.

use super::Side::{Client, Container};
use super::Signal::{Fin, Other, Proof, Reset, Syn, Timeout};
use super::{Side, Signal, Step, Timer, step};
use crate::layout::State;
use std::collections::HashSet;

const CLOSED: State = State::CLOSED;
const INIT: State = State::V6_INIT;
const OPEN: State = State::ESTABLISHED;
const V6_FIN: State = State::V6_FIN_RCV;
const V4_FIN: State = State::V4_FIN_RCV;
const BOTH: State = State::V4_FIN_V6_FIN_RCV;
const TRANS: State = State::TRANS;

const KEPT: Timer = Timer::Kept;
const EST: Timer = Timer::Established;
const SHORT: Timer = Timer::Transitory;

/// State, who sends, what, the next state, its timer.
type Row = (State, Side, Signal, State, Timer);

/// RFC 6146 §3.5.2.2, and the two places where a publisher differs.
#[rustfmt::skip]
const TABLE: [Row; 84] = [
    (CLOSED, Client, Syn, INIT, SHORT),       (CLOSED, Container, Syn, CLOSED, KEPT),
    (CLOSED, Client, Proof, CLOSED, KEPT),    (CLOSED, Container, Proof, CLOSED, KEPT),
    (CLOSED, Client, Fin, CLOSED, KEPT),      (CLOSED, Container, Fin, CLOSED, KEPT),
    (CLOSED, Client, Reset, CLOSED, KEPT),    (CLOSED, Container, Reset, CLOSED, KEPT),
    (CLOSED, Client, Other, CLOSED, KEPT),    (CLOSED, Container, Other, CLOSED, KEPT),
    (CLOSED, Client, Timeout, CLOSED, KEPT),  (CLOSED, Container, Timeout, CLOSED, KEPT),

    (INIT, Client, Syn, INIT, SHORT),         (INIT, Container, Syn, INIT, SHORT),
    (INIT, Client, Proof, OPEN, EST),         (INIT, Container, Proof, INIT, KEPT),
    (INIT, Client, Fin, INIT, KEPT),          (INIT, Container, Fin, INIT, KEPT),
    (INIT, Client, Reset, INIT, KEPT),        (INIT, Container, Reset, INIT, KEPT),
    (INIT, Client, Other, INIT, KEPT),        (INIT, Container, Other, INIT, KEPT),
    (INIT, Client, Timeout, CLOSED, KEPT),    (INIT, Container, Timeout, CLOSED, KEPT),

    (OPEN, Client, Syn, OPEN, EST),           (OPEN, Container, Syn, OPEN, EST),
    (OPEN, Client, Proof, OPEN, EST),         (OPEN, Container, Proof, OPEN, EST),
    (OPEN, Client, Fin, V6_FIN, EST),         (OPEN, Container, Fin, V4_FIN, EST),
    (OPEN, Client, Reset, TRANS, SHORT),      (OPEN, Container, Reset, TRANS, SHORT),
    (OPEN, Client, Other, OPEN, EST),         (OPEN, Container, Other, OPEN, EST),
    (OPEN, Client, Timeout, TRANS, SHORT),    (OPEN, Container, Timeout, TRANS, SHORT),

    (V6_FIN, Client, Syn, V6_FIN, EST),       (V6_FIN, Container, Syn, V6_FIN, EST),
    (V6_FIN, Client, Proof, V6_FIN, EST),     (V6_FIN, Container, Proof, V6_FIN, EST),
    (V6_FIN, Client, Fin, V6_FIN, EST),       (V6_FIN, Container, Fin, BOTH, SHORT),
    (V6_FIN, Client, Reset, TRANS, SHORT),    (V6_FIN, Container, Reset, TRANS, SHORT),
    (V6_FIN, Client, Other, V6_FIN, EST),     (V6_FIN, Container, Other, V6_FIN, EST),
    (V6_FIN, Client, Timeout, CLOSED, KEPT),  (V6_FIN, Container, Timeout, CLOSED, KEPT),

    (V4_FIN, Client, Syn, V4_FIN, EST),       (V4_FIN, Container, Syn, V4_FIN, EST),
    (V4_FIN, Client, Proof, V4_FIN, EST),     (V4_FIN, Container, Proof, V4_FIN, EST),
    (V4_FIN, Client, Fin, BOTH, SHORT),       (V4_FIN, Container, Fin, V4_FIN, EST),
    (V4_FIN, Client, Reset, TRANS, SHORT),    (V4_FIN, Container, Reset, TRANS, SHORT),
    (V4_FIN, Client, Other, V4_FIN, EST),     (V4_FIN, Container, Other, V4_FIN, EST),
    (V4_FIN, Client, Timeout, CLOSED, KEPT),  (V4_FIN, Container, Timeout, CLOSED, KEPT),

    (BOTH, Client, Syn, INIT, SHORT),         (BOTH, Container, Syn, BOTH, KEPT),
    (BOTH, Client, Proof, BOTH, KEPT),        (BOTH, Container, Proof, BOTH, KEPT),
    (BOTH, Client, Fin, BOTH, KEPT),          (BOTH, Container, Fin, BOTH, KEPT),
    (BOTH, Client, Reset, BOTH, KEPT),        (BOTH, Container, Reset, BOTH, KEPT),
    (BOTH, Client, Other, BOTH, KEPT),        (BOTH, Container, Other, BOTH, KEPT),
    (BOTH, Client, Timeout, CLOSED, KEPT),    (BOTH, Container, Timeout, CLOSED, KEPT),

    (TRANS, Client, Syn, INIT, SHORT),        (TRANS, Container, Syn, OPEN, EST),
    (TRANS, Client, Proof, OPEN, EST),        (TRANS, Container, Proof, OPEN, EST),
    (TRANS, Client, Fin, OPEN, EST),          (TRANS, Container, Fin, OPEN, EST),
    (TRANS, Client, Reset, TRANS, KEPT),      (TRANS, Container, Reset, TRANS, KEPT),
    (TRANS, Client, Other, OPEN, EST),        (TRANS, Container, Other, OPEN, EST),
    (TRANS, Client, Timeout, CLOSED, KEPT),   (TRANS, Container, Timeout, CLOSED, KEPT),
];

#[test]
fn s4_s5_s6_s7_s8_s13_every_transition() {
    for (state, side, signal, next, timer) in TABLE {
        let row = std::format!("{} {side:?} {signal:?}", state.name());
        assert_eq!(step(state, side, signal), Step { state: next, timer }, "{row}");
    }
    let rows: HashSet<_> = TABLE
        .iter()
        .map(|(state, side, signal, ..)| (*state, *side as u8, *signal as u8))
        .collect();
    assert_eq!(rows.len(), 7 * 2 * 6, "each once, and none left out");
}

#[test]
fn what_is_no_state_is_closed() {
    for number in 7..=u8::MAX {
        for signal in [Syn, Proof, Fin, Reset, Other, Timeout] {
            assert_eq!(step(State(number), Client, signal).state, CLOSED);
        }
    }
}

#[test]
fn a_packets_flags_are_one_signal() {
    for flags in 0..=u8::MAX {
        for side in [Client, Container] {
            let syn = flags & 0x02 != 0 && (side == Container || flags & 0x10 == 0);
            let expected = match (flags & 0x04 != 0, flags & 0x01 != 0, syn) {
                (true, ..) => Reset,
                (_, true, _) => Fin,
                (.., true) => Syn,
                _ => Other,
            };
            assert_eq!(Signal::of(side, flags), expected, "{side:?} {flags:#x}");
        }
    }
}
