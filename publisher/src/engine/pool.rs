//! The network that aliases come from.

use crate::topology::Topology;
use ipnet::Ipv4Net;
use std::io;

/// Takes the first of `pools` that no route and no address of the host overlaps. `kept` is the pool
/// of the sessions that are there, which nothing but ours can be in the way of.
///
/// Says what was in the way of those before it, or, as an error, of all of them.
pub(super) async fn choose(
    topology: &Topology,
    pools: &[Ipv4Net],
    kept: Option<Ipv4Net>,
) -> io::Result<Result<(Ipv4Net, Vec<String>), Vec<String>>> {
    let mut in_the_way = Vec::new();
    if let Some(kept) = kept.filter(|kept| pools.contains(kept))
        && topology.route_conflicts(kept).await?.is_empty()
    {
        return Ok(Ok((kept, in_the_way)));
    }
    for pool in pools {
        let conflicts = topology.route_conflicts(*pool).await?;
        if conflicts.is_empty() {
            return Ok(Ok((*pool, in_the_way)));
        }
        in_the_way.push(format!("alias pool {pool} is in use: {}", conflicts.join(", ")));
    }
    Ok(Err(in_the_way))
}
