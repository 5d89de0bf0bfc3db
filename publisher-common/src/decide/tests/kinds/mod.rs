//! Every kind of packet that is translated, each on a host that knows its session, and what becomes
//! of it where it is cut off.

mod clients;
mod containers;

use super::packets::{Body, Segment};
use super::*;
use crate::layout::{ForwardKey, ReplyKey};
use crate::wire::{ETHERNET_LENGTH, protocol};
use std::string::String;
use std::vec::Vec;

pub use clients::*;
pub use containers::*;

/// Where a packet comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Uplink,
    Veth,
}

/// A packet, and the host that it comes to.
pub struct Kind {
    pub name: String,
    pub host: Scene,
    pub side: Side,
    /// From the IP header on.
    pub bytes: Vec<u8>,
    /// Where the transport header starts, or what a fragment carries.
    pub transport: usize,
    /// What becomes of it where it ends before its headers say: from each length on, one of these.
    pub cut: Vec<(usize, Vec<Outcome>)>,
    /// The least length that is enough, if the IP header says the same.
    pub least: usize,
    /// For a fragment, whether others follow: then its length is a multiple of 8.
    pub fragment: Option<bool>,
    /// What becomes of it as it is; `None` if it is translated.
    pub whole: Option<Outcome>,
}

impl Kind {
    /// The host once more, as it was before any packet.
    pub fn again(&self) -> Scene {
        Scene { tables: self.host.tables.clone(), now: self.host.now }
    }

    /// Sends what is left of the packet, or has been made of it.
    pub fn send(&self, host: &mut Scene, bytes: &[u8]) -> Outcome {
        match self.side {
            Side::Uplink => host.uplink(bytes),
            Side::Veth => host.veth(samples::VETH, &[&[0; ETHERNET_LENGTH], bytes].concat()),
        }
    }

    /// What may become of the packet with its first `length` bytes only.
    pub fn at(&self, length: usize) -> &[Outcome] {
        let rung = self.cut.iter().rev().find(|(from, _)| *from <= length);
        &rung.expect("what becomes of nothing").1
    }
}

/// TCP options: a time stamp.
const OPTIONS: &[u8] = &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
/// Maximum segment size, then a window scale.
const SYN_OPTIONS: &[u8] = &[2, 4, 0x05, 0xb4, 1, 3, 3, 7];

fn flows() -> [ForwardKey; 2] {
    [protocol::TCP, protocol::UDP].map(|number| ForwardKey { protocol: number, ..samples::flow() })
}

/// Hosts that know the session, in every state that a packet of either side can change.
fn hosts(flow: &ForwardKey, gateway: bool) -> Vec<(&'static str, Scene, ReplyKey)> {
    let host = || {
        let mut host = Scene::new();
        if gateway {
            host.use_gateway();
        }
        host
    };
    let (mut answered, mut established) = (host(), host());
    let reply = answered.open(flow);
    let answer =
        if flow.protocol == protocol::UDP { Body::datagram(20) } else { Segment::syn_ack().into() };
    let _ = answered.container(&reply, answer);
    established.establish(flow);
    let mut all = std::vec![("half-open", answered, reply), ("established", established, reply)];
    if flow.protocol == protocol::TCP {
        let (mut closing, mut reset) = (host(), host());
        closing.establish(flow);
        let _ = closing.client(flow, Segment::fin());
        let _ = closing.container(&reply, Segment::fin());
        reset.establish(flow);
        let _ = reset.client(flow, Segment::rst());
        assert!(closing.tables.closing.len() == 1 && reset.tables.closing.len() == 1);
        all.extend([("closing", closing, reply), ("reset", reset, reply)]);
    }
    all
}

/// What the sides of an open session send.
fn bodies(flow: &ForwardKey) -> Vec<(&'static str, Body)> {
    if flow.protocol == protocol::UDP {
        return std::vec![("datagram", Body::datagram(13)), ("empty", Body::datagram(0))];
    }
    std::vec![
        ("data", Segment::data(13).options(OPTIONS).into()),
        ("ack", Segment::data(0).into()),
        ("fin", Segment::fin().into()),
        ("rst", Segment::rst().into()),
    ]
}

fn transport_length(body: &Body) -> usize {
    match body {
        Body::Tcp(segment) => 20 + segment.options.len(),
        Body::Udp(_) => 8,
    }
}

/// The least of a transport header that says whose it is.
fn ports_length(body: &Body) -> usize {
    if matches!(body, Body::Tcp(_)) { 20 } else { 8 }
}

/// An extension of one object (RFC 4884 §7).
const EXTENSION: &[u8] = &[0x20, 0, 0xab, 0xcd, 0, 8, 1, 1, 0xde, 0xad, 0xbe, 0xef];
