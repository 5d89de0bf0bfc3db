//! Bans, from the command line to the daemon and back.

use serde_json::json;

use crate::api::{request, unharmed};
use crate::support::{Daemon, Done, ctl};

#[test]
fn deny_says_what_it_did() {
    let daemon = Daemon::start();
    daemon
        .ctl(&["deny", "add", "2001:db8::/64"])
        .says("denied 2001:db8::/64 for good; 2 sessions ended\n");
    daemon.ctl(&["deny", "add", "2001:db8::/64", "--for", "10m"]).says(
        "denied 2001:db8::/64 until 2026-11-21T21:30:25Z, in place of the ban before; 2 sessions ended\n",
    );
    daemon
        .ctl(&["deny", "add", "198.18.0.4:40000", "--for", "600"])
        .says("denied 2001:db8::5 (alias 198.18.0.4:40000) until 2026-11-21T21:30:25Z; 2 sessions ended\n");
    daemon.ctl(&["deny", "ls", "-q"]).says("2001:db8::/64\n2001:db8::5\n");
    let table = daemon.ctl(&["deny", "ls"]).out;
    assert!(
        table.starts_with("CLIENTS        ALIAS             UNTIL                 LEFT"),
        "{table}"
    );
    let json = daemon.ctl(&["deny", "ls", "-o", "json"]).json();
    assert_eq!(
        json["bans"],
        json!([
            {
                "clients": "2001:db8::/64", "alias": null, "alias_port": null,
                "created": "2026-11-21T21:20:25Z", "until": "2026-11-21T21:30:25Z"
            },
            {
                "clients": "2001:db8::5", "alias": "198.18.0.4", "alias_port": 40_000,
                "created": "2026-11-21T21:20:25Z", "until": "2026-11-21T21:30:25Z"
            }
        ])
    );
    let json = daemon.ctl(&["deny", "add", "::1", "-o", "json"]).json();
    assert_eq!((&json["ended"], &json["again"]), (&json!(2), &json!(false)));
    let log = daemon.log();
    for said in ["deny 2001:db8::/64 for good uid=", "deny 198.18.0.4:40000 for 600 s uid="] {
        assert!(log.contains(said), "{said}: {log}");
    }
}

#[test]
fn deny_rm_takes_the_name_that_a_ban_was_made_by() {
    let daemon = Daemon::start();
    assert_eq!(daemon.ctl(&["deny", "add", "198.18.0.4"]).exit, 0);
    daemon
        .ctl(&["deny", "rm", "198.18.0.4"])
        .says("no longer denied: 2001:db8::5 (alias 198.18.0.4)\n");
    assert_eq!(daemon.ctl(&["deny", "add", "198.18.0.4"]).exit, 0);
    let json = daemon.ctl(&["deny", "rm", "2001:db8::5", "-o", "json"]).json();
    assert_eq!(json["bans"][0]["alias"], "198.18.0.4");
    daemon.ctl(&["deny", "rm", "2001:db8::5"]).fails(
        4,
        "2001:db8::5 is not denied",
        "publisherctl deny ls shows who is",
    );
    assert_eq!(daemon.ctl(&["deny", "add", "2001:db8::/64"]).exit, 0);
    daemon.ctl(&["deny", "rm", "2001:db8::5"]).fails(
        4,
        "2001:db8::5 is not denied",
        "did you mean publisherctl deny rm 2001:db8::/64?",
    );
    assert!(daemon.log().contains("deny rm 2001:db8::5 failed: 2001:db8::5 is not denied"));
}

#[test]
fn what_makes_no_sense_is_refused_without_asking_the_daemon() {
    const TIME: &str = "write 90s, 10m, 2h or 7d, up to 3650d; leave it out to deny for good";
    for (args, error, hint) in [
        (&["add", "::1", "--for", "0s"][..], "'0s' is not a time to deny for", TIME),
        (&["add", "::1", "--for", "soon"], "'soon' is not a time to deny for", TIME),
        (
            &["add", "2001:db8::1/64"],
            "2001:db8::1/64 has host bits",
            "did you mean 2001:db8::/64? A single client is 2001:db8::1",
        ),
        (
            &["rm", "10.0.0.0/8"],
            "'10.0.0.0/8' is IPv4: clients are IPv6",
            "only IPv6 clients come this way: IPv4 clients never meet this rule",
        ),
    ] {
        let mut command = ctl();
        command.args(["-H", "unix:///nonexistent/p.sock", "deny"]).args(args);
        Done::of(command).fails(2, error, hint);
    }
}

#[test]
fn bans_that_make_no_sense() {
    let daemon = Daemon::start();
    let ban =
        |body: &str| request(&daemon, "POST /v1/bans", "content-type: application/json\r\n", body);
    for (body, said) in [
        (r#"{}"#, "missing field `who`"),
        (r#"{"who":"web"}"#, "'web' is not an IPv6 prefix"),
        (r#"{"who":"::1/64"}"#, "has host bits"),
        (r#"{"who":["::1"]}"#, "invalid type: sequence"),
        (r#"{"who":"::1","seconds":0}"#, "is not a time to deny for"),
        (r#"{"who":"::1","seconds":18446744073709551615}"#, "is not a time to deny for"),
        (r#"{"who":"::1","seconds":-1}"#, "invalid value"),
        (r#"{"who":"::1","for":"1h"}"#, "unknown field `for`"),
    ] {
        let (status, json) = ban(body);
        let message = json["error"]["message"].as_str().unwrap();
        assert!(status == 422 && message.contains(said), "{body}: {status} {message}");
    }
    for line in ["DELETE /v1/bans", "DELETE /v1/bans?who=", "DELETE /v1/bans?who=::1&all=true"] {
        assert_eq!(request(&daemon, line, "", "").0, 400, "{line}");
    }
    assert_eq!(request(&daemon, "DELETE /v1/bans?who=::1", "", "").0, 404);
    assert_eq!(ban(r#"{"who":"::1","seconds":5}"#).0, 201);
    assert_eq!(ban(r#"{"who":"::1"}"#).0, 200);
    assert_eq!(request(&daemon, "DELETE /v1/bans?who=::1", "", "").0, 200);
    unharmed(&daemon);
}
