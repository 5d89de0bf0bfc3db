//! Access rules and limits, from the command line to the daemon and back.

use std::num::NonZeroU32;

use publisher::model::Limits;
use serde_json::json;

use crate::support::{Daemon, Done, ctl};

const ADD: [&str; 3] = ["add", "8080", "172.17.0.2:80"];

fn add(daemon: &Daemon, guards: &[&str]) -> Done {
    daemon.ctl(&[&ADD, guards].concat())
}

#[test]
fn rules_and_limits_reach_the_daemon_and_are_shown() {
    let daemon = Daemon::start();
    add(
        &daemon,
        &[
            "--allow=2001:db8::/32",
            "--allow",
            "fd00::/8",
            "--deny",
            "2001:db8::5",
            "--max-sessions=100",
            "--rate=10",
            "--source-rate=2",
        ],
    )
    .says("8080/tcp -> 172.17.0.2:80\n");
    let limits = daemon.control.lock().state.publications()[0].spec.limits();
    let number = NonZeroU32::new;
    assert_eq!(
        limits,
        Limits { max_sessions: number(100), rate: number(10), source_rate: number(2) }
    );
    let json = daemon.ctl(&["ls", "-o", "json"]).json();
    assert_eq!(
        json["publications"][0]["access"],
        json!({"allow": ["2001:db8::/32", "fd00::/8"], "deny": ["2001:db8::5"]})
    );
    assert_eq!(
        json["publications"][0]["limits"],
        json!({"max_sessions": 100, "rate": 10, "source_rate": 2})
    );
    let wide = daemon.ctl(&["ls", "-o", "wide"]).out;
    for text in [
        "--allow 2001:db8::/32 --allow fd00::/8 --deny 2001:db8::5",
        "--max-sessions 100 --rate 10 --source-rate 2",
    ] {
        assert!(wide.contains(text), "{wide}");
    }
    assert!(daemon.log().contains("--deny 2001:db8::5 --max-sessions 100"), "{}", daemon.log());
}

#[test]
fn adding_again_changes_rules_in_place() {
    let daemon = Daemon::start();
    add(&daemon, &[]).says("8080/tcp -> 172.17.0.2:80\n");
    add(&daemon, &["--deny", "2001:db8::5"]).says("8080/tcp -> 172.17.0.2:80 (updated)\n");
    add(&daemon, &["--deny", "2001:db8::5"]).says("8080/tcp -> 172.17.0.2:80\n");
    let json = add(&daemon, &["--rate", "5", "-o", "json"]).json();
    assert_eq!((&json["already"], &json["updated"]), (&json!(false), &json!(true)));
    assert_eq!(json["publication"]["id"], 1);
    assert_eq!(json["publication"]["access"], json!({"allow": [], "deny": []}));
    // With another target it is another publication's port.
    let other = ["add", "8080", "172.17.0.3:80", "--rate", "5"];
    assert_eq!(daemon.ctl(&other).exit, 5);
}

#[test]
fn rules_that_make_no_sense_are_refused_without_asking_the_daemon() {
    for (guards, error, hint) in [
        (
            &["--allow", "10.0.0.0/8"][..],
            "'10.0.0.0/8' is IPv4: clients are IPv6",
            "only IPv6 clients come this way: IPv4 clients never meet this rule",
        ),
        (
            &["--deny", "2001:db8::5/64"],
            "2001:db8::5/64 has host bits",
            "did you mean 2001:db8::/64? A single client is 2001:db8::5",
        ),
        (
            &["--allow", "example.org"],
            "'example.org' is not an IPv6 prefix",
            "write 2001:db8::/64, or 2001:db8::5 for a single client",
        ),
        (
            &["--allow", "::1", "--deny", "::1/128"],
            "::1 is both allowed and denied",
            "leave --allow ::1 or --deny ::1 out",
        ),
    ] {
        let mut command = ctl();
        command.args(["-H", "unix:///nonexistent/p.sock"]).args(ADD).args(guards);
        Done::of(command).fails(2, error, hint);
    }
    for limit in ["--rate", "--source-rate", "--max-sessions"] {
        for number in ["0", "-1", "4294967296", "ten"] {
            let mut command = ctl();
            command.args(["-H", "unix:///nonexistent/p.sock"]).args(ADD);
            command.arg(format!("{limit}={number}"));
            assert_eq!(Done::of(command).exit, 2, "{limit} {number}");
        }
    }
}
