//! Whether a client may open a session: the same rules and limits as on the kernel path
//! (`decide::access` of publisher-common), and the same reasons.

use crate::model::{ClientPrefix, Publication};
use publisher_common::layout::Window;
use publisher_common::reason::Reason;
use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Sources whose rate is kept; what comes from more of them in one second is refused, where there is a
/// limit at all.
const SOURCES: usize = 65_536;

/// The reasons to refuse somebody.
const REASONS: [Reason; 5] =
    [Reason::Denied, Reason::SessionLimit, Reason::SourceLimit, Reason::Rate, Reason::SourceRate];

/// What counts against a publication's limits.
#[derive(Default)]
pub(super) struct Use {
    sessions: AtomicU32,
    opened: Mutex<Opened>,
}

/// Sessions that were opened in this second.
#[derive(Default)]
struct Opened {
    all: Window,
    by_source: HashMap<Source, u32>,
}

/// Whom a limit counts as one: a /64, or an IPv4 client.
type Source = u128;

fn source(client: Ipv6Addr) -> Source {
    let bits = u128::from(client);
    if client.to_ipv4_mapped().is_some() { bits } else { bits >> 64 << 64 }
}

/// What holds for all publications, and what was refused.
#[derive(Default)]
pub(super) struct Guard {
    bans: RwLock<Vec<ClientPrefix>>,
    per_source: AtomicU32,
    sources: Arc<Mutex<HashMap<Source, u32>>>,
    refused: [AtomicU64; REASONS.len()],
}

/// A session that counts until this is dropped.
pub(super) struct Counted {
    port: Arc<super::held::Port>,
    source: Source,
    sources: Arc<Mutex<HashMap<Source, u32>>>,
}

impl Guard {
    pub fn set_bans(&self, bans: Vec<ClientPrefix>) {
        *self.bans.write().unwrap_or_else(PoisonError::into_inner) = bans;
    }

    pub fn is_banned(&self, client: Ipv6Addr) -> bool {
        let bans = self.bans.read().unwrap_or_else(PoisonError::into_inner);
        bans.iter().any(|ban| ban.contains(client))
    }

    pub fn set_per_source(&self, limit: u32) {
        self.per_source.store(limit, Ordering::Relaxed);
    }

    pub fn refused(&self) -> Vec<(Reason, u64)> {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        REASONS.into_iter().zip(self.refused.iter().map(count)).collect()
    }

    /// Lets a client in, or counts why not. `now` in seconds of the monotonic clock.
    pub fn admit(
        &self,
        port: &Arc<super::held::Port>,
        publication: &Publication,
        client: Ipv6Addr,
        now: u32,
    ) -> Option<Counted> {
        let source = source(client);
        match self.refusal(&port.used, publication, client, source, now) {
            Ok(()) => {
                port.used.sessions.fetch_add(1, Ordering::Relaxed);
                let sources = Arc::clone(&self.sources);
                Some(Counted { port: Arc::clone(port), source, sources })
            }
            Err(reason) => {
                if let Some(index) = REASONS.iter().position(|it| *it == reason) {
                    self.refused[index].fetch_add(1, Ordering::Relaxed);
                }
                None
            }
        }
    }

    fn refusal(
        &self,
        used: &Use,
        publication: &Publication,
        client: Ipv6Addr,
        source: Source,
        now: u32,
    ) -> Result<(), Reason> {
        if self.is_banned(client) {
            return Err(Reason::Denied);
        }
        let (access, limits) = (publication.spec.access(), publication.spec.limits());
        let rule = access.rules().filter(|(prefix, _)| prefix.contains(client));
        if rule.max_by_key(|(prefix, _)| prefix.bits()).is_some_and(|(_, lets_in)| !lets_in) {
            return Err(Reason::Denied);
        }
        let sessions = used.sessions.load(Ordering::Relaxed);
        if limits.max_sessions.is_some_and(|most| sessions >= most.get()) {
            return Err(Reason::SessionLimit);
        }
        if limits.rate.is_some() || limits.source_rate.is_some() {
            let mut opened = used.opened.lock().unwrap_or_else(PoisonError::into_inner);
            if opened.all.second != now {
                opened.by_source.clear();
            }
            let of_source = opened.by_source.get(&source).copied().unwrap_or(0);
            let full = opened.by_source.len() >= SOURCES && of_source == 0;
            if limits.source_rate.is_some_and(|most| full || of_source >= most.get()) {
                return Err(Reason::SourceRate);
            }
            if !opened.all.take(now, limits.rate.map_or(u32::MAX, Into::into)) {
                return Err(Reason::Rate);
            }
            if limits.source_rate.is_some() {
                opened.by_source.insert(source, of_source + 1);
            }
        }
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sources.entry(source).or_default();
        let most = self.per_source.load(Ordering::Relaxed);
        if most != 0 && *count >= most {
            return Err(Reason::SourceLimit);
        }
        *count += 1;
        Ok(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.port.used.sessions.fetch_sub(1, Ordering::Relaxed);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Access, Limits, PublicationSpec, SourceMode, timestamp};
    use std::num::NonZeroU32;

    fn publication(allow: &[&str], deny: &[&str], limits: Limits) -> Publication {
        let prefixes = |list: &[&str]| -> Vec<ClientPrefix> {
            list.iter().map(|text| text.parse().unwrap()).collect()
        };
        let (published, target) = ("80".parse().unwrap(), "172.17.0.2:80".parse().unwrap());
        let spec = PublicationSpec::new(published, target, SourceMode::Auto).unwrap();
        let access = Access::new(prefixes(allow), prefixes(deny)).unwrap();
        let spec = spec.guarded(access, limits);
        Publication { id: 1, generation: 1, spec, created: timestamp::now() }
    }

    /// The outcomes of clients that come one after the other, in these seconds.
    fn outcomes(guard: &Guard, publication: &Publication, clients: &[(&str, u32)]) -> Vec<bool> {
        let port = Arc::new(super::super::held::Port::new(publication));
        let mut kept = Vec::new();
        let admit = |(client, now): &(&str, u32)| {
            let counted = guard.admit(&port, publication, client.parse().unwrap(), *now);
            let admitted = counted.is_some();
            kept.extend(counted);
            admitted
        };
        clients.iter().map(admit).collect()
    }

    #[test]
    fn the_longest_prefix_decides_and_a_ban_wins() {
        let guard = Guard::default();
        let rules = publication(&["2001:db8::/32"], &["2001:db8:bad::/48"], Limits::default());
        let clients =
            [("2001:db8::1", 1), ("2001:db8:bad::1", 1), ("fd00::1", 1), ("::ffff:10.0.0.1", 1)];
        assert_eq!(outcomes(&guard, &rules, &clients), [true, false, false, false]);
        guard.set_bans(vec!["2001:db8::1".parse().unwrap()]);
        assert_eq!(outcomes(&guard, &rules, &clients[..1]), [false]);
        // IPv4 clients have a prefix too.
        let rules = publication(&[], &["::ffff:0:0/96"], Limits::default());
        assert_eq!(outcomes(&guard, &rules, &clients[2..]), [true, false]);
        assert_eq!(guard.refused()[0], (Reason::Denied, 5));
    }

    #[test]
    fn limits_count_sessions_and_those_of_a_second() {
        let limit = |n| NonZeroU32::new(n);
        let (one, two, other) = ("2001:db8::1", "2001:db8::2", "2001:db8:1::1");
        let guard = Guard::default();
        let most = publication(&[], &[], Limits { max_sessions: limit(2), ..Limits::default() });
        assert_eq!(outcomes(&guard, &most, &[(one, 1), (two, 1), (other, 9)]), [true, true, false]);
        let rate = publication(&[], &[], Limits { rate: limit(1), ..Limits::default() });
        assert_eq!(
            outcomes(&guard, &rate, &[(one, 1), (other, 1), (other, 2)]),
            [true, false, true]
        );
        // Of one /64 each, and of one IPv4 client each.
        let rate = publication(&[], &[], Limits { source_rate: limit(1), ..Limits::default() });
        let clients =
            [(one, 1), (two, 1), (other, 1), ("::ffff:10.0.0.1", 1), ("::ffff:10.0.0.2", 1)];
        assert_eq!(outcomes(&guard, &rate, &clients), [true, false, true, true, true]);
        // What has ended counts no more.
        guard.set_per_source(1);
        let open = publication(&[], &[], Limits::default());
        assert_eq!(outcomes(&guard, &open, &[(one, 1), (two, 1), (other, 1)]), [true, false, true]);
        assert_eq!(outcomes(&guard, &open, &[(two, 1)]), [true]);
        let counts: Vec<u64> = guard.refused().into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, [0, 1, 1, 1, 1]);
    }
}
