//! The host's firewall, as each of its tools sets it up.

use super::harness::Namespace;

fn findings(host: &Namespace) -> Vec<String> {
    let findings = host.with_topology(async |topology| topology.firewall().await);
    findings.iter().map(ToString::to_string).collect()
}

#[test]
fn no_firewall_and_one_that_lets_everything_in() {
    let host = Namespace::new();
    assert!(findings(&host).is_empty());
    host.feed(
        &["nft", "-f", "-"],
        "table inet f {
            chain input { type filter hook input priority 0; policy accept; tcp dport 22 accept; }
            chain forward { type filter hook forward priority 0; policy drop; reject; }
            chain unused { drop; }
        }
        table ip v4 { chain input { type filter hook input priority 0; policy drop; }; }
        table ip6 o { chain output { type filter hook output priority 0; policy drop; }; }",
    );
    assert!(findings(&host).is_empty(), "{:?}", findings(&host));
}

#[test]
fn nftables_rules_that_drop() {
    for (table, expected) in [
        (
            "table ip6 f { chain entry { type filter hook input priority 0; policy drop; }; }",
            "nftables table ip6 f chain entry: policy drop",
        ),
        (
            "table inet f { chain entry { type filter hook input priority 0; tcp dport 9 drop; }; }",
            "nftables table inet f chain entry: rule with drop",
        ),
        (
            "table inet f { chain entry { type filter hook input priority 0; tcp dport 9 reject; }; }",
            "nftables table inet f chain entry: rule with reject",
        ),
        (
            "table inet f {
                chain b { udp dport 1 accept; drop; }
                chain a { goto b; }
                chain entry { type filter hook input priority 0; iifname \"eth0\" jump a; }
            }",
            "nftables table inet f chain b: rule with drop",
        ),
        (
            "table inet f { chain entry { type filter hook input priority 0;
                ct state vmap { established : accept, invalid : drop }; }; }",
            "nftables table inet f chain entry: rule with drop",
        ),
        (
            "table inet f {
                chain guard { reject; }
                map ports { type inet_service : verdict; elements = { 80 : jump guard }; }
                chain entry { type filter hook input priority 0; tcp dport vmap @ports; }
            }",
            "nftables table inet f chain guard: rule with reject",
        ),
    ] {
        let host = Namespace::new();
        host.feed(&["nft", "-f", "-"], table);
        assert_eq!(findings(&host), [expected], "{table}");
    }
}

#[test]
fn iptables_of_both_kinds() {
    let host = Namespace::new();
    let rules = "*filter\n-A INPUT -p tcp --dport 9 -j REJECT\nCOMMIT\n";
    host.feed(&["ip6tables-nft-restore"], rules);
    assert_eq!(findings(&host), ["nftables table ip6 filter chain INPUT: rule with reject"]);

    let host = Namespace::new();
    host.feed(&["ip6tables-legacy-restore"], rules);
    assert_eq!(findings(&host), ["ip6tables table filter chain INPUT: rule with reject"]);
    host.feed(&["ip6tables-legacy-restore"], "*filter\n:INPUT DROP\nCOMMIT\n");
    assert_eq!(findings(&host), ["ip6tables table filter chain INPUT: policy drop"]);
    host.feed(&["ip6tables-legacy-restore"], "*filter\n:INPUT ACCEPT\nCOMMIT\n");
    assert!(findings(&host).is_empty());
}
