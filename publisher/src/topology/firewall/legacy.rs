//! The older ip6_tables. Its rules are read with its own tool, and only when the kernel says that
//! this namespace has some: the tool itself would load the kernel modules.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    process::Command,
};

use super::unknown;
use crate::topology::types::{FirewallBackend, FirewallFinding};

/// Names of the ip6_tables tables of the calling thread's network namespace, one a line.
const NAMES: &str = "/proc/thread-self/net/ip6_tables_names";
const TOOLS: [&str; 4] = [
    "ip6tables-legacy-save",
    "/usr/sbin/ip6tables-legacy-save",
    "ip6tables-save",
    "/usr/sbin/ip6tables-save",
];

pub fn findings() -> Vec<FirewallFinding> {
    let names = match std::fs::read_to_string(NAMES) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => return vec![unknown(format!("{NAMES}: {error}"))],
    };
    let tables: Vec<_> = ["filter", "mangle", "security"]
        .into_iter()
        .filter(|table| names.lines().any(|name| name == *table))
        .collect();
    if tables.is_empty() {
        return Vec::new();
    }
    match save() {
        Some(rules) => parse(&rules),
        None => vec![unknown(format!(
            "ip6_tables has rules ({}), and there is no ip6tables-legacy-save to read them",
            tables.join(", ")
        ))],
    }
}

/// The output of the first tool that is there and reads the older tables.
fn save() -> Option<String> {
    TOOLS.iter().find_map(|tool| {
        let output = Command::new(tool).output().ok()?;
        let rules = String::from_utf8_lossy(&output.stdout).into_owned();
        // On many systems `ip6tables-save` is that of nftables.
        let legacy = output.status.success() && !rules.contains("ip6tables-nft-save");
        legacy.then_some(rules)
    })
}

/// Finds the chains reached from INPUT that can drop, in the format of `ip6tables-save`.
fn parse(rules: &str) -> Vec<FirewallFinding> {
    let mut found = Vec::new();
    let mut table = String::new();
    let mut chains: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in rules.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.to_owned();
            chains.clear();
        } else if line.starts_with(":INPUT DROP") {
            found.push(finding(&table, "INPUT", "policy drop"));
        } else if line == "COMMIT" {
            found.extend(dropping(&table, &chains));
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let mut words = rule.split_whitespace();
            let chain = words.next().unwrap_or_default();
            let target = words.skip_while(|word| !matches!(*word, "-j" | "-g")).nth(1);
            chains.entry(chain).or_default().extend(target);
        }
    }
    found
}

fn dropping(table: &str, chains: &BTreeMap<&str, Vec<&str>>) -> Vec<FirewallFinding> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut waiting = vec!["INPUT"];
    while let Some(chain) = waiting.pop() {
        if !seen.insert(chain) {
            continue;
        }
        let targets = chains.get(chain).map(Vec::as_slice).unwrap_or_default();
        if targets.contains(&"DROP") {
            found.push(finding(table, chain, "rule with drop"));
        } else if targets.contains(&"REJECT") {
            found.push(finding(table, chain, "rule with reject"));
        }
        waiting.extend(targets);
    }
    found
}

fn finding(table: &str, chain: &str, why: &str) -> FirewallFinding {
    FirewallFinding {
        backend: FirewallBackend::Ip6tables,
        table: table.to_owned(),
        chain: chain.to_owned(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ip6tables_save_prints() {
        for (rules, expected) in [
            ("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n", vec![]),
            ("*filter\n:INPUT DROP [3:144]\nCOMMIT\n", vec![("filter", "INPUT", "policy drop")]),
            (
                "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 99 -j DROP\nCOMMIT\n",
                vec![("filter", "INPUT", "rule with drop")],
            ),
            (
                "*filter\n:INPUT ACCEPT [0:0]\n:guard - [0:0]\n:loop - [0:0]\n-A INPUT -j guard\n\
                 -A guard -g loop\n-A loop -j guard\n\
                 -A loop -p tcp -j REJECT --reject-with tcp-reset\nCOMMIT\n",
                vec![("filter", "loop", "rule with reject")],
            ),
            // Only what is reached from INPUT counts, and only in its own table.
            (
                "*mangle\n:INPUT ACCEPT [0:0]\n-A INPUT -j guard\nCOMMIT\n*filter\n\
                 :INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n-A FORWARD -j DROP\n-A guard -j DROP\n\
                 COMMIT\n",
                vec![],
            ),
            ("", vec![]),
        ] {
            let expected: Vec<_> = expected
                .into_iter()
                .map(|(table, chain, why)| finding(table, chain, why))
                .collect();
            assert_eq!(parse(rules), expected, "{rules}");
        }
    }
}
