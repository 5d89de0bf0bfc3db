//! ICMP errors about sessions, translated both ways; errors about anything else are the host's.
//!
//! The session is looked for wherever it may be: established, half-open, closing. An error changes
//! none (RFC 5508 REQ-6, RFC 5382 REQ-10): anybody on the path can send one.

mod answer;
mod copy;
mod from_client;
mod from_container;

use super::{Exit, Uplink, establish};
use crate::alias::Candidates;
use crate::checksum::Difference;
use crate::layout::{Class, ForwardKey, Handle, Publication, ReplyKey};
use crate::packet::Arrival;
use crate::tables::Tables;
use crate::translate::icmp::{Embedded, IPV6_ERROR, Mapped, Outer, Parts, Shape, mtu::Limits};
use crate::wire::{HEADER_GROWTH, ICMP_LENGTH};
use zerocopy::FromZeros;

pub use answer::{answer_client, answer_container};
pub use from_client::from_client;
pub use from_container::from_container;

/// Room for what is looked up and for the error that is made, off the stack (see
/// [`super::Workspace`]).
#[derive(Clone, Copy, Debug, FromZeros)]
pub struct ErrorWorkspace {
    /// What the kernel says about the packet.
    arrival: Arrival,
    /// The session, as the client knows it.
    flow: ForwardKey,
    /// The session, as the container knows it.
    reply: ReplyKey,
    /// The session's link.
    link: Handle,
    /// What a session that isn't established was opened by.
    publication: Publication,
    /// Where such a session may be.
    candidates: Candidates,
    /// The ICMP header.
    start: [u8; ICMP_LENGTH],
    /// What is taken over from the outer IP header.
    outer: Outer,
    /// What is taken over from the embedded packet.
    embedded: Embedded,
    /// What the new error says.
    mapped: Mapped,
    /// The MTU that it names.
    mtu: u32,
    /// Who an error for the container comes from: the host's address on its link.
    gateway: [u8; 4],
    /// What of the message goes along as it is.
    shape: Shape,
    /// The sum of that.
    copied: u32,
    /// Where an error for the container goes.
    pub exit: Exit,
    /// Ethernet addresses for an uplink that has none: the container's, then the link's.
    pub ethernet: [[u8; 6]; 2],
    /// Where an error for the client goes.
    pub uplink: Uplink,
    /// Length of the error, from its IP header on.
    pub length: u32,
    /// The error.
    pub message: [u8; IPV6_ERROR],
}

impl ErrorWorkspace {
    /// Room for one decision.
    #[must_use]
    pub fn new() -> Self {
        Self::new_zeroed()
    }

    /// The message, what is to be written to it, and where its length goes.
    #[inline(always)]
    fn parts(&mut self) -> (&mut [u8; IPV6_ERROR], Parts<'_>, &mut u32) {
        let Self { flow, reply, outer, embedded, shape, .. } = self;
        let (mapped, mtu) = (self.mapped, self.mtu);
        let copied = Difference::new().add_sum(self.copied);
        let parts = Parts { flow, reply, mapped, mtu, outer, embedded, shape, copied };
        (&mut self.message, parts, &mut self.length)
    }

    /// The error that was made.
    #[must_use]
    pub fn error(&self) -> &[u8] {
        self.message.get(..self.length as usize).unwrap_or(&[])
    }
}

impl Default for ErrorWorkspace {
    fn default() -> Self {
        Self::new()
    }
}

/// Longest ICMP error that is translated: more than the longest that is sent (RFC 4443 §2.4 c), so that
/// there is room for those that are sent all the same.
const LONGEST: u32 = 1_536;

/// Whether a message of `length` bytes can hold an error: its header, an embedded IP header of
/// `embedded` bytes and 8 bytes.
#[inline(always)]
const fn holds_error(length: u32, embedded: usize) -> bool {
    (ICMP_LENGTH + embedded + 8) as u32 <= length && length <= LONGEST
}

/// Whether a session that isn't established is still there.
#[inline(always)]
fn is_live<T: Tables>(last_seen: u32, number: u8, now: u32, tables: &T) -> bool {
    tables
        .config()
        .is_some_and(|config| !establish::has_expired(last_seen, number, &config.timeouts, now))
}

/// What the links on both sides carry. An uplink that isn't in the table sets no limit, and neither
/// does a link whose MTU isn't known.
#[inline(always)]
fn limits<T: Tables>(uplink: u32, link: u32, tables: &T) -> Limits {
    let uplink = tables.uplink(uplink).map_or(u32::MAX, |uplink| uplink.mtu);
    let link = tables.link(link).map_or(0, |link| link.mtu);
    Limits { uplink, link: if link == 0 { u32::MAX - HEADER_GROWTH } else { link } }
}

/// The tables of sessions that aren't established, in the order in which they are asked.
const CLASSES: [Class; 2] = [Class::HalfOpen, Class::Closing];
