//! The maps of `publisher_common::layout`, and access to them as decisions need it.
//!
//! Capacities are defaults: the loader sets them from the configuration.

use crate::icmp::Chunk;
use crate::older;
use crate::window::Aligned;
use aya_ebpf::{
    bindings::{
        BPF_F_CURRENT_NETNS, BPF_NOEXIST, BPF_RB_NO_WAKEUP, BPF_TCP_LISTEN, bpf_sock,
        bpf_sock_tuple,
    },
    helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie},
    programs::TcContext,
};
use core::mem::size_of;
use publisher_common::{
    decide::{Way, Workspace, errors::ErrorWorkspace},
    layout::{
        self, AccessKey, Class, Datagram, ForwardKey, FragmentKey, LocalKey, PublicationKey,
        RateKey, Record, ReplyKey, Rule, Source, SourceKey, Use, Window,
    },
    rate::Bucket,
    reason::Reason,
    tables::Tables,
    translate::Piece,
    wire::protocol,
};

#[map]
pub static CONFIG: Array<layout::Config> = Array::with_max_entries(1, 0);
#[map]
static PORTS: Array<u64> = Array::with_max_entries(layout::PORT_WORDS, 0);
#[map]
static LOCALS: LpmTrie<LocalKey, u32> = LpmTrie::with_max_entries(layout::LOCALS, 1);
#[map]
static PUBLICATIONS: HashMap<PublicationKey, layout::Publication> =
    HashMap::with_max_entries(layout::PUBLICATIONS, 1);
#[map]
static LINKS: Array<layout::Link> = Array::with_max_entries(layout::LINKS, 0);
#[map]
static UPLINKS: HashMap<u32, layout::Uplink> = HashMap::with_max_entries(layout::UPLINKS, 0);
#[map]
pub static FORWARD: HashMap<ForwardKey, layout::Forward> =
    HashMap::with_max_entries(layout::SESSIONS, 0);
#[map]
pub static REVERSE: HashMap<ReplyKey, layout::Reverse> =
    HashMap::with_max_entries(layout::SESSIONS, 0);
#[map]
pub static HALF_OPEN: LruHashMap<ReplyKey, layout::Transient> =
    LruHashMap::with_max_entries(layout::HALF_OPEN, 0);
#[map]
pub static CLOSING: LruHashMap<ReplyKey, layout::Transient> =
    LruHashMap::with_max_entries(layout::CLOSING, 0);
#[map]
static ALIASES: HashMap<[u8; 4], layout::Alias> = HashMap::with_max_entries(layout::SESSIONS, 1);
#[map]
static FRAGMENTS_IN: LruHashMap<FragmentKey, Datagram> =
    LruHashMap::with_max_entries(layout::DATAGRAMS, 0);
#[map]
static FRAGMENTS_OUT: LruHashMap<FragmentKey, Datagram> =
    LruHashMap::with_max_entries(layout::DATAGRAMS, 0);
#[map]
static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(layout::DROP_COUNTERS, 0);
#[map]
static ACCESS: LpmTrie<AccessKey, Rule> = LpmTrie::with_max_entries(layout::RULES, 1);
#[map]
static USES: HashMap<u32, Use> = HashMap::with_max_entries(layout::PUBLICATIONS, 1);
#[map]
static SOURCES: HashMap<SourceKey, Source> = HashMap::with_max_entries(layout::SESSIONS, 1);
#[map]
static RATES: LruHashMap<RateKey, Window> = LruHashMap::with_max_entries(layout::RATES, 0);
#[map]
static DISPLACED: Array<u32> = Array::with_max_entries(layout::DISPLACED_SLOTS, 0);
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(layout::EVENT_BYTES, 0);
#[map]
static EVENTS_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Room that decisions need beside the stack; not pinned, nothing in it outlives a packet.
#[map]
static WORK: PerCpuArray<Workspace> = PerCpuArray::with_max_entries(1, 0);
/// The same for ICMP errors.
#[map]
static ERROR_WORK: PerCpuArray<ErrorWorkspace> = PerCpuArray::with_max_entries(1, 0);

/// Room for cutting a fragment to a piece.
#[derive(Clone, Copy)]
pub struct PieceRoom {
    /// IPv6 and Fragment header.
    pub headers: [u8; 48],
    /// The piece.
    pub piece: Piece,
    /// Segments of super-packets that were made fragments.
    pub segments: u16,
}

/// The same for fragments.
#[map]
static PIECE_ROOM: PerCpuArray<PieceRoom> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's room for cutting a fragment.
#[inline(always)]
pub fn piece_room<'a>() -> Option<&'a mut PieceRoom> {
    shared(PIECE_ROOM.get_ptr_mut(0))
}
/// A part of a packet while it is summed.
#[map]
static CHUNK: PerCpuArray<Chunk> = PerCpuArray::with_max_entries(1, 0);

/// The errors of the host's own that this CPU may still send.
#[map]
static ANSWERS: PerCpuArray<Bucket> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's room for a decision.
#[inline(always)]
pub fn workspace<'a>() -> Option<&'a mut Workspace> {
    shared(WORK.get_ptr_mut(0))
}

/// This CPU's room for a decision about an ICMP error.
#[inline(always)]
pub fn error_workspace<'a>() -> Option<&'a mut ErrorWorkspace> {
    shared(ERROR_WORK.get_ptr_mut(0))
}

/// This CPU's room for a part of a packet.
#[inline(always)]
pub fn chunk<'a>() -> Option<&'a mut Chunk> {
    shared(CHUNK.get_ptr_mut(0))
}

/// The errors that this CPU may still send.
#[inline(always)]
pub fn answers<'a>() -> Option<&'a mut Bucket> {
    shared(ANSWERS.get_ptr_mut(0))
}

/// Counts a dropped packet.
#[inline(always)]
pub fn count_drop(reason: Reason) {
    if let Some(counter) = DROPS.get_ptr_mut(reason as u32) {
        // SAFETY: the entry is this CPU's own, and a program isn't interrupted by itself there.
        unsafe { *counter += 1 };
    }
}

/// The maps, as seen by the program that handles `context`.
pub struct Kernel<'a> {
    context: &'a TcContext,
}

impl<'a> Kernel<'a> {
    #[inline(always)]
    pub const fn new(context: &'a TcContext) -> Self {
        Self { context }
    }
}

/// A map value as a reference.
///
/// The value stays allocated for as long as the program runs (maps free under RCU). Other CPUs may
/// write it meanwhile; the layout's fields allow that (see `publisher_common::tables`).
#[inline(always)]
pub fn shared<'a, T>(pointer: Option<*mut T>) -> Option<&'a mut T> {
    // SAFETY: a map look-up returned the pointer, so it is aligned and points to a whole value.
    pointer.map(|value| unsafe { &mut *value })
}

impl Tables for Kernel<'_> {
    #[inline(always)]
    fn config(&self) -> Option<&layout::Config> {
        CONFIG.get(0).filter(|config| config.ready != 0)
    }

    #[inline(always)]
    fn port_word(&self, index: u32) -> u64 {
        PORTS.get(index).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn is_local(&self, address: &[u8; 16], scope: u32) -> bool {
        let key = LocalKey { scope: scope.to_ne_bytes(), address: *address };
        LOCALS.get(&Aligned(lpm_trie::Key::new(LocalKey::BITS, key)).0).is_some()
    }

    #[inline(always)]
    fn interface_of(&self, address: &[u8; 16]) -> u32 {
        let key = LocalKey { scope: layout::LOOPBACK.to_ne_bytes(), address: *address };
        LOCALS.get(&Aligned(lpm_trie::Key::new(LocalKey::BITS, key)).0).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn publication(&self, key: &PublicationKey) -> Option<&layout::Publication> {
        shared(PUBLICATIONS.get_ptr_mut(key)).map(|value| &*value)
    }

    #[inline(always)]
    fn link(&self, index: u32) -> Option<&layout::Link> {
        LINKS.get(index)
    }

    #[inline(always)]
    fn uplink(&self, ifindex: u32) -> Option<&layout::Uplink> {
        shared(UPLINKS.get_ptr_mut(ifindex)).map(|value| &*value)
    }

    #[inline(always)]
    fn alias(&self, address: &[u8; 4]) -> Option<&layout::Alias> {
        shared(ALIASES.get_ptr_mut(address)).map(|value| &*value)
    }

    #[inline(always)]
    fn access(&self, key: &AccessKey) -> Option<Rule> {
        ACCESS.get(&Aligned(lpm_trie::Key::new(AccessKey::BITS, *key)).0).copied()
    }

    #[inline(never)]
    fn has_socket(&self, flow: &ForwardKey, connected: bool) -> bool {
        // The IPv6 arm of bpf_sock_tuple: addresses, then ports, in network order.
        let mut aligned = Aligned([0u8; 36]);
        let tuple = &mut aligned.0;
        tuple[..16].copy_from_slice(&flow.client);
        tuple[16..32].copy_from_slice(&flow.host);
        tuple[32..34].copy_from_slice(&flow.client_port);
        tuple[34..36].copy_from_slice(&flow.host_port);
        let pointer = tuple.as_mut_ptr().cast::<bpf_sock_tuple>();
        let size = size_of::<[u8; 36]>() as u32;
        let skb = self.context.skb.skb.cast();
        let here = BPF_F_CURRENT_NETNS as u64;
        // SAFETY: the tuple has the size of its IPv6 arm; a socket that is found is read while it is held,
        // and released.
        unsafe {
            // The two are of different types to the verifier, which allows no access for both: so each
            // reads a field of its own.
            let is_connected = if flow.protocol == protocol::TCP {
                let socket: *mut bpf_sock = bpf_skc_lookup_tcp(skb, pointer, size, here, 0);
                if socket.is_null() {
                    return false;
                }
                let is_connected = (*socket).state != BPF_TCP_LISTEN;
                bpf_sk_release(socket.cast());
                is_connected
            } else {
                let socket: *mut bpf_sock = bpf_sk_lookup_udp(skb, pointer, size, here, 0);
                if socket.is_null() {
                    return false;
                }
                let is_connected = (*socket).dst_port != 0;
                bpf_sk_release(socket.cast());
                is_connected
            };
            !connected || is_connected
        }
    }

    #[inline(always)]
    fn forward_and_link(
        &mut self,
        key: &ForwardKey,
    ) -> Option<(&mut layout::Forward, Option<&layout::Link>)> {
        let entry = shared(FORWARD.get_ptr_mut(key)).or_else(|| older::forward(key))?;
        let link = LINKS.get(entry.session.link.index);
        Some((entry, link))
    }

    #[inline(always)]
    fn reverse_and_link(
        &mut self,
        key: &ReplyKey,
    ) -> Option<(&mut layout::Reverse, Option<&layout::Link>)> {
        let entry = shared(REVERSE.get_ptr_mut(key)).or_else(|| older::reverse(key))?;
        let link = LINKS.get(entry.session.link.index);
        Some((entry, link))
    }

    #[inline(always)]
    fn forward(&mut self, key: &ForwardKey) -> Option<&mut layout::Forward> {
        shared(FORWARD.get_ptr_mut(key))
    }

    #[inline(always)]
    fn reverse(&mut self, key: &ReplyKey) -> Option<&mut layout::Reverse> {
        shared(REVERSE.get_ptr_mut(key))
    }

    #[inline(always)]
    fn transient(&mut self, class: Class, key: &ReplyKey) -> Option<&mut layout::Transient> {
        shared(match class {
            Class::HalfOpen => HALF_OPEN.get_ptr_mut(key),
            Class::Closing => CLOSING.get_ptr_mut(key),
        })
    }

    #[inline(always)]
    fn usage(&mut self, publication: u32) -> Option<&mut Use> {
        shared(USES.get_ptr_mut(publication))
    }

    #[inline(always)]
    fn source(&mut self, key: &SourceKey) -> Option<&mut Source> {
        shared(SOURCES.get_ptr_mut(key))
    }

    #[inline(always)]
    fn rate(&mut self, key: &RateKey) -> Option<&mut Window> {
        shared(RATES.get_ptr_mut(key))
    }

    #[inline(always)]
    fn displaced(&mut self, slot: u32) -> Option<&mut u32> {
        shared(DISPLACED.get_ptr_mut(slot))
    }

    #[inline(always)]
    fn insert_source(&mut self, key: &SourceKey, value: &Source) -> bool {
        SOURCES.insert(key, value, u64::from(BPF_NOEXIST)).is_ok()
    }

    #[inline(always)]
    fn insert_rate(&mut self, key: &RateKey, value: &Window) {
        let _ = RATES.insert(key, value, u64::from(BPF_NOEXIST));
    }

    #[inline(always)]
    fn add(number: &mut u64, what: u64) {
        // SAFETY: it adds to the eight bytes that the reference is to, and does nothing else. The
        // target has no `fetch_add`: Linux 5.10 can't return what was there before.
        unsafe {
            core::arch::asm!(
                "lock *(u64 *)({number} + 0) += {what}",
                number = in(reg) number,
                what = in(reg) what,
                options(nostack, preserves_flags)
            );
        }
    }

    #[inline(always)]
    fn log(&mut self, record: &Record) {
        // The daemon looks at the buffer by itself: waking it would cost each connection.
        if EVENTS.output::<Record>(record, u64::from(BPF_RB_NO_WAKEUP)).is_err()
            && let Some(lost) = shared(EVENTS_LOST.get_ptr_mut(0))
        {
            *lost += 1;
        }
    }

    #[inline(always)]
    fn datagram(&mut self, way: Way, key: &FragmentKey) -> Option<&mut Datagram> {
        shared(match way {
            Way::In => FRAGMENTS_IN.get_ptr_mut(key),
            Way::Out => FRAGMENTS_OUT.get_ptr_mut(key),
        })
    }

    #[inline(always)]
    fn insert_forward(&mut self, key: &ForwardKey, value: &layout::Forward) -> bool {
        FORWARD.insert(key, value, u64::from(BPF_NOEXIST)).is_ok()
    }

    #[inline(always)]
    fn insert_reverse(&mut self, key: &ReplyKey, value: &layout::Reverse) -> bool {
        REVERSE.insert(key, value, u64::from(BPF_NOEXIST)).is_ok()
    }

    #[inline(always)]
    fn insert_transient(
        &mut self,
        class: Class,
        key: &ReplyKey,
        value: &layout::Transient,
    ) -> bool {
        let flags = u64::from(BPF_NOEXIST);
        match class {
            Class::HalfOpen => HALF_OPEN.insert(key, value, flags).is_ok(),
            Class::Closing => CLOSING.insert(key, value, flags).is_ok(),
        }
    }

    #[inline(always)]
    fn insert_alias(&mut self, address: &[u8; 4], value: &layout::Alias) -> bool {
        ALIASES.insert(address, value, u64::from(BPF_NOEXIST)).is_ok()
    }

    #[inline(always)]
    fn remove_forward(&mut self, key: &ForwardKey) {
        let _ = FORWARD.remove(key);
    }

    #[inline(always)]
    fn remove_reverse(&mut self, key: &ReplyKey) {
        let _ = REVERSE.remove(key);
    }

    #[inline(always)]
    fn remove_transient(&mut self, class: Class, key: &ReplyKey) {
        let _ = match class {
            Class::HalfOpen => HALF_OPEN.remove(key),
            Class::Closing => CLOSING.remove(key),
        };
    }

    #[inline(always)]
    fn insert_datagram(&mut self, way: Way, key: &FragmentKey, value: &Datagram) {
        let flags = u64::from(BPF_NOEXIST);
        let _ = match way {
            Way::In => FRAGMENTS_IN.insert(key, value, flags),
            Way::Out => FRAGMENTS_OUT.insert(key, value, flags),
        };
    }

    #[inline(always)]
    fn remove_datagram(&mut self, way: Way, key: &FragmentKey) {
        let _ = match way {
            Way::In => FRAGMENTS_IN.remove(key),
            Way::Out => FRAGMENTS_OUT.remove(key),
        };
    }
}
