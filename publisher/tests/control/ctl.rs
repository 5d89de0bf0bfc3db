//! `publisherctl` as its users see it: what it prints, and where.

use publisher::api::types::{SessionState, WhoisView};
use publisher::model::Protocol;
use serde_json::json;

use crate::support::{Daemon, Done, ctl, session};

#[test]
fn add_prints_what_it_published() {
    let daemon = Daemon::start();
    for (args, said) in [
        (&["add", "8080", "172.17.0.2:80"][..], "8080/tcp -> 172.17.0.2:80\n"),
        (&["add", "8080", "172.17.0.2:80"], "8080/tcp -> 172.17.0.2:80\n"),
        (&["add", "8080/udp", "172.17.0.2:80"], "8080/udp -> 172.17.0.2:80\n"),
        (
            &["add", "[2001:db8::1]:8000-8010/tcp", "172.17.0.2:80-90"],
            "[2001:db8::1]:8000-8010/tcp -> 172.17.0.2:80-90\n",
        ),
        (
            &["add", "[fe80::1%eth0]:53/udp", "172.17.0.3:53", "--source", "gateway"],
            "[fe80::1%eth0]:53/udp -> 172.17.0.3:53\n",
        ),
        (&["add", "-q", "9000", "172.17.0.2:80"], ""),
    ] {
        daemon.ctl(args).says(said);
    }
    assert_eq!(daemon.control.lock().state.publications().len(), 5);
    let json = daemon.ctl(&["add", "8080", "172.17.0.2:80", "-o", "json"]).json();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["already"], true);
    assert_eq!(json["publication"]["ports"], json!({"first": 8080, "last": 8080}));
}

#[test]
fn add_warns_on_stderr() {
    let daemon = Daemon::start();
    daemon.control.lock().warnings = vec!["the host has no address 2001:db8::1".into()];
    let done = daemon.ctl(&["add", "[2001:db8::1]:80", "172.17.0.2:80"]);
    assert_eq!((done.exit, done.out.as_str()), (0, "[2001:db8::1]:80/tcp -> 172.17.0.2:80\n"));
    assert_eq!(done.err, "warning: the host has no address 2001:db8::1\n");
}

#[test]
fn a_taken_port_names_its_owner() {
    let daemon = Daemon::start();
    daemon.ctl(&["add", "8080", "172.17.0.2:80"]).says("8080/tcp -> 172.17.0.2:80\n");
    daemon.ctl(&["add", "8080", "172.17.0.3:80"]).fails(
        5,
        "port 8080/tcp on [::] is taken by publication 1 (→ 172.17.0.2:80)",
        "publisherctl rm 8080/tcp, or choose another port",
    );
    daemon.ctl(&["add", "8000-8100", "172.17.0.3:8000-8100"]).fails(
        5,
        "ports 8000-8100/tcp on [::] are taken by publication 1 (8080/tcp → 172.17.0.2:80)",
        "publisherctl rm 8080/tcp, or choose another port",
    );
    assert_eq!(daemon.control.lock().state.publications().len(), 1);
}

#[test]
fn rm_ends_exactly_what_is_named() {
    let daemon = Daemon::start();
    for published in ["8080", "8080/udp", "[2001:db8::1]:8080", "9000-9010"] {
        let target = if published == "9000-9010" { "172.17.0.2:80-90" } else { "172.17.0.2:80" };
        assert_eq!(daemon.ctl(&["add", published, target]).exit, 0);
    }
    for (published, shown, hint) in [
        ("8081", "8081/tcp", "publisherctl ls shows what is"),
        ("9000", "9000/tcp", "did you mean publisherctl rm 9000-9010/tcp?"),
        ("[::2]:8080/udp", "[::2]:8080/udp", "did you mean publisherctl rm 8080/udp?"),
        ("9000-9010/udp", "9000-9010/udp", "publisherctl ls shows what is"),
    ] {
        let error = format!("{shown} is not published");
        daemon.ctl(&["rm", published]).fails(4, &error, hint);
    }
    daemon.ctl(&["rm", "8080"]).says("8080/tcp -> 172.17.0.2:80\n");
    daemon.ctl(&["rm", "-q", "9000-9010", "--kill"]).says("");
    daemon
        .ctl(&["rm", "--all"])
        .says("8080/udp -> 172.17.0.2:80\n[2001:db8::1]:8080/tcp -> 172.17.0.2:80\n");
    daemon.ctl(&["rm", "--all", "--kill", "-o", "ndjson"]).says("");
    let kills = daemon.control.lock().kills.clone();
    assert_eq!(kills[kills.len() - 4..], [false, true, false, true]);
}

#[test]
fn ls_in_every_form() {
    let daemon = Daemon::start();
    assert_eq!(daemon.ctl(&["add", "8080", "172.17.0.2:80"]).exit, 0);
    assert_eq!(daemon.ctl(&["add", "[::1]:53/udp", "172.17.0.3:53"]).exit, 0);
    assert_eq!(daemon.ctl(&["add", "443", "172.17.0.2:443"]).exit, 0);
    let table = daemon.ctl(&["ls"]);
    assert_eq!(
        table.out,
        "PUBLISHED     TARGET          SOURCE  PATH  LINK      SESSIONS\n\
         443/tcp       172.17.0.2:443  -       down  -         0\n\
         8080/tcp      172.17.0.2:80   alias   peer  veth1a2b  2\n\
         [::1]:53/udp  172.17.0.3:53   -       down  -         0\n"
    );
    assert_eq!(
        table.err,
        "warning: 443/tcp: path down: no route to the target\n\
         warning: [::1]:53/udp: path down: no route to the target\n"
    );
    daemon.ctl(&["ls", "-q"]).says("443/tcp\n8080/tcp\n[::1]:53/udp\n");
    let bare = daemon.ctl(&["ls", "--no-headers"]);
    assert!(bare.out.starts_with("443/tcp "), "{}", bare.out);
    let wide = daemon.ctl(&["ls", "-o", "wide"]);
    assert_eq!(wide.err, "");
    for text in ["ID", "docker0", "2026-11-21T21:20:25Z", "path down: no route to the target"] {
        assert!(wide.out.contains(text), "{text}: {}", wide.out);
    }
    let json = daemon.ctl(&["ls", "-o", "json"]).json();
    assert_eq!(json["schema"], 1);
    assert_eq!(
        json["publications"][1],
        json!({
            "id": 1, "host": "::", "ports": {"first": 8080, "last": 8080}, "protocol": "tcp",
            "target": "172.17.0.2", "target_ports": {"first": 80, "last": 80},
            "source": {"requested": "auto", "used": "alias", "reason": null},
            "access": {"allow": [], "deny": []}, "limits": {},
            "path_requested": "auto",
            "path": "peer", "path_reason": null, "link": "docker0", "veth": "veth1a2b",
            "sessions": 2, "warnings": [], "created": "2026-11-21T21:20:25Z",
        })
    );
    let lines = daemon.ctl(&["ls", "-o", "ndjson"]);
    let hosts: Vec<_> = lines
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| (line["schema"].clone(), line["host"].clone()))
        .collect();
    assert_eq!(hosts, [(json!(1), json!("::")), (json!(1), json!("::")), (json!(1), json!("::1"))]);
}

#[test]
fn nothing_published_is_an_empty_list() {
    let daemon = Daemon::start();
    daemon.ctl(&["ls"]).says("PUBLISHED  TARGET  SOURCE  PATH  LINK  SESSIONS\n");
    daemon.ctl(&["ls", "--no-headers"]).says("");
    daemon.ctl(&["ls", "-q"]).says("");
    daemon.ctl(&["ls", "-o", "ndjson"]).says("");
    assert_eq!(daemon.ctl(&["ls", "-o", "json"]).json(), json!({"schema": 1, "publications": []}));
}

#[test]
fn sessions_are_filtered_and_sorted() {
    let daemon = Daemon::start();
    daemon.control.lock().sessions = vec![
        session(40_001, Protocol::Udp, SessionState::HalfOpen),
        session(40_002, Protocol::Tcp, SessionState::Established),
        session(40_000, Protocol::Tcp, SessionState::V6Fin),
    ];
    daemon.ctl(&["sessions"]).says(
        "PROTO  CLIENT               HOST                ALIAS             TARGET         STATE        PATH    IDLE\n\
         tcp    [2001:db8::5]:40000  [2001:db8::1]:8080  198.18.0.4:40000  172.17.0.2:80  v6-fin       kernel  2s\n\
         tcp    [2001:db8::5]:40002  [2001:db8::1]:8080  198.18.0.4:40002  172.17.0.2:80  established  kernel  2s\n\
         udp    [2001:db8::5]:40001  [2001:db8::1]:8080  198.18.0.4:40001  172.17.0.2:80  half-open    kernel  2s\n",
    );
    for (filters, names) in [
        (&["proto=udp"][..], "[2001:db8::5]:40001\n"),
        (&["state=established"], "[2001:db8::5]:40002\n"),
        (&["state=v6-fin", "proto=udp"], ""),
        (&["port=8081"], ""),
        (&["client=[2001:db8::6]"], ""),
        (&["alias=198.18.0.5"], ""),
        (&["publication=2"], ""),
        (
            &["port=8080", "client=2001:db8::5", "alias=198.18.0.4", "publication=1", "proto=tcp"],
            "[2001:db8::5]:40000\n[2001:db8::5]:40002\n",
        ),
    ] {
        let args: Vec<_> = ["sessions", "-q"].iter().chain(filters).copied().collect();
        daemon.ctl(&args).says(names);
    }
    let wide = daemon.ctl(&["sessions", "-o", "wide", "proto=udp"]);
    for text in ["5m10s", "eth0", "veth1a2b", "20000"] {
        assert!(wide.out.contains(text), "{text}: {}", wide.out);
    }
    let json = daemon.ctl(&["sessions", "-o", "json", "proto=udp"]).json();
    assert_eq!(json["sessions"][0]["state"], "half-open");
    assert_eq!(json["sessions"][0]["bytes_out"], 20_000);
}

#[test]
fn a_limit_says_how_many_it_left_out() {
    let daemon = Daemon::start();
    daemon.control.lock().sessions =
        (1..=5).map(|port| session(port, Protocol::Tcp, SessionState::Established)).collect();
    let done = daemon.ctl(&["sessions", "limit=2", "-q"]);
    assert_eq!((done.exit, done.out.lines().count()), (0, 2), "{done:?}");
    assert_eq!(done.err, "warning: 3 more sessions are left out: limit=N asks for more\n");
    let json = daemon.ctl(&["sessions", "limit=2", "-o", "json"]);
    let document: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&document["left_out"], &document["schema"]), (&3.into(), &1.into()));
    assert_eq!(daemon.ctl(&["sessions", "-o", "json"]).json()["left_out"], 0);
}

#[test]
fn whois_names_the_client_or_says_that_there_is_none() {
    let daemon = Daemon::start();
    let client = WhoisView {
        alias: "198.18.0.4".parse().unwrap(),
        port: Some(40_000),
        client: "fe80::5".parse().unwrap(),
        prefix_length: None,
        client_port: Some(50_000),
        scope: Some("eth0".into()),
        since: None,
        ended: None,
        sessions: 1,
    };
    daemon.control.lock().clients = vec![client];
    daemon.ctl(&["whois", "198.18.0.4:40000"]).says(
        "ALIAS             CLIENT                SESSIONS  SINCE  ENDED\n\
         198.18.0.4:40000  [fe80::5%eth0]:50000  1         -      -\n",
    );
    daemon.ctl(&["whois", "-q", "198.18.0.4"]).says("[fe80::5%eth0]:50000\n");
    let json = daemon.ctl(&["whois", "198.18.0.4", "-o", "json"]).json();
    assert_eq!(json["clients"][0]["since"], json!(null));
    for alias in ["198.18.0.4:40001", "198.18.0.5"] {
        daemon.ctl(&["whois", alias]).fails(
            4,
            &format!("no client is known behind {alias}"),
            "publisherctl sessions shows the aliases in use",
        );
    }
}

#[test]
fn status_drops_and_uninstall() {
    let daemon = Daemon::start();
    let status = daemon.ctl(&["status"]);
    assert_eq!(
        (status.exit, status.err.as_str()),
        (0, "warning: the host's firewall would drop 8080/tcp\n")
    );
    assert_eq!(
        status.out,
        "publisherd 0.1.0 (pid 4242), up 2h4m, map layout 1\n\
         0 publications, aliases out of 198.18.0.0/15\n\
         \n\
         UPLINK  INDEX  MTU   ATTACHED  ETHERNET\n\
         eth0    2      1500  tcx       yes\n\
         \n\
         LINK     KIND    ATTACHED\n\
         docker0  bridge  clsact\n\
         \n\
         TABLE        USED  CAPACITY  FULL  MIB\n\
         established  1     4         25%   3\n\
         \n\
         FEATURE  AVAILABLE  MEANS\n\
         tcx      yes        programs are attached by links\n\
         \n\
         PROGRAM  VERIFIED  RUNS  NS/RUN\n\
         uplink   12345     3     300\n"
    );
    let json = daemon.ctl(&["status", "-o", "json"]);
    assert_eq!(json.json()["schema"], 1);
    assert_eq!(json.json()["uplinks"][0]["attach"], "tcx");
    daemon.ctl(&["drops"]).says(
        "REASON        COUNT  MEANING\n\
         forged_reply  7      what forged_reply means\n\
         no_session    3      what no_session means\n",
    );
    let all = daemon.ctl(&["drops", "-o", "json"]).json();
    assert_eq!(all["drops"].as_array().unwrap().len(), 3);
    let done = daemon.ctl(&["uninstall"]);
    assert_eq!(done.exit, 0);
    assert!(done.out.ends_with("has removed everything and stops\n"), "{}", done.out);
    assert!(daemon.control.lock().uninstalled);
}

/// As root: as somebody else, who isn't let in. Otherwise by a mode that keeps even its owner out.
#[test]
fn manual_completions_help_and_version() {
    let run = |args: &[&str]| {
        let mut command = ctl();
        command.args(args);
        Done::of(command)
    };
    let page = run(&["man"]);
    assert!(page.out.contains(".TH publisherctl 1"), "{}", page.out);
    assert!(page.out.contains("Exit codes"), "{}", page.out);
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man");
    run(&["man", pages.to_str().unwrap()]).says("");
    for name in [
        "publisherctl.1",
        "publisherctl-add.1",
        "publisherctl-deny-add.1",
        "publisherctl-config-check.1",
        "publisherd.8",
    ] {
        assert!(pages.join(name).exists(), "{name}");
    }
    for (shell, text) in
        [("bash", "complete -F"), ("zsh", "#compdef publisherctl"), ("fish", "complete -c")]
    {
        let script = run(&["completions", shell]);
        assert!(script.exit == 0 && script.out.contains(text), "{shell}");
    }
    run(&["--version"]).says(&format!("publisherctl {}\n", env!("CARGO_PKG_VERSION")));
    let help = run(&["--help"]);
    assert_eq!((help.exit, help.err.as_str()), (0, ""));
    for verb in [
        "add",
        "rm",
        "ls",
        "sessions",
        "whois",
        "deny",
        "status",
        "drops",
        "config",
        "uninstall",
        "completions",
        "man",
    ] {
        assert!(help.out.contains(&format!("\n  {verb} ")), "{verb}: {}", help.out);
    }
}
