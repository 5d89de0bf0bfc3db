//! Maps of sessions for tests, filled without a datapath.

use super::hash::{Write, tests::create};
use super::sessions::{Maps, Sessions};
use publisher_common::layout::{
    DISPLACED_SLOTS, Forward, ForwardKey, Handle, ReplyKey, Reverse, Session, State, Timeouts,
    Usage,
};
use publisher_common::wire::protocol::{TCP, UDP};
use std::sync::Arc;

/// What the tests' clock says.
pub(super) const NOW: u32 = 100_000;
pub(super) const TIMEOUTS: Timeouts =
    Timeouts { udp: 300, tcp_established: 7_440, tcp_transitory: 240, fragments: 5 };

pub(super) fn clock() -> u32 {
    NOW
}

pub(super) fn maps(capacity: u32) -> Sessions {
    Sessions(Arc::new(Maps {
        forward: create(1, capacity),
        reverse: create(1, capacity),
        half_open: create(9, 1_024),
        closing: create(9, capacity),
        aliases: create(1, capacity),
        uses: create(1, 1_024),
        sources: create(1, capacity),
        displaced: create(2, DISPLACED_SLOTS),
    }))
}

/// The `n`th session of publication 1, its two halves last seen at these times.
pub(super) fn halves(n: u32, number: u8, seen: [u32; 2]) -> (ForwardKey, Forward, Reverse) {
    let mut client = [0x20; 16];
    client[4..8].copy_from_slice(&n.to_be_bytes());
    let [_, a, b, c] = n.to_be_bytes();
    let key = ForwardKey {
        client,
        host: [1; 16],
        client_port: [b, c],
        host_port: [0x1f, 0x90],
        scope: 0,
        protocol: number,
        origin: 0,
        reserved: [0; 2],
    };
    let reply = ReplyKey {
        target: [172, 17, 0, 2],
        alias: [198, 18, a, b],
        target_port: [0, 80],
        alias_port: [b, c],
        protocol: number,
        reserved: [0; 3],
    };
    let session = Session {
        link: Handle { index: 1, generation: 1 },
        publication: Handle { index: 1, generation: 1 },
        uplink: 2,
        created: 50_000,
        container_isn: 7,
        state: State::ESTABLISHED,
        flags: 0,
        reserved: [0; 2],
    };
    let forward = Forward {
        reply,
        session,
        last_seen: seen[0],
        reserved: [0; 4],
        usage: Usage { packets: 3, bytes: 300 },
        reserved_tail: [0; 8],
    };
    let reverse = Reverse {
        forward: key,
        last_seen: seen[1],
        session,
        usage: Usage { packets: 2, bytes: 200 },
        reserved_tail: [0; 8],
    };
    (key, forward, reverse)
}

impl Sessions {
    /// Puts a session there.
    pub(super) fn put(&self, n: u32, number: u8, seen: [u32; 2]) -> (ForwardKey, ReplyKey) {
        let (key, forward, reverse) = halves(n, number, seen);
        self.0.reverse.insert(&forward.reply, &reverse, Write::New).unwrap();
        self.0.forward.insert(&key, &forward, Write::New).unwrap();
        (key, forward.reply)
    }
}

pub(super) const NUMBERS: [u8; 2] = [TCP, UDP];
