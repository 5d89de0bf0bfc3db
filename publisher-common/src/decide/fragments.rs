//! Fragments: the later ones of a datagram have no ports, and go where the first one went
//! (RFC 6146 §3.4).
//!
//! What is kept of a datagram is little and bounded: which session it belongs to, and which of its
//! parts have come. A fragment that overlaps others spoils its datagram (RFC 5722 §4); one that
//! brings nothing new is dropped. Nothing is reassembled: checksums are corrected by difference, in
//! the first fragment alone.

use super::{Decision, Stop, Workspace};
use crate::layout::{Class, Datagram, FragmentKey, RANGES, Range, ReplyKey, origin};
use crate::reason::Reason;
use crate::tables::Tables;

/// Longest payload of an IPv4 datagram.
const LONGEST: u32 = 65_515;

/// The direction of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From a client.
    In,
    /// From a container.
    Out,
}

/// What a fragment is to those that came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    New,
    /// All of it has come before.
    Again,
    /// Some of it has come before, or it lies behind the datagram's end.
    Overlaps,
    /// It lies apart from all others, of which there are too many already.
    TooFar,
}

/// The first fragment of the session `work.flow`, `work.reply` goes its way: its followers may too.
/// `length` is its payload's, from the transport header on.
#[inline(never)]
pub(super) fn begin<T: Tables>(
    way: Way,
    length: u16,
    work: &mut Workspace,
    tables: &mut T,
) -> Decision<()> {
    let Workspace { fragment_key, datagram, extras, flow, arrival, .. } = work;
    check(extras.fragment.more, 0, length)?;
    if !extras.fragment.more {
        return Ok(());
    }
    let apart = apart(tables);
    if let Some(known) = tables.datagram(way, fragment_key) {
        if known.forward.same(flow) && arrival.now.wrapping_sub(known.last_seen) <= apart {
            return admit(known, 0, length, true);
        }
        tables.remove_datagram(way, fragment_key);
    }
    datagram.last_seen = arrival.now;
    datagram.ranges = [Range::default(); RANGES];
    datagram.ranges[0].end = length;
    datagram.end = 0;
    datagram.spoiled = 0;
    // Where another CPU was faster, it is the same datagram.
    tables.insert_datagram(way, fragment_key, datagram);
    Ok(())
}

/// Whether the first fragment of a later one's datagram is known, and has come not long ago.
#[inline(always)]
pub(super) fn is_known<T: Tables>(way: Way, work: &Workspace, tables: &mut T) -> bool {
    let Workspace { fragment_key, arrival, .. } = work;
    let apart = apart(tables);
    tables
        .datagram(way, fragment_key)
        .is_some_and(|known| arrival.now.wrapping_sub(known.last_seen) <= apart)
}

/// Seconds that the fragments of a datagram may be apart (RFC 6146 §4, FRAGMENT_MIN).
#[inline(always)]
fn apart<T: Tables>(tables: &T) -> u32 {
    tables.config().map_or(0, |config| config.timeouts.fragments)
}

/// A later fragment, of `length` bytes: `work.datagram` says where it goes. `Stop::Pass` where its
/// first fragment isn't known.
#[inline(never)]
pub(super) fn follow<T: Tables>(
    way: Way,
    length: u16,
    work: &mut Workspace,
    tables: &mut T,
) -> Decision<()> {
    let Workspace { fragment_key, datagram, extras, arrival, .. } = work;
    let fragment = extras.fragment;
    let apart = apart(tables);
    let Some(known) = tables.datagram(way, fragment_key) else { return Err(Stop::Pass) };
    if arrival.now.wrapping_sub(known.last_seen) > apart {
        return Err(Stop::Pass);
    }
    check(fragment.more, fragment.offset, length)?;
    *datagram = *known;
    let link = known.link;
    if tables.link(link.index).is_none_or(|found| !found.serves(link.generation)) {
        return Err(Stop::Drop(Reason::TargetGone));
    }
    if !count(way, work, tables) {
        return Err(Stop::Drop(Reason::NoSession));
    }
    let Workspace { fragment_key, arrival, .. } = work;
    let Some(known) = tables.datagram(way, fragment_key) else { return Err(Stop::Pass) };
    known.last_seen = arrival.now;
    admit(known, fragment.offset, length, fragment.more)?;
    if is_whole(known) {
        // Its identification may be used again at once: IPv4 has no more than 65,536 of them.
        tables.remove_datagram(way, fragment_key);
    }
    Ok(())
}

/// Counts a later fragment for its session, which must still be there. It doesn't refresh it: the
/// first fragment has done that.
#[inline(always)]
fn count<T: Tables>(way: Way, work: &Workspace, tables: &mut T) -> bool {
    let Workspace { datagram, arrival, .. } = work;
    let established = match way {
        Way::In => tables.forward(&datagram.forward).map(|entry| &mut entry.usage),
        Way::Out => tables.reverse(&datagram.reply).map(|entry| &mut entry.usage),
    };
    if let Some(usage) = established {
        usage.count(arrival);
        return true;
    }
    for class in [Class::HalfOpen, Class::Closing] {
        if let Some(entry) = tables.transient(class, &datagram.reply)
            && entry.forward.same(&datagram.forward)
        {
            match way {
                Way::In => entry.sent.count(arrival),
                Way::Out => entry.received.count(arrival),
            }
            return true;
        }
    }
    false
}

/// What must hold of every fragment: all but the last have a multiple of 8 bytes (RFC 8200 §4.5,
/// RFC 791 §3.2), none is empty, and none reaches beyond the longest datagram.
#[inline(always)]
pub(super) fn check(more: bool, offset: u16, length: u16) -> Decision<()> {
    let end = u32::from(offset) + u32::from(length);
    if length == 0 || end > LONGEST || more && !length.is_multiple_of(8) {
        return Err(Stop::Drop(Reason::Fragment));
    }
    Ok(())
}

/// Takes a fragment into its datagram.
#[inline(always)]
fn admit(datagram: &mut Datagram, start: u16, length: u16, more: bool) -> Decision<()> {
    if datagram.spoiled != 0 {
        return Err(Stop::Drop(Reason::FragmentOverlap));
    }
    match place(datagram, Range { start, end: start.wrapping_add(length) }, more) {
        Place::New => Ok(()),
        Place::Again => Err(Stop::Drop(Reason::FragmentAgain)),
        Place::TooFar => Err(Stop::Drop(Reason::FragmentTooFar)),
        Place::Overlaps => {
            datagram.spoiled = 1;
            Err(Stop::Drop(Reason::FragmentOverlap))
        }
    }
}

/// Finds a place for `new` among what has come, and puts it there.
#[inline(never)]
fn place(datagram: &mut Datagram, new: Range, more: bool) -> Place {
    let (mut free, mut before, mut after) = (RANGES, RANGES, RANGES);
    for (index, range) in datagram.ranges.iter().enumerate() {
        let Range { start, end } = *range;
        if start == end {
            free = index;
        } else if start <= new.start && new.end <= end {
            return Place::Again;
        } else if start < new.end && new.start < end || !more && new.end < end {
            return Place::Overlaps;
        } else if end == new.start {
            before = index;
        } else if start == new.end {
            after = index;
        }
    }
    let known_end = datagram.end;
    if known_end != 0 && (new.end > known_end || !more && new.end != known_end) {
        return Place::Overlaps;
    }
    let mut joined = new;
    if let Some(range) = datagram.ranges.get_mut(after) {
        joined.end = range.end;
        *range = Range::default();
        free = after;
    }
    if let Some(range) = datagram.ranges.get_mut(before) {
        range.end = joined.end;
    } else if let Some(range) = datagram.ranges.get_mut(free) {
        *range = joined;
    } else {
        return Place::TooFar;
    }
    if !more {
        datagram.end = new.end;
    }
    Place::New
}

/// Whether all of a datagram has come.
#[inline(always)]
fn is_whole(datagram: &Datagram) -> bool {
    let whole = Range { start: 0, end: datagram.end };
    datagram.end != 0 && datagram.ranges.contains(&whole)
}

/// The key of a container's datagram.
#[inline(always)]
pub(super) const fn key_of_ipv4(key: &mut FragmentKey, reply: &ReplyKey, identification: [u8; 4]) {
    key.source = mapped(reply.target);
    key.destination = mapped(reply.alias);
    key.identification = identification;
    key.scope = 0;
    key.protocol = reply.protocol;
    key.origin = origin::NETWORK;
    key.reserved = [0; 2];
}

#[inline(always)]
const fn mapped(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
}

#[cfg(test)]
#[path = "fragments_tests.rs"]
mod tests;
