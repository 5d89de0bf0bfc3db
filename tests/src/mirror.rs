//! The loaded programs and the native core side by side: the same tables, the same packets, and the
//! same results or a failure.

mod judge;
mod tables;

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, RingBuf};
use publisher::datapath::{Capacities, Datapath, Hook};
use publisher_common::decide::{Stop, to_container};
use publisher_common::layout::{
    AccessKey, Alias, Datagram, Forward, ForwardKey, FragmentKey, LOOPBACK, Link, RateKey, Record,
    ReplyKey, Reverse, Rule, Source, SourceKey, Transient, Use, VERSION, Window, names,
};
use publisher_common::native::{
    MemoryTables, Outcome, SlicePacket, from_container, from_host, from_uplink,
};
use publisher_common::packet::Arrival;
use publisher_common::reason::Reason;
use publisher_common::wire::{ETHERNET_LENGTH, protocol};
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Socket, Type};
use zerocopy::FromBytes as _;

use crate::netns::Netns;
use crate::test_run::{self, DROP, Input};
use judge::{expected, is, is_error, is_stub, may_be_cut};
use tables::{clear, fill, same, tables};

pub use judge::hex;

/// Hardware address of every device of the mirror's namespace.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
/// A second address of the host.
pub const SECOND_HOST: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// The host's link-local address on the uplink.
pub const LINK_LOCAL_HOST: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// The port that is published with the gateway's address as the source.
pub const GATEWAY_PORT: [u8; 2] = 8081u16.to_be_bytes();
/// The port whose target is behind a bridge, without a known veth.
pub const BRIDGED_PORT: [u8; 2] = 8082u16.to_be_bytes();
/// The target behind the bridge.
pub const BRIDGED_TARGET: [u8; 4] = [172, 17, 0, 3];
/// Its hardware address.
pub const BRIDGED_MAC: [u8; 6] = [2, 0x42, 0xac, 0x11, 0, 3];
/// Established sessions that the tables take: so few that they fill up.
pub const SESSIONS: u32 = 8;

/// A port of which each /64 opens one session a second, and all of them two.
pub const SLOW_PORT: [u8; 2] = 8083u16.to_be_bytes();
/// A port that takes two sessions, and no client of [`DENIED`].
pub const NARROW_PORT: [u8; 2] = 8084u16.to_be_bytes();
/// The last byte of a client's address that [`NARROW_PORT`] doesn't let in, and one that no port does.
pub const DENIED: [u8; 2] = [1, 2];

/// Ports that the host's own clients have.
pub const OWN_PORTS: [u16; 3] = [50_000, 50_001, 50_002];

/// A frame for one of the programs.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Which program.
    pub hook: Hook,
    /// The bytes, from the Ethernet header on.
    pub bytes: Vec<u8>,
    /// See [`Input::gso_size`].
    pub gso_size: u32,
    /// See [`Input::gso_segments`].
    pub gso_segments: u32,
    /// See [`Input::checked`].
    pub checked: bool,
}

/// What both made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// They agree on this.
    Agreed(Outcome),
    /// The kernel doesn't take such a frame; the native core passes it.
    Refused,
    /// The clock moved to the next second meanwhile: nobody knows which one the program saw, and
    /// the tables can't be compared any more.
    Moved,
}

/// A table of the kernel's.
type Table<K, V> = HashMap<MapData, K, V>;

/// Both sides.
pub struct Mirror {
    datapath: Option<Datapath>,
    programs: [(Hook, OwnedFd); 4],
    forward: Table<ForwardKey, Forward>,
    reverse: Table<ReplyKey, Reverse>,
    half_open: Table<ReplyKey, Transient>,
    closing: Table<ReplyKey, Transient>,
    aliases: Table<[u8; 4], Alias>,
    fragments_in: Table<FragmentKey, Datagram>,
    fragments_out: Table<FragmentKey, Datagram>,
    uses: Table<u32, Use>,
    sources: Table<SourceKey, Source>,
    rates: Table<RateKey, Window>,
    displaced: Array<MapData, u32>,
    events: RingBuf<MapData>,
    /// The native side.
    pub native: MemoryTables,
    empty: MemoryTables,
    dropped: BTreeMap<Reason, u64>,
    /// Errors of the programs' own that they didn't send, after many others.
    pub suppressed: u64,
    /// Interface indices of uplink, veth and bridge.
    pub devices: [u32; 3],
    /// The host's own clients; see [`OWN_PORTS`].
    _sockets: Vec<Socket>,
}

impl Mirror {
    /// Makes the devices in `netns` and fills the tables of both sides. Everything else has to be
    /// called from within the namespace.
    ///
    /// # Errors
    /// When the programs can't be loaded.
    pub fn new(netns: &Netns) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut devices = [0; 3];
        let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
        for (index, name) in ["up0", "veth0", "br0"].into_iter().enumerate() {
            netns.ip(&format!("link add {name} address {mac} type veth peer name {name}p"))?;
            // Pieces of fragments go into the queue of the interface, which must be up for that.
            netns.ip(&format!("link set {name} up"))?;
            devices[index] = netns.ifindex(name)?;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory =
            PathBuf::from(format!("/sys/fs/bpf/pubt-mirror-{}-{number}", std::process::id()));
        // The LRU tables are never full in these tests: which entry goes is the kernel's choice.
        let capacities = Capacities { sessions: SESSIONS, half_open: 8_192, closing: 8_192 };
        let mut datapath = Datapath::open(&directory, &capacities)?;
        let mut native = tables(devices);
        let mut sockets = Vec::new();
        for port in OWN_PORTS {
            for (kind, number) in [(Type::STREAM, protocol::TCP), (Type::DGRAM, protocol::UDP)] {
                let socket = netns.run(|| Socket::new(Domain::IPV6, kind, None))?;
                socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
                if kind == Type::STREAM {
                    socket.listen(1)?;
                }
                native.bound.insert((number, port.to_be_bytes()));
                sockets.push(socket);
            }
        }
        fill(&mut datapath, &native)?;
        let mut program = |hook| -> Result<_> {
            Ok((hook, datapath.program(hook)?.try_clone_to_owned().context("program")?))
        };
        let programs = [
            program(Hook::UplinkEthernet)?,
            program(Hook::Loopback)?,
            program(Hook::Veth)?,
            program(Hook::Bridge)?,
        ];
        let pins = directory.join(format!("v{VERSION}/maps"));
        let pin = |name: &str| -> Result<Map> {
            Ok(Map::from_map_data(MapData::from_pin(pins.join(name))?)?)
        };
        let mut access: LpmTrie<MapData, AccessKey, Rule> = pin(names::ACCESS)?.try_into()?;
        for (bits, key, rule) in &native.rules {
            access.insert(&Key::new(*bits, *key), rule, 0)?;
        }
        let mut mirror = Self {
            datapath: Some(datapath),
            programs,
            forward: pin(names::FORWARD)?.try_into()?,
            reverse: pin(names::REVERSE)?.try_into()?,
            half_open: pin(names::HALF_OPEN)?.try_into()?,
            closing: pin(names::CLOSING)?.try_into()?,
            aliases: pin(names::ALIASES)?.try_into()?,
            fragments_in: pin(names::FRAGMENTS_IN)?.try_into()?,
            fragments_out: pin(names::FRAGMENTS_OUT)?.try_into()?,
            uses: pin(names::USES)?.try_into()?,
            sources: pin(names::SOURCES)?.try_into()?,
            rates: pin(names::RATES)?.try_into()?,
            displaced: pin(names::DISPLACED)?.try_into()?,
            events: pin(names::EVENTS)?.try_into()?,
            empty: native.clone(),
            native,
            dropped: BTreeMap::new(),
            suppressed: 0,
            devices,
            _sockets: sockets,
        };
        mirror.clear()?;
        Ok(mirror)
    }

    /// The device of a program.
    pub const fn device(&self, hook: Hook) -> u32 {
        match hook {
            Hook::UplinkEthernet | Hook::UplinkRaw => self.devices[0],
            Hook::Loopback => LOOPBACK,
            Hook::Veth => self.devices[1],
            Hook::Bridge | Hook::SlowLane => self.devices[2],
        }
    }

    /// Whether the kernel can check sums.
    ///
    /// # Errors
    /// When it refuses the question.
    pub fn checks_sums(&self) -> Result<bool> {
        Ok(test_run::checks_sums(self.programs[0].1.as_fd())?)
    }

    /// Sets a link on both sides.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn set_link(&mut self, index: u32, link: Link) -> Result<()> {
        self.native.links[index as usize] = link;
        let datapath = self.datapath.as_mut().context("an open datapath")?;
        Ok(datapath.tables().set_link(index, &link)?)
    }

    /// Waits where the clock is about to move to the next second, so that a step comes to its end
    /// within this one.
    pub fn keep_off_the_second() {
        let rest = 1_000_000_000 - clock_gettime(ClockId::Monotonic).tv_nsec;
        if rest < 100_000_000 {
            std::thread::sleep(Duration::from_nanos(rest as u64));
        }
    }

    /// Gives a frame to both sides.
    ///
    /// # Errors
    /// When they don't agree.
    pub fn step(&mut self, frame: &Frame) -> Result<Step> {
        let (ifindex, bytes) = (self.device(frame.hook), &frame.bytes);
        let Some((_, program)) = self.programs.iter().find(|(hook, _)| *hook == frame.hook) else {
            bail!("{:?} can't be run", frame.hook);
        };
        let input = Input {
            frame: bytes,
            ifindex,
            gso_size: frame.gso_size,
            gso_segments: frame.gso_segments,
            checked: frame.checked && !may_be_cut(bytes),
        };
        let now = seconds();
        let mut output = test_run::run(program.as_fd(), &input);
        // An error that is made out of another changes the length, with which the kernel forgets
        // the sum (`CHECKSUM_NONE`); the check doesn't know that. Errors leave the tables alone.
        if is_error(bytes) && output.as_ref().is_err_and(|error| is(error, libc::EBADMSG)) {
            output = test_run::run(program.as_fd(), &Input { checked: false, ..input });
        }
        if seconds() != now {
            return Ok(Step::Moved);
        }
        let arrival = Arrival {
            ifindex,
            length: bytes.len().saturating_sub(ETHERNET_LENGTH) as u32,
            now,
            gso_size: frame.gso_size,
            gso_segments: frame.gso_segments,
            from_host: false,
        };
        let outcome = native(frame, &arrival, &mut self.native);
        let output = match output {
            Ok(output) => output,
            Err(error) if is(&error, libc::EINVAL) && is_stub(bytes) => {
                ensure!(outcome == Outcome::Stop(Stop::Pass), "a stub that isn't passed");
                return Ok(Step::Refused);
            }
            // The same for an error that goes back; here the tables have changed, so once is enough.
            Err(error) if is(&error, libc::EBADMSG) => {
                let Outcome::Answered(_, reason) = &outcome else {
                    return Err(error).context("a run");
                };
                *self.dropped.entry(*reason).or_default() += 1;
                return Ok(Step::Agreed(outcome));
            }
            Err(error) => return Err(error).context("a run"),
        };
        if let Outcome::Stop(Stop::Drop(reason)) | Outcome::Answered(_, reason) = &outcome {
            *self.dropped.entry(*reason).or_default() += 1;
        }
        // How many errors the programs may send goes by the clock.
        if matches!(outcome, Outcome::Answered(..)) && output.action == DROP {
            *self.dropped.entry(Reason::AnswerSuppressed).or_default() += 1;
            self.suppressed += 1;
            return Ok(Step::Agreed(outcome));
        }
        let (action, expected) = expected(&outcome, bytes, &self.native);
        ensure!(
            (output.action, &output.frame) == (action, &expected),
            "the kernel: {} {}\nthe core:   {action} {}\n",
            output.action,
            hex(&output.frame),
            hex(&expected)
        );
        Ok(Step::Agreed(outcome))
    }

    /// Compares all sessions, aliases and counters.
    ///
    /// # Errors
    /// When they differ.
    pub fn compare(&mut self) -> Result<()> {
        same(names::FORWARD, &self.forward, &self.native.forward)?;
        same(names::REVERSE, &self.reverse, &self.native.reverse)?;
        same(names::HALF_OPEN, &self.half_open, &self.native.half_open)?;
        same(names::CLOSING, &self.closing, &self.native.closing)?;
        same(names::ALIASES, &self.aliases, &self.native.aliases)?;
        same(names::FRAGMENTS_IN, &self.fragments_in, &self.native.fragments_in)?;
        same(names::FRAGMENTS_OUT, &self.fragments_out, &self.native.fragments_out)?;
        same(names::USES, &self.uses, &self.native.uses)?;
        same(names::SOURCES, &self.sources, &self.native.sources)?;
        same(names::RATES, &self.rates, &self.native.rates)?;
        for (slot, expected) in &self.native.displaced {
            let found = self.displaced.get(slot, 0)?;
            ensure!(found == *expected, "slot {slot}: {found}, not {expected}");
        }
        let logged = self.logged()?;
        let expected = std::mem::take(&mut self.native.records);
        ensure!(logged == expected, "the session log\nkernel {logged:?}\ncore {expected:?}");
        let datapath = self.datapath.as_mut().context("an open datapath")?;
        for (reason, counted) in datapath.tables().drops()? {
            let expected = self.dropped.get(&reason).copied().unwrap_or(0);
            ensure!(counted == expected, "{}: {counted}, not {expected}", reason.name());
        }
        Ok(())
    }

    /// What has been written to the session log since this was last asked.
    fn logged(&mut self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        while let Some(bytes) = self.events.next() {
            let record = Record::read_from_bytes(&bytes);
            records.push(record.map_err(|error| anyhow!("a record: {error}"))?);
        }
        Ok(records)
    }

    /// Ends all sessions on both sides, and puts the links back.
    ///
    /// # Errors
    /// When a map can't be written.
    pub fn clear(&mut self) -> Result<()> {
        clear(&mut self.forward)?;
        clear(&mut self.reverse)?;
        clear(&mut self.half_open)?;
        clear(&mut self.closing)?;
        clear(&mut self.aliases)?;
        clear(&mut self.fragments_in)?;
        clear(&mut self.fragments_out)?;
        clear(&mut self.sources)?;
        clear(&mut self.rates)?;
        for (number, value) in &self.empty.uses {
            self.uses.insert(number, value, 0)?;
        }
        for slot in self.native.displaced.keys() {
            self.displaced.set(*slot, 0, 0)?;
        }
        self.logged()?;
        self.native = self.empty.clone();
        for (index, link) in self.native.links.clone().into_iter().enumerate() {
            self.set_link(index as u32, link)?;
        }
        let datapath = self.datapath.as_mut().context("an open datapath")?;
        self.dropped = datapath.tables().drops()?.into_iter().collect();
        Ok(())
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.datapath.take().map(Datapath::uninstall) {
            eprintln!("mirror: {error}");
        }
    }
}

/// Seconds of the clock that programs read.
fn seconds() -> u32 {
    clock_gettime(ClockId::Monotonic).tv_sec as u32
}

/// What the core makes of a frame, behind the conditions under which a program asks it.
fn native(frame: &Frame, arrival: &Arrival, tables: &mut MemoryTables) -> Outcome {
    let bytes = &frame.bytes;
    let uplink = frame.hook == Hook::UplinkEthernet;
    let loopback = frame.hook == Hook::Loopback;
    let ethertype = if uplink || loopback { [0x86, 0xdd] } else { [8, 0] };
    // A container addresses the bridge, which at its veth is somebody else.
    let to_us = bytes.get(..6).is_some_and(|address| match frame.hook {
        Hook::UplinkEthernet => address == MAC,
        Hook::Loopback => address == [0; 6],
        _ => address[0] & 1 == 0,
    });
    if to_us && uplink && bytes.get(12..14) == Some(&[8, 0]) {
        return Outcome::Stop(to_container::ipv4(
            &SlicePacket::new(&bytes[ETHERNET_LENGTH..]),
            tables,
        ));
    }
    if !to_us || bytes.get(12..14).is_none_or(|found| found != ethertype) {
        return Outcome::Stop(Stop::Pass);
    }
    match frame.hook {
        Hook::Veth => from_container::<false>(bytes, arrival, tables),
        Hook::Bridge => from_container::<true>(bytes, arrival, tables),
        Hook::Loopback => from_host(&bytes[ETHERNET_LENGTH..], arrival, tables),
        _ => from_uplink(&bytes[ETHERNET_LENGTH..], arrival, tables),
    }
}
