//! A host with one published port, and what is done to it.

use super::packets::{self, Body, ISN, Segment};
use super::{Seen, samples};
use crate::layout::{
    Alias, ForwardKey, LOOPBACK, PublicationKey, ReplyKey, Reverse, State, Transient, origin,
    source_mode,
};
use crate::native::{MemoryTables, Outcome, from_container, from_host, from_uplink};
use crate::packet::Arrival;
use crate::wire::{ETHERNET_LENGTH, protocol};

/// The tables, and the time.
pub struct Scene {
    pub tables: MemoryTables,
    pub now: u32,
}

impl Scene {
    pub fn new() -> Self {
        Self { tables: samples::tables(), now: 1_000 }
    }

    fn arrival(&self, ifindex: u32, length: usize) -> Arrival {
        Arrival { now: self.now, ..samples::arrival(ifindex, length) }
    }

    /// Raw bytes on the uplink.
    pub fn uplink(&mut self, bytes: &[u8]) -> Outcome {
        from_uplink(bytes, &self.arrival(samples::UPLINK, bytes.len()), &mut self.tables)
    }

    /// A raw frame on the host's side of a veth.
    pub fn veth(&mut self, ifindex: u32, frame: &[u8]) -> Outcome {
        let arrival = self.arrival(ifindex, frame.len().saturating_sub(ETHERNET_LENGTH));
        from_container::<false>(frame, &arrival, &mut self.tables)
    }

    /// A raw frame on a bridge.
    pub fn bridge(&mut self, ifindex: u32, frame: &[u8]) -> Outcome {
        let arrival = self.arrival(ifindex, frame.len().saturating_sub(ETHERNET_LENGTH));
        from_container::<true>(frame, &arrival, &mut self.tables)
    }

    /// Raw bytes of a process of the host's, at the loopback interface.
    pub fn host(&mut self, bytes: &[u8]) -> Outcome {
        from_host(bytes, &self.arrival(LOOPBACK, bytes.len()), &mut self.tables)
    }

    /// A packet of a client.
    pub fn client(&mut self, flow: &ForwardKey, body: impl Into<Body>) -> Outcome {
        let bytes = packets::from_client(flow, &body.into());
        if flow.origin == origin::NETWORK {
            return self.uplink(&bytes);
        }
        // The client's own socket.
        self.tables.sockets.insert(flow.turned(), true);
        self.host(&bytes)
    }

    /// A packet of the container, by its veth.
    pub fn container(&mut self, reply: &ReplyKey, body: impl Into<Body>) -> Outcome {
        self.veth(samples::VETH, &packets::from_target(reply, &body.into()))
    }

    /// Opens a session by a SYN or a datagram, and returns how the container sees it.
    pub fn open(&mut self, flow: &ForwardKey) -> ReplyKey {
        let body =
            if flow.protocol == protocol::UDP { Body::datagram(12) } else { Segment::syn().into() };
        Seen::to_container(&self.client(flow, body)).reply_key()
    }

    /// Brings a session to where both sides have proved themselves.
    pub fn establish(&mut self, flow: &ForwardKey) -> ReplyKey {
        let reply = self.open(flow);
        let (answer, proof) = if flow.protocol == protocol::UDP {
            (Body::datagram(20), Body::datagram(12))
        } else {
            (Segment::syn_ack().into(), Segment::ack(ISN.wrapping_add(1)).into())
        };
        assert!(Seen::to_client(&self.container(&reply, answer)).answers(flow));
        assert_eq!(Seen::to_container(&self.client(flow, proof)).reply_key(), reply);
        assert!(self.is_established(flow), "not promoted");
        self.assert_paired();
        reply
    }

    pub fn is_established(&self, flow: &ForwardKey) -> bool {
        self.tables.forward.contains_key(flow)
    }

    /// The established session's direction to the client.
    pub fn reverse(&self, reply: &ReplyKey) -> &Reverse {
        self.tables.reverse.get(reply).expect("an established session")
    }

    /// The session among those that are closing.
    pub fn closing(&self, reply: &ReplyKey) -> &Transient {
        self.tables.closing.get(reply).expect("a closing session")
    }

    /// The session's state, wherever it is.
    pub fn state(&self, reply: &ReplyKey) -> Option<State> {
        let tables = &self.tables;
        let transient = tables.half_open.get(reply).or_else(|| tables.closing.get(reply));
        let established = tables.reverse.get(reply).map(|entry| entry.session.state);
        established.or(transient.map(|entry| entry.session.state))
    }

    /// Sets the sources that publications give.
    pub fn use_gateway(&mut self) {
        for publication in self.tables.publications.values_mut() {
            publication.source = source_mode::GATEWAY;
        }
    }

    /// Publishes the port of exactly one host address, to the port after the sample's.
    pub fn publish_exactly(&mut self, host: [u8; 16], scope: u32) {
        let wildcard = PublicationKey {
            host: [0; 16],
            scope: 0,
            port: samples::PORT,
            protocol: protocol::TCP,
            reserved: 0,
        };
        let mut value = self.tables.publications[&wildcard];
        value.target_port = 81u16.to_be_bytes();
        self.tables.publish(PublicationKey { host, scope, ..wildcard }, value);
    }

    /// Binds an alias to another client.
    pub fn bind(&mut self, alias: [u8; 4], client: [u8; 16]) {
        let value = Alias {
            client,
            scope: 0,
            created: 1,
            last_seen: 1,
            whole_prefix: 0,
            reserved: [0; 11],
        };
        self.tables.aliases.insert(alias, value);
    }

    /// The two directions of established sessions belong together, and no tuple is given twice.
    pub fn assert_paired(&self) {
        let tables = &self.tables;
        assert_eq!(tables.forward.len(), tables.reverse.len(), "half a pair");
        for (flow, forward) in &tables.forward {
            let reverse = tables.reverse.get(&forward.reply).expect("the other direction");
            assert_eq!(reverse.forward, *flow);
            assert_eq!(reverse.session, forward.session);
        }
        for reply in tables.half_open.keys() {
            assert!(!tables.reverse.contains_key(reply), "established and half-open");
            assert!(!tables.closing.contains_key(reply), "half-open and closing");
        }
        for reply in tables.closing.keys() {
            assert!(!tables.reverse.contains_key(reply), "established and closing");
        }
    }
}
