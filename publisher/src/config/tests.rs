//! What the file may say, and what a mistake in it is answered with.

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("p.toml")).map_err(|error| error.to_string())
}

#[test]
fn an_empty_file_says_the_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.socket, Path::new("/run/publisher/publisher.sock"));
    assert_eq!(config.state_dir, Path::new("/var/lib/publisher"));
    assert_eq!(config.pin_dir, Path::new("/sys/fs/bpf/publisher"));
    let pools = config.alias.pools().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(pools, ["198.18.0.0/15", "100.64.0.0/10"]);
    assert_eq!(config.gateway.ports.to_string(), "61000-64999");
    assert_eq!(config.host_firewall, HostFirewall::Honour);
    assert_eq!(config.warnings(), Vec::<String>::new());
}

#[test]
fn every_key() {
    let config = parse(
        r#"
            socket = "/tmp/p.sock"
            state_dir = "/tmp/state"
            pin_dir = "/sys/fs/bpf/other"
            uplinks = ["eth0", "wg0"]
            drain = 0
            host_firewall = "bypass"

            [alias]
            pool = "10.200.0.0/16"
            prefix = 64
            share = 100

            [gateway]
            ports = "50000-50099"

            [mtu]
            ipv6 = 1280
            ipv4 = 1400

            [timers]
            udp = 120
            tcp_established = 7441
            tcp_transitory = 241
            fragments = 7

            [sessions]
            capacity = 1024
            half_open = 2048
            closing = 512
            per_source = 0

            [proxy]
            udp_idle = 30

            [log]
            file = "/var/log/publisher/sessions.ndjson"
            max_size = 3
            history = 1000
        "#,
    )
    .unwrap();
    assert_eq!(
        config,
        Config {
            socket: "/tmp/p.sock".into(),
            state_dir: "/tmp/state".into(),
            pin_dir: "/sys/fs/bpf/other".into(),
            uplinks: vec!["eth0".parse().unwrap(), "wg0".parse().unwrap()],
            alias: Alias {
                pool: Some("10.200.0.0/16".parse().unwrap()),
                prefix: AliasPrefix::Network,
                share: Some(100),
            },
            gateway: Gateway { ports: "50000-50099".parse().unwrap() },
            mtu: Mtu { ipv6: Some(1280), ipv4: Some(1400) },
            timers: Timers {
                udp: Duration::from_secs(120),
                tcp_established: Duration::from_secs(7441),
                tcp_transitory: Duration::from_secs(241),
                fragments: Duration::from_secs(7),
            },
            sessions: Sessions {
                capacity: 1024,
                half_open: 2048,
                closing: 512,
                per_source: Some(0),
            },
            proxy: ProxyConfig { udp_idle: Duration::from_secs(30) },
            log: Log {
                file: Some("/var/log/publisher/sessions.ndjson".into()),
                max_size: 3,
                history: 1000,
            },
            drain: Duration::ZERO,
            host_firewall: HostFirewall::Bypass,
        }
    );
    assert_eq!(config.alias.pools(), ["10.200.0.0/16".parse::<Ipv4Net>().unwrap()]);
    assert_eq!(config.warnings(), Vec::<String>::new());
}

#[test]
fn a_mistake_is_shown_where_it_is() {
    for (text, said) in [
        ("sokcet = \"/x\"", "p.toml:1:1: unknown field `sokcet`, expected one of `socket`, "),
        (
            "drain = 1\n[alias]\nprefx = 64",
            "p.toml:3:1: unknown field `prefx`, expected one of `pool`",
        ),
        ("[alias]\nprefix = 56", "p.toml:2:10: an alias can't stand for a /56"),
        ("[alias]\nshare = 0", "p.toml:2:9: 0 is out of range: 1 to 16777216 aliases"),
        (
            "drain = 1\n[timers]\ntcp_established = 300\ntcp_transitory = 300",
            "p.toml:2:1: tcp_transitory (300 s) must be shorter than tcp_established (300 s)",
        ),
        ("[timers]\ntcp_established = 240", "tcp_transitory (240 s) must be shorter"),
        ("[sessions]\nhalf_open = 0", "p.toml:2:13: 0 is out of range: 16 to 16777216 sessions"),
        ("[sessions]\nclosing = 16777217", "16777217 is out of range: 16 to 16777216 sessions"),
        ("[sessions]\nper_source = -1", "p.toml:2:14: -1 is out of range: 0 to 16777216 sessions"),
        ("socket = \"x.sock\"", "p.toml:1:10: 'x.sock' must be an absolute path"),
        ("drain = -1", "p.toml:1:9: -1 is out of range: 0 to 2592000 seconds"),
        ("drain = \"5m\"", "p.toml:1:9: invalid type: string \"5m\", expected i64"),
        ("[timers]\nudp = 0", "p.toml:2:7: 0 is out of range: 1 to 2592000 seconds"),
        ("[timers]\n\n  udp = 99999999999", "p.toml:3:9: 99999999999 is out of range"),
        ("[mtu]\nipv6 = 1279", "p.toml:2:8: 1279 is out of range: 1280 to 65535 bytes"),
        ("[mtu]\nipv4 = 67", "p.toml:2:8: 67 is out of range: 68 to 65535 bytes"),
        ("[sessions]\ncapacity = 15", "p.toml:2:12: 15 is out of range: 16 to 16777216 sessions"),
        ("[log]\nfile = \"x.log\"", "p.toml:2:8: 'x.log' must be an absolute path"),
        ("[log]\nmax_size = 0", "p.toml:2:12: 0 is out of range: 1 to 1048576 MiB"),
        ("[gateway]\nports = \"2-1\"", "p.toml:2:9: port range 2-1 runs backwards"),
        ("[gateway]\nports = \"0-1\"", "p.toml:2:9: port 0 can't be published"),
        ("uplinks = [\"eth0\",\n \"a/b\"]", "p.toml:1:11: 'a/b' is not an interface name"),
        ("host_firewall = \"ignore\"", "p.toml:1:17: unknown variant `ignore`, expected `honour`"),
        ("socket = ", "p.toml:1:10: "),
        ("drain = 1\ndrain = 2", "p.toml:2:1: duplicate key"),
        ("[alias]\npool = \"2001:db8::/32\"", "p.toml:2:8: alias pool '2001:db8::/32' is not an"),
        ("[alias]\npool = \"198.18.0.1/15\"", "did you mean 198.18.0.0/15?"),
        ("[alias]\npool = \"10.0.0.0/30\"", "must be a /8 to a /29"),
        ("[alias]\npool = \"0.0.0.0/0\"", "must be a /8 to a /29"),
        ("[alias]\npool = \"0.0.0.0/8\"", "lies in 0.0.0.0/8"),
        ("[alias]\npool = \"127.1.0.0/16\"", "lies in the loopback network"),
        ("[alias]\npool = \"224.0.0.0/8\"", "lies in multicast and reserved addresses"),
        ("# é\nünder = 1", "p.toml:2:"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(said), "{text:?}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn short_timers_are_taken_with_a_warning() {
    let config =
        parse("[timers]\nudp = 119\ntcp_established = 7439\ntcp_transitory = 239\nfragments = 1")
            .unwrap();
    let warnings = config.warnings();
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert_eq!(warnings[0], "timers.udp is 119 s: RFC 4787 REQ-5 asks for at least 120 s");
}

#[test]
fn a_file_that_is_not_there_or_is_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    let error = Config::read(&path).unwrap_err();
    assert!(error.to_string().starts_with("can't read "), "{error}");
    assert!(error.hint().unwrap().contains("--config"));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(Config::read(&path).is_err());
    std::fs::write(&path, "drain = 7").unwrap();
    assert_eq!(Config::read(&path).unwrap().drain, Duration::from_secs(7));
}

#[test]
fn what_is_shown_can_be_read_again() {
    for text in [
        "",
        "uplinks = [\"eth0\"]\ndrain = 0\n[alias]\npool = \"10.0.0.0/16\"\nprefix = 64\nshare = 5\n\
         [mtu]\nipv6 = 1400\n[sessions]\nper_source = 7\n[gateway]\nports = \"50000-50010\"",
    ] {
        let config = parse(text).unwrap();
        let shown = toml::to_string(&config).unwrap();
        assert_eq!(parse(&shown).unwrap(), config, "{shown}");
        // The API carries it as JSON.
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config, "{json}");
    }
}
