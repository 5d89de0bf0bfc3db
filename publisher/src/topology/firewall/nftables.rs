//! nf_tables (and so `iptables-nft`, ufw and firewalld above it), read by netlink.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use crate::topology::{
    netlink::{Client, Request, attribute, attributes, string},
    types::{FirewallBackend, FirewallFinding},
    uapi::nft,
};

/// Size of `struct nfgenmsg`.
const NFGENMSG: usize = 4;

/// Family, table and name.
type ChainId = (u8, String, String);

/// What a chain or a rule can do to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Effect {
    /// The packet is gone; how, in words.
    Drops(&'static str),
    /// Another chain of the same table goes on.
    Jumps(String),
    /// The verdict is looked up in a map of the same table.
    Looks(String),
}

/// The chains reached from an INPUT hook for IPv6 that can drop.
pub fn findings(netfilter: &Client) -> io::Result<Vec<FirewallFinding>> {
    let (inputs, mut effects) = match (chains(netfilter), rules(netfilter)) {
        (Ok(inputs), Ok(effects)) => (inputs, effects),
        // No nf_tables in this kernel.
        (Err(error), _) | (_, Err(error))
            if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) =>
        {
            return Ok(Vec::new());
        }
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut waiting: Vec<ChainId> = Vec::new();
    for (id, drops) in inputs {
        if drops {
            found.push(finding(&id, "policy drop"));
        }
        waiting.push(id);
    }
    while let Some(id) = waiting.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let mut why = None;
        let mut effects = effects.remove(&id).unwrap_or_default();
        while let Some(effect) = effects.pop() {
            match effect {
                Effect::Drops(how) => why = Some(how),
                Effect::Jumps(chain) => waiting.push((id.0, id.1.clone(), chain)),
                Effect::Looks(map) => effects.extend(verdicts(netfilter, &id, &map)?),
            }
        }
        found.extend(why.map(|why| finding(&id, why)));
    }
    Ok(found)
}

fn finding((family, table, chain): &ChainId, why: &str) -> FirewallFinding {
    let family = if *family == nft::FAMILY_INET { "inet" } else { "ip6" };
    FirewallFinding {
        backend: FirewallBackend::Nftables,
        table: format!("{family} {table}"),
        chain: chain.clone(),
        why: why.to_owned(),
    }
}

/// INPUT chains, and whether their policy is to drop.
fn chains(netfilter: &Client) -> io::Result<Vec<(ChainId, bool)>> {
    let bodies = netfilter.dump(&request(nft::MSG_GETCHAIN, 0))?;
    Ok(bodies.iter().filter_map(|body| input_chain(body)).collect())
}

fn input_chain(body: &[u8]) -> Option<(ChainId, bool)> {
    let (family, chain) = split(body)?;
    let hook = attribute(attribute(chain, nft::CHAIN_HOOK)?, nft::HOOK_HOOKNUM)?;
    if big_endian(hook)? != nft::HOOK_LOCAL_IN {
        return None;
    }
    let text = |kind| attribute(chain, kind).map(string);
    let drops = attribute(chain, nft::CHAIN_POLICY).and_then(big_endian) == Some(0);
    Some(((family, text(nft::CHAIN_TABLE)?, text(nft::CHAIN_NAME)?), drops))
}

/// What the rules of each chain can do.
fn rules(netfilter: &Client) -> io::Result<BTreeMap<ChainId, Vec<Effect>>> {
    let mut effects: BTreeMap<ChainId, Vec<Effect>> = BTreeMap::new();
    for body in netfilter.dump(&request(nft::MSG_GETRULE, 0))? {
        if let Some((chain, rule)) = rule(&body) {
            effects.entry(chain).or_default().extend(rule);
        }
    }
    Ok(effects)
}

fn rule(body: &[u8]) -> Option<(ChainId, Vec<Effect>)> {
    let (family, rule) = split(body)?;
    let text = |kind| attribute(rule, kind).map(string);
    let id = (family, text(nft::RULE_TABLE)?, text(nft::RULE_CHAIN)?);
    let expressions = attribute(rule, nft::RULE_EXPRESSIONS).unwrap_or_default();
    Some((id, attributes(expressions).filter_map(|(_, value)| effect(value)).collect()))
}

fn effect(expression: &[u8]) -> Option<Effect> {
    let name = attribute(expression, nft::EXPR_NAME).map(string)?;
    if name == "reject" {
        return Some(Effect::Drops("rule with reject"));
    }
    let data = attribute(expression, nft::EXPR_DATA)?;
    match name.as_str() {
        "immediate" => verdict(attribute(data, nft::IMMEDIATE_DATA)?),
        // A target of iptables that nf_tables has no expression of its own for.
        "target" => match attribute(data, nft::TARGET_NAME).map(string)?.as_str() {
            "REJECT" => Some(Effect::Drops("rule with reject")),
            "DROP" => Some(Effect::Drops("rule with drop")),
            _ => None,
        },
        "lookup" => {
            let register = attribute(data, nft::LOOKUP_DREG).and_then(big_endian)?;
            let map = attribute(data, nft::LOOKUP_SET).map(string)?;
            (register == nft::REG_VERDICT).then_some(Effect::Looks(map))
        }
        _ => None,
    }
}

fn verdict(data: &[u8]) -> Option<Effect> {
    let verdict = attribute(data, nft::DATA_VERDICT)?;
    let code = attribute(verdict, nft::VERDICT_CODE).and_then(big_endian)? as i32;
    match code {
        nft::NFT_JUMP | nft::NFT_GOTO => {
            attribute(verdict, nft::VERDICT_CHAIN).map(|chain| Effect::Jumps(string(chain)))
        }
        // The upper bits may hold an error number for the sender.
        code if code >= 0 && code & 0xff == nft::NF_DROP => Some(Effect::Drops("rule with drop")),
        _ => None,
    }
}

/// The verdicts in a map of the chain's table.
fn verdicts(netfilter: &Client, chain: &ChainId, map: &str) -> io::Result<Vec<Effect>> {
    let (family, table, _) = chain;
    let text = |value: &str| [value.as_bytes(), &[0]].concat();
    let request = request(nft::MSG_GETSETELEM, *family)
        .attr(nft::SETELEM_LIST_TABLE, &text(table))
        .attr(nft::SETELEM_LIST_SET, &text(map));
    let bodies = match netfilter.dump(&request) {
        Ok(bodies) => bodies,
        // The map went away with its rule.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut effects = Vec::new();
    for (_, list) in bodies.iter().filter_map(|body| split(body)) {
        let elements = attribute(list, nft::SETELEM_LIST_ELEMENTS).unwrap_or_default();
        effects.extend(
            attributes(elements)
                .filter_map(|(_, element)| verdict(attribute(element, nft::SETELEM_DATA)?)),
        );
    }
    Ok(effects)
}

fn request(kind: u16, family: u8) -> Request {
    Request::new(kind, libc::NLM_F_DUMP, &[family, 0, 0, 0])
}

/// Family and attributes of a message about IPv6.
fn split(body: &[u8]) -> Option<(u8, &[u8])> {
    let family = *body.first()?;
    let about_ipv6 = matches!(family, nft::FAMILY_INET | nft::FAMILY_IPV6);
    if about_ipv6 { Some((family, body.get(NFGENMSG..)?)) } else { None }
}

fn big_endian(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|value| u32::from_be_bytes(*value))
}
