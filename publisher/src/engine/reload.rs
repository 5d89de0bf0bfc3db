//! The configuration: what of it the datapath knows, and a change of it at run time.

use super::Engine;
use crate::config::{AliasPrefix, Config};
use ipnet::Ipv4Net;
use publisher_common::layout::{self, Timeouts, config_flags};
use std::sync::{Arc, PoisonError};
use tracing::{error, info, warn};

/// The timers as the datapath knows them.
pub(super) fn timeouts(config: &Config) -> Timeouts {
    let timers = &config.timers;
    Timeouts {
        udp: timers.udp.as_secs() as u32,
        tcp_established: timers.tcp_established.as_secs() as u32,
        tcp_transitory: timers.tcp_transitory.as_secs() as u32,
        fragments: timers.fragments.as_secs() as u32,
    }
}

/// Lays what may change at run time over the datapath's configuration.
pub(super) fn lay_over(config: &Config, pool: Ipv4Net, before: layout::Config) -> layout::Config {
    let others = before.flags & !config_flags::ALIAS_PER_PREFIX;
    let flags = match config.alias.prefix {
        AliasPrefix::Client => others,
        AliasPrefix::Network => others | config_flags::ALIAS_PER_PREFIX,
    };
    layout::Config {
        timeouts: timeouts(config),
        flags,
        sessions_per_source: config.sessions.per_source(),
        aliases_per_source: config.alias.share_of(pool),
        ..before
    }
}

/// A configuration with what follows from it and from the pool. It can be read again.
fn effective(config: &Config, pool: Ipv4Net) -> Config {
    let mut config = config.clone();
    // Where a /64 is one client, there is no share that could be set.
    if config.alias.prefix == AliasPrefix::Client {
        config.alias.share = Some(config.alias.share_of(pool));
    }
    config.alias.pool = Some(pool.into());
    config.sessions.per_source = Some(config.sessions.per_source());
    config
}

/// What a new configuration says and only another start can do; the running one keeps its own.
fn keep_fixed(running: &Config, new: &mut Config) -> Vec<String> {
    let mut kept = Vec::new();
    macro_rules! fixed {
        ($($name:literal: $($field:ident).+;)+) => {
            $(if new.$($field).+ != running.$($field).+ {
                new.$($field).+ = running.$($field).+.clone();
                kept.push(format!("{} takes a restart: it stays as it was", $name));
            })+
        };
    }
    fixed! {
        "socket": socket;
        "state_dir": state_dir;
        "pin_dir": pin_dir;
        "alias.pool": alias.pool;
        "gateway.ports": gateway.ports;
        "sessions.capacity": sessions.capacity;
        "sessions.half_open": sessions.half_open;
        "sessions.closing": sessions.closing;
        "log": log;
    }
    kept
}

impl Engine {
    /// The configuration as it is now.
    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same with what was chosen where it leaves a choice.
    pub(super) fn effective_config(&self) -> Config {
        effective(&self.config(), self.pool)
    }

    /// Goes on with another configuration as far as that is possible without a restart. One that can't
    /// be is refused, and what was before goes on.
    pub async fn reload(&self, mut new: Config) {
        if let Some(pool) = new.alias.pool {
            match self.topology.route_conflicts(pool.net()).await {
                Ok(conflicts) if conflicts.is_empty() => {}
                Ok(conflicts) => {
                    let conflicts = conflicts.join(", ");
                    error!(
                        "the configuration stays as it was: alias pool {pool} is in use: {conflicts}"
                    );
                    return;
                }
                Err(failure) => {
                    error!(
                        "the configuration stays as it was: can't read the host's routes: {failure}"
                    );
                    return;
                }
            }
        }
        let kept = keep_fixed(&self.config(), &mut new);
        {
            let mut inner = self.inner.lock().await;
            let Some(datapath) = &mut inner.datapath else { return };
            let written = datapath.tables().config().and_then(|before| {
                datapath.tables().set_config(&lay_over(&new, self.pool, before))
            });
            if let Err(failure) = written {
                error!("the configuration stays as it was: {failure}");
                return;
            }
            self.proxy.set_udp_idle(new.proxy.udp_idle);
            self.proxy.set_per_source(new.sessions.per_source());
            *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        }
        for line in kept.iter().chain(&self.config().warnings()) {
            warn!("{line}");
        }
        info!("the configuration has been read anew");
        self.reconcile().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::time::Duration;

    fn parse(text: &str) -> Config {
        Config::parse(text, Path::new("p.toml")).expect("a configuration")
    }

    fn empty() -> layout::Config {
        layout::Config {
            pool: [0; 4],
            pool_mask: [0; 4],
            key: [0; 16],
            gateway_first: 0,
            gateway_last: 0,
            timeouts: Timeouts::default(),
            ready: 0,
            slow_lane: 0,
            flags: 0,
            sessions_per_source: 0,
            aliases_per_source: 0,
            reserved: [0; 16],
        }
    }

    #[test]
    fn what_takes_a_restart_stays_and_is_named() {
        let running = Config::default();
        let mut new = parse(
            "socket = \"/s\"\ndrain = 7\n[alias]\npool = \"10.9.0.0/16\"\nprefix = 64\n\
             [sessions]\ncapacity = 1024\nper_source = 5",
        );
        let kept = keep_fixed(&running, &mut new);
        let names: Vec<_> = kept.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(names, ["socket", "alias.pool", "sessions.capacity"]);
        assert_eq!((new.socket.clone(), new.alias.pool), (running.socket, None));
        assert_eq!((new.drain, new.sessions.per_source()), (Duration::from_secs(7), 5));
        assert_eq!(new.alias.prefix, AliasPrefix::Network);
    }

    #[test]
    fn what_is_in_effect_is_a_configuration() {
        for text in ["", "[alias]\nprefix = 64", "[alias]\nprefix = 64\nshare = 3"] {
            let shown = effective(&parse(text), "198.18.0.0/15".parse().unwrap());
            assert_eq!(parse(&toml::to_string(&shown).unwrap()), shown, "{text}");
        }
        let shown = effective(&Config::default(), "10.0.0.0/28".parse().unwrap());
        assert_eq!((shown.alias.share, shown.sessions.per_source), (Some(1), Some(65_536)));
    }

    #[test]
    fn limits_of_a_source_follow_the_pool_and_the_capacity() {
        let pool = "198.18.0.0/15".parse().unwrap();
        let laid = lay_over(&Config::default(), pool, empty());
        assert_eq!((laid.sessions_per_source, laid.aliases_per_source), (65_536, 8_192));
        assert_eq!((laid.flags, laid.timeouts), (0, Timeouts::default()));
        let config = parse("[alias]\nprefix = 64\nshare = 9\n[sessions]\nper_source = 0");
        let before = layout::Config { flags: config_flags::BANS, ..empty() };
        let laid = lay_over(&config, pool, before);
        assert_eq!((laid.sessions_per_source, laid.aliases_per_source), (0, 0));
        assert_eq!(laid.flags, config_flags::BANS | config_flags::ALIAS_PER_PREFIX);
        let config = parse("[alias]\nshare = 9");
        assert_eq!(
            lay_over(&config, "10.0.0.0/28".parse().unwrap(), empty()).aliases_per_source,
            9
        );
        let small = lay_over(&Config::default(), "10.0.0.0/28".parse().unwrap(), empty());
        assert_eq!(small.aliases_per_source, 1);
    }
}
