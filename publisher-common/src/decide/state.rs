//! The TCP state machine of RFC 6146 §3.5.2, as far as clients alone open sessions (rules S4–S8, S13).
//!
//! It differs from the RFC where a publisher must: a session is established not by the container's
//! SYN but by the client's proof that it got it, so that a spoofed SYN leaves nothing behind; and a
//! SYN opens the tuple of a session that has ended again. What the container would open by itself
//! (V4 INIT, simultaneous open) isn't there: nothing is published for it.

use crate::layout::{State, session_flags};
use crate::wire::tcp_flags;

/// Who has sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client: V6 in the RFC.
    Client,
    /// The container: V4 in the RFC.
    Container,
}

impl Side {
    /// The flag that says that this side has sent a FIN.
    #[inline(always)]
    #[must_use]
    pub const fn fin(self) -> u8 {
        match self {
            Self::Client => session_flags::CLIENT_FIN,
            Self::Container => session_flags::CONTAINER_FIN,
        }
    }
}

/// What a packet, or its absence, means to the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SYN; of a client without ACK, which would open nothing.
    Syn,
    /// The client acknowledges the container's SYN: it gets our answers.
    Proof,
    /// FIN.
    Fin,
    /// RST.
    Reset,
    /// Anything else.
    Other,
    /// The timer has run out.
    Timeout,
}

impl Signal {
    /// The signal of a packet with these TCP flags.
    #[inline(always)]
    #[must_use]
    pub const fn of(side: Side, flags: u8) -> Self {
        let opens = match side {
            Side::Client => flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN,
            Side::Container => flags & tcp_flags::SYN != 0,
        };
        if flags & tcp_flags::RST != 0 {
            Self::Reset
        } else if flags & tcp_flags::FIN != 0 {
            Self::Fin
        } else if opens {
            Self::Syn
        } else {
            Self::Other
        }
    }
}

/// What becomes of the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// It runs on.
    Kept,
    /// It starts anew, with the time of an established session (TCP_EST).
    Established,
    /// It starts anew, with the time of a session that opens or ends (TCP_TRANS).
    Transitory,
}

/// The next state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The state.
    pub state: State,
    /// What becomes of the timer.
    pub timer: Timer,
}

/// What follows on `signal` by `side`, whose packet is translated in every state but
/// [`State::CLOSED`].
#[inline(always)]
#[must_use]
pub const fn step(state: State, side: Side, signal: Signal) -> Step {
    use Side::{Client, Container};
    use Signal::{Fin, Other, Proof, Reset, Syn, Timeout};
    let (state, timer) = match (state, side, signal) {
        (State::CLOSED, Client, Syn) => (State::V6_INIT, Timer::Transitory),
        (State::CLOSED, ..) => (State::CLOSED, Timer::Kept),

        (State::V6_INIT, Client, Proof) => (State::ESTABLISHED, Timer::Established),
        (State::V6_INIT, _, Syn) => (State::V6_INIT, Timer::Transitory),
        // A RST too: the container sends one for a forged ACK and keeps waiting for the right one.
        (State::V6_INIT, _, Proof | Fin | Reset | Other) => (State::V6_INIT, Timer::Kept),

        (State::ESTABLISHED, Client, Fin) => (State::V6_FIN_RCV, Timer::Established),
        (State::ESTABLISHED, Container, Fin) => (State::V4_FIN_RCV, Timer::Established),
        // The container is asked by a probe whether the session is still there.
        (State::ESTABLISHED, _, Reset | Timeout) => (State::TRANS, Timer::Transitory),
        (State::ESTABLISHED, ..) => (State::ESTABLISHED, Timer::Established),

        (State::V6_FIN_RCV, Container, Fin) | (State::V4_FIN_RCV, Client, Fin) => {
            (State::V4_FIN_V6_FIN_RCV, Timer::Transitory)
        }
        (State::V6_FIN_RCV | State::V4_FIN_RCV, _, Reset) => (State::TRANS, Timer::Transitory),
        (State::V6_FIN_RCV | State::V4_FIN_RCV, _, Syn | Proof | Fin | Other) => {
            (state, Timer::Established)
        }

        (State::V4_FIN_V6_FIN_RCV | State::TRANS, Client, Syn) => {
            (State::V6_INIT, Timer::Transitory)
        }
        (State::V4_FIN_V6_FIN_RCV, _, Syn | Proof | Fin | Reset | Other) => (state, Timer::Kept),
        (State::TRANS, _, Reset) => (State::TRANS, Timer::Kept),
        (State::TRANS, _, Syn | Proof | Fin | Other) => (State::ESTABLISHED, Timer::Established),

        // The timer has run out, or there is no such state.
        _ => (State::CLOSED, Timer::Kept),
    };
    Step { state, timer }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
