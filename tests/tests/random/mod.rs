//! Traffic that is mostly what connections consist of, and partly damaged.

pub mod counts;
pub mod episode;
mod errors;
mod fragments;
mod frames;
mod oddities;

use episode::Event;
use frames::{Body, client_packet, container_packet};
use publisher::datapath::Hook;
use publisher_common::layout::{ForwardKey, Link, ReplyKey, link_flags, origin};
use publisher_common::native::{Outcome, samples};
use publisher_common::wire::{ETHERNET_LENGTH, IPV4_LENGTH, IPV6_LENGTH, protocol, tcp_flags};
use publisher_tests::mirror::{
    BRIDGED_MAC, BRIDGED_PORT, BRIDGED_TARGET, Frame, GATEWAY_PORT, LINK_LOCAL_HOST, MAC,
    NARROW_PORT, SECOND_HOST, SLOW_PORT, Step,
};

const LOCALHOST: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// SplitMix64: fast, and the same everywhere for the same seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub const fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `limit`.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.word() % limit
    }

    /// True `percent` times of a hundred.
    pub const fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// A session that was opened, as both sides know it.
#[derive(Clone, Copy, Debug)]
struct Opened {
    flow: ForwardKey,
    reply: ReplyKey,
}

/// Packets of a few clients and two containers, in random order.
pub struct Traffic {
    random: Random,
    checked: bool,
    /// How many clients there are: few meet often, many fill the tables.
    clients: u64,
    opened: Vec<Opened>,
    /// The flow of the client's packet that was last made.
    last: Option<ForwardKey>,
    /// Fragments that are still to come, the next one last.
    pending: Vec<(Hook, Vec<u8>)>,
}

/// What a container starts its sequence numbers with.
const ISN: u32 = 0xffff_fffe;

impl Traffic {
    pub fn new(mut random: Random, checked: bool) -> Self {
        let clients = random.pick(&[2, 5, 12, 60]);
        Self { random, checked, clients, opened: Vec::new(), last: None, pending: Vec::new() }
    }

    /// What happens next.
    pub fn next_event(&mut self, links: &[Link]) -> Event {
        if self.random.below(120) == 0 {
            let index = self.random.below(2);
            return self.change(index as u32, links[index as usize]);
        }
        Event::Frame(self.next_frame())
    }

    /// What becomes of a link that changes.
    fn change(&mut self, index: u32, mut link: Link) -> Event {
        match self.random.below(5) {
            0 => link.generation += 1,
            1 => link.flags &= !link_flags::UP,
            2 => link.mtu = self.random.pick(&[1_280, 1_400, 1_500, 9_000]),
            _ => link.flags |= link_flags::UP,
        }
        let Link { generation, flags, mtu, .. } = link;
        Event::Link { index, generation, flags, mtu }
    }

    /// Takes note of what the container got, so that it can answer.
    pub fn note(&mut self, step: &Step) {
        let Step::Agreed(Outcome::ToContainer(packet, _)) = step else { return };
        let Some(flow) = self.last.take() else { return };
        let (Some(addresses), Some(ports)) = (packet.get(12..20), packet.get(20..24)) else {
            return;
        };
        let reply = ReplyKey {
            target: [addresses[4], addresses[5], addresses[6], addresses[7]],
            alias: [addresses[0], addresses[1], addresses[2], addresses[3]],
            target_port: [ports[2], ports[3]],
            alias_port: [ports[0], ports[1]],
            protocol: packet[9],
            reserved: [0; 3],
        };
        if !self.opened.iter().any(|known| known.reply == reply && known.flow == flow) {
            self.opened.push(Opened { flow, reply });
        }
    }

    /// The next frame.
    fn next_frame(&mut self) -> Frame {
        self.last = None;
        if !self.pending.is_empty() && self.random.percent(70) {
            let (hook, bytes) = self.pending.pop().expect("there is one");
            let checked = self.checked && self.random.percent(50);
            return Frame { hook, bytes, gso_size: 0, gso_segments: 0, checked };
        }
        let (hook, mut bytes) = match self.random.below(100) {
            0..52 => self.packet_of_client(),
            52..56 => self.error_of_client(),
            56..96 => self.packet_of_container(),
            _ => self.error_of_container(),
        };
        if self.random.percent(3) {
            self.forget_sum(&mut bytes);
        }
        let by_client = matches!(hook, Hook::UplinkEthernet | Hook::Loopback);
        if !by_client && self.random.percent(20) {
            let fields = ETHERNET_LENGTH + 6;
            bytes[fields] &= !0x40; // don't fragment
            fragments::seal(&mut bytes);
        }
        if self.random.percent(1) {
            self.tire(&mut bytes);
        }
        if by_client && self.random.percent(3) {
            self.extend(&mut bytes);
        }
        if !by_client && self.random.percent(3) {
            fragments::add_options(&mut self.random, &mut bytes);
        }
        if self.random.percent(18) {
            self.damage(&mut bytes);
            self.last = None;
            if self.random.percent(70) {
                fragments::seal(&mut bytes);
            }
        } else if self.random.percent(4) {
            let all = fragments::fragments(&mut self.random, &bytes);
            self.pending = all.into_iter().rev().map(|bytes| (hook, bytes)).collect();
        }
        let (mut gso_size, mut gso_segments) = (0, 0);
        // A test run's super-packet is of no type, which the kernel doesn't take room from.
        if fragments::is_plain(&bytes) && self.random.percent(6) {
            gso_size = self.random.pick(&[1, 100, 536, 1_208, 1_220, 1_221, 1_232, 1_440]);
            gso_segments = self.random.below(20) as u32;
        }
        let checked = self.checked && self.random.percent(50);
        Frame { hook, bytes, gso_size, gso_segments, checked }
    }

    fn flow(&mut self) -> ForwardKey {
        if self.random.percent(60)
            && let Some(known) = self.known()
        {
            return known.flow;
        }
        let mut flow = samples::flow();
        flow.client[14] = 1;
        flow.client[15] = self.random.below(self.clients) as u8;
        match self.random.below(60) {
            0 => flow.client = samples::HOST,
            1 => flow.client = self.random.pick(&[[0; 16], [0xff; 16]]),
            2..6 => flow.client[..8].copy_from_slice(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0]),
            _ => {}
        }
        if self.random.percent(20) {
            flow.origin = origin::HOST;
            let own = [samples::HOST, LOCALHOST, LINK_LOCAL_HOST, SECOND_HOST];
            flow.client = self.random.pick(&own);
            flow.host = self.random.pick(&own);
            return self.rest_of(flow);
        }
        flow.host = match self.random.below(20) {
            0 => [0xfd; 16],
            1 | 2 => LINK_LOCAL_HOST,
            3..6 => SECOND_HOST,
            _ => samples::HOST,
        };
        self.rest_of(flow)
    }

    /// Ports and protocol.
    fn rest_of(&mut self, mut flow: ForwardKey) -> ForwardKey {
        flow.host_port = match self.random.below(20) {
            0 => 9_999u16.to_be_bytes(),
            1..4 => GATEWAY_PORT,
            4..7 => BRIDGED_PORT,
            7 | 8 => SLOW_PORT,
            9..11 => NARROW_PORT,
            _ => samples::PORT,
        };
        flow.client_port = self.random.pick(&[0u16, 50_000, 50_001, 50_002]).to_be_bytes();
        flow.protocol = self.random.pick(&[protocol::TCP, protocol::TCP, protocol::UDP]);
        flow
    }

    fn known(&mut self) -> Option<Opened> {
        (!self.opened.is_empty()).then(|| self.random.pick(&self.opened))
    }

    fn body(&mut self, protocol: u8, from_client: bool) -> Body {
        let payload = self.random.pick(&[0, 0, 1, 7, 64, 1_207, 1_208, 1_209, 1_400, 1_455]);
        if protocol == protocol::UDP {
            return Body::Udp { payload };
        }
        let usual = [tcp_flags::ACK, tcp_flags::ACK, tcp_flags::ACK];
        let opening = if from_client {
            [tcp_flags::SYN, tcp_flags::SYN]
        } else {
            [tcp_flags::SYN | tcp_flags::ACK; 2]
        };
        let rare = [tcp_flags::FIN | tcp_flags::ACK, tcp_flags::RST];
        let flags = match self.random.below(20) {
            0..9 => self.random.pick(&usual),
            9..17 => self.random.pick(&opening),
            17 | 18 => self.random.pick(&rare),
            _ => self.random.below(64) as u8,
        };
        let right = self.random.percent(90);
        let options: &[u8] = match self.random.below(6) {
            0 => &[],
            1 => &[2, 4, 5, 0xb4],
            2 => &[1, 2, 4, 5, 0xb4, 1, 3, 3, 7, 0, 0, 0],
            3 => &[4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 4, 0x23],
            4 => &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            _ => &[2, 4, 0, 0x40],
        };
        let acknowledgment = ISN.wrapping_add(if right { 1 } else { 9 });
        Body::Tcp { flags, sequence: ISN, acknowledgment, options: options.to_vec(), payload }
    }

    fn packet_of_client(&mut self) -> (Hook, Vec<u8>) {
        let mut flow = self.flow();
        let body = self.body(flow.protocol, true);
        let mut bytes = client_packet(&flow, &body);
        flow.scope = 0;
        let hook = self.hook_of(&flow, &mut bytes);
        self.last = Some(flow);
        (hook, bytes)
    }

    /// By which program a client's packet comes; now and then by the wrong one.
    fn hook_of(&mut self, flow: &ForwardKey, bytes: &mut [u8]) -> Hook {
        if (flow.origin == origin::HOST) == self.random.percent(4) {
            return Hook::UplinkEthernet;
        }
        bytes[..6].fill(0);
        Hook::Loopback
    }

    /// A container's answer to a session; sometimes to none, or by somebody else.
    fn packet_of_container(&mut self) -> (Hook, Vec<u8>) {
        let mut reply = self.reply();
        if self.random.percent(3) {
            reply.alias_port = (self.random.below(65_536) as u16).to_be_bytes();
        }
        let body = self.body(reply.protocol, false);
        let (hook, source) = self.link_of(&reply);
        (hook, container_packet(&reply, source, &body))
    }

    fn reply(&mut self) -> ReplyKey {
        self.known().map_or_else(samples::reply, |known| known.reply)
    }

    /// By which program, and from which hardware address, a container's packet comes.
    fn link_of(&mut self, reply: &ReplyKey) -> (Hook, [u8; 6]) {
        let bridged = reply.target == BRIDGED_TARGET;
        match (self.random.percent(4), bridged) {
            (false, false) => (Hook::Veth, samples::TARGET_MAC),
            (false, true) => (Hook::Bridge, BRIDGED_MAC),
            (true, false) => (Hook::Bridge, samples::TARGET_MAC),
            (true, true) => (self.random.pick(&[Hook::Veth, Hook::Bridge]), samples::TARGET_MAC),
        }
    }

    /// Takes the checksum out of a UDP datagram.
    fn forget_sum(&mut self, bytes: &mut [u8]) {
        let (next, start) = match bytes[ETHERNET_LENGTH] >> 4 {
            6 => (20, ETHERNET_LENGTH + IPV6_LENGTH),
            _ => (23, ETHERNET_LENGTH + IPV4_LENGTH),
        };
        if bytes[next] == protocol::UDP {
            bytes[start + 6..start + 8].fill(0);
        }
    }

    /// Puts an extension header behind an IPv6 header.
    fn extend(&mut self, bytes: &mut Vec<u8>) {
        let start = ETHERNET_LENGTH + IPV6_LENGTH;
        for _ in 0..=self.random.below(7) {
            let kind = self.random.pick(&[
                protocol::HOP_BY_HOP,
                protocol::ROUTING,
                protocol::FRAGMENT,
                protocol::AUTHENTICATION,
                protocol::DESTINATION_OPTIONS,
                50,
            ]);
            // The second byte is a length in two units, or reserved; the next two a fragment's.
            let mut header = [bytes[20], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            header[1] = self.random.pick(&[0, 0, 1]);
            header[3] = self.random.pick(&[0, 0, 1, 8]);
            let length = match kind {
                protocol::AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
                protocol::FRAGMENT => 8,
                _ => (usize::from(header[1]) + 1) * 8,
            };
            bytes[20] = kind;
            bytes.splice(start..start, header[..length].iter().copied());
        }
        let payload = (bytes.len() - start) as u16;
        bytes[18..20].copy_from_slice(&payload.to_be_bytes());
    }

    /// Damages a frame, in its headers for the most part.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.random.below(2) {
            match self.random.below(12) {
                0 => bytes.truncate(ETHERNET_LENGTH + self.random.below(100) as usize),
                1 => bytes.truncate(self.random.below(bytes.len() as u64 + 1) as usize),
                2 => bytes.resize(bytes.len() + self.random.below(40) as usize, 0xee),
                3 => self.set(bytes, 0, MAC.len() as u64),
                4 => self.set(bytes, 12, 2),
                // Version, class, length, fragment, protocol and hop fields of both families.
                5..9 => self.set(bytes, ETHERNET_LENGTH as u64, 12),
                9 => self.set(bytes, ETHERNET_LENGTH as u64, 40),
                10 => self.set(bytes, ETHERNET_LENGTH as u64 + 20, 60),
                _ => {
                    let length = bytes.len() as u64;
                    self.set(bytes, 0, length);
                }
            }
        }
        // The kernel takes nothing without an Ethernet header.
        if bytes.len() < ETHERNET_LENGTH {
            bytes.resize(ETHERNET_LENGTH, 0);
        }
    }

    /// Sets one of `count` bytes from `start` on to something that means something to somebody.
    fn set(&mut self, bytes: &mut [u8], start: u64, count: u64) {
        let at = (start + self.random.below(count.max(1))) as usize;
        let any = self.random.word() as u8;
        let value = self.random.pick(&[0, 1, 4, 6, 17, 20, 44, 58, 60, 0x45, 0x46, 0xff, any, any]);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
    }
}
