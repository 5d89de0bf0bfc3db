//! The state that decisions are made on, as the datapath's maps or as plain tables in a test.

use crate::decide::Way;
use crate::layout::{
    AccessKey, Alias, Class, Config, Datagram, Forward, ForwardKey, FragmentKey, Link, Publication,
    PublicationKey, RateKey, Record, ReplyKey, Reverse, Rule, Source, SourceKey, Transient, Uplink,
    Use, Window,
};

/// Access to the maps.
///
/// Entries are handed out one at a time. In the kernel they are shared with other CPUs: an update
/// of a plain field may be lost to a concurrent one, which the fields allow (time stamps, counters).
/// Inserts are atomic.
pub trait Tables {
    /// The configuration; `None` before the daemon has written one.
    fn config(&self) -> Option<&Config>;
    /// A word of the bitmap of published ports.
    fn port_word(&self, index: u32) -> u64;
    /// Whether an address is the host's own; `scope` is its interface if it is link-local, else 0.
    fn is_local(&self, address: &[u8; 16], scope: u32) -> bool;
    /// The interface that alone has a link-local address of the host; 0 where several have it, or none.
    fn interface_of(&self, address: &[u8; 16]) -> u32;
    /// The publication of exactly this host address and port.
    fn publication(&self, key: &PublicationKey) -> Option<&Publication>;
    /// A container link by its index.
    fn link(&self, index: u32) -> Option<&Link>;
    /// An uplink by its interface index.
    fn uplink(&self, ifindex: u32) -> Option<&Uplink>;
    /// Whom an alias stands for.
    fn alias(&self, address: &[u8; 4]) -> Option<&Alias>;
    /// What the longest matching rule says about a client.
    fn access(&self, key: &AccessKey) -> Option<Rule>;
    /// Whether the host has a socket that a packet of this flow would reach: a connection, a listener, or
    /// for UDP a bound socket. With `connected`, only one that speaks with this client alone counts.
    fn has_socket(&self, flow: &ForwardKey, connected: bool) -> bool;

    /// An established session by the client's flow, and its container link.
    fn forward_and_link(&mut self, key: &ForwardKey) -> Option<(&mut Forward, Option<&Link>)>;
    /// An established session by the container's flow, and its container link.
    fn reverse_and_link(&mut self, key: &ReplyKey) -> Option<(&mut Reverse, Option<&Link>)>;
    /// An established session by the client's flow.
    fn forward(&mut self, key: &ForwardKey) -> Option<&mut Forward>;
    /// An established session by the container's flow.
    fn reverse(&mut self, key: &ReplyKey) -> Option<&mut Reverse>;
    /// A session that isn't established.
    fn transient(&mut self, class: Class, key: &ReplyKey) -> Option<&mut Transient>;

    /// What a publication has, by its number.
    fn usage(&mut self, publication: u32) -> Option<&mut Use>;
    /// What a /64 has.
    fn source(&mut self, key: &SourceKey) -> Option<&mut Source>;
    /// New sessions of a publication and a /64.
    fn rate(&mut self, key: &RateKey) -> Option<&mut Window>;

    /// When a flow of this slot was last seen at another tuple than its first candidate.
    fn displaced(&mut self, slot: u32) -> Option<&mut u32>;

    /// A datagram of which fragments have come.
    fn datagram(&mut self, way: Way, key: &FragmentKey) -> Option<&mut Datagram>;

    /// Adds an established session's direction; `false` where the key exists or the table is full.
    fn insert_forward(&mut self, key: &ForwardKey, value: &Forward) -> bool;
    /// Adds an established session's direction; `false` where the key exists or the table is full.
    fn insert_reverse(&mut self, key: &ReplyKey, value: &Reverse) -> bool;
    /// Adds a session that isn't established; `false` where the key exists. The table is an LRU: it
    /// is never full.
    fn insert_transient(&mut self, class: Class, key: &ReplyKey, value: &Transient) -> bool;
    /// Binds an alias; `false` where it is bound or the table is full.
    fn insert_alias(&mut self, address: &[u8; 4], value: &Alias) -> bool;
    /// Notes a /64; `false` where it is noted or the table is full.
    fn insert_source(&mut self, key: &SourceKey, value: &Source) -> bool;
    /// Starts to count new sessions. The table is an LRU: it is never full.
    fn insert_rate(&mut self, key: &RateKey, value: &Window);
    /// Adds to a number that all CPUs change, and wraps around.
    fn add(number: &mut u64, what: u64);
    /// Writes to the session log, if that has room.
    fn log(&mut self, record: &Record);

    /// Adds a datagram where there is none of that key. The table is an LRU: it is never full.
    fn insert_datagram(&mut self, way: Way, key: &FragmentKey, value: &Datagram);

    /// Takes out an established session's direction.
    fn remove_forward(&mut self, key: &ForwardKey);
    /// Takes out an established session's direction.
    fn remove_reverse(&mut self, key: &ReplyKey);
    /// Takes out a session that isn't established.
    fn remove_transient(&mut self, class: Class, key: &ReplyKey);
    /// Takes out a datagram.
    fn remove_datagram(&mut self, way: Way, key: &FragmentKey);
}
