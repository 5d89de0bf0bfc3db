//! What can be said about a configuration without starting a daemon with it.

use super::pool;
use super::start::{StartError, capacities};
use crate::config::Config;
use crate::datapath::check_room;
use crate::topology::Topology;

/// Checks what depends on this host: the memory, and whether the alias pool is free. Returns what is worth
/// a second thought, one line each.
///
/// # Errors
/// [`StartError`], as the daemon would say it.
pub async fn check(config: &Config) -> Result<Vec<String>, StartError> {
    check_room(&config.pin_dir, &capacities(config))?;
    let topology = Topology::connect()?;
    let (_, in_the_way) =
        pool::choose(&topology, &config.alias.pools(), None).await?.map_err(StartError::Pool)?;
    Ok(config.warnings().into_iter().chain(in_the_way).collect())
}
