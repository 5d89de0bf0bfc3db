//! Which alias pool can be used without hiding a route that exists.

use ipnet::Ipv4Net;

/// The outcome of [`choose_pool`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolChoice {
    /// Nothing of the host overlaps the preferred pool.
    Preferred,
    /// The preferred pool is in use (by these), the fallback isn't.
    Fallback {
        /// What overlaps the preferred pool, in words.
        conflicts: Vec<String>,
    },
    /// Both are in use.
    Neither {
        /// What overlaps the preferred pool, in words.
        preferred: Vec<String>,
        /// What overlaps the fallback, in words.
        fallback: Vec<String>,
    },
}

/// Chooses between a preferred pool and its fallback, given what overlaps each of them
/// ([`super::Topology::route_conflicts`]). A pool is never laid silently over a route.
pub fn choose_pool(preferred: Vec<String>, fallback: Vec<String>) -> PoolChoice {
    match (preferred.is_empty(), fallback.is_empty()) {
        (true, _) => PoolChoice::Preferred,
        (false, true) => PoolChoice::Fallback { conflicts: preferred },
        (false, false) => PoolChoice::Neither { preferred, fallback },
    }
}

/// The pool that aliases are taken from by default: benchmark addresses (RFC 2544).
pub const DEFAULT_POOL: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(198, 18, 0, 0), 15);

/// The pool that is used where [`DEFAULT_POOL`] is routed: shared address space (RFC 6598).
pub const FALLBACK_POOL: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(100, 64, 0, 0), 10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s16_a_pool_in_use_is_never_chosen() {
        let used = || vec!["route 198.18.0.0/15 dev tun0".to_owned()];
        assert_eq!(choose_pool(vec![], vec![]), PoolChoice::Preferred);
        assert_eq!(choose_pool(vec![], used()), PoolChoice::Preferred);
        assert_eq!(choose_pool(used(), vec![]), PoolChoice::Fallback { conflicts: used() });
        assert_eq!(
            choose_pool(used(), used()),
            PoolChoice::Neither { preferred: used(), fallback: used() }
        );
    }
}
