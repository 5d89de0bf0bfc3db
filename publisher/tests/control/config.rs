//! `publisherctl config`: with a daemon and without one.

use publisher::config::Config;

use crate::support::{Daemon, Done, ctl};

fn check(text: &str) -> (Done, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let mut command = ctl();
    command.args(["-H", "unix:///nonexistent/p.sock", "config", "check", path]);
    (Done::of(command), path.to_owned())
}

#[test]
fn a_file_without_mistakes_is_ok_and_warnings_are_messages() {
    let small = "[alias]\npool = \"198.51.100.0/28\"\n[sessions]\ncapacity = 16\nhalf_open = 16\nclosing = 16\n";
    let (done, path) = check(small);
    done.says(&format!("{path}: ok\n"));
    let (done, path) = check(&format!("{small}[timers]\nudp = 60\n"));
    assert_eq!((done.exit, done.out), (0, format!("{path}: ok\n")));
    assert_eq!(done.err, "warning: timers.udp is 60 s: RFC 4787 REQ-5 asks for at least 120 s\n");
}

#[test]
fn a_mistake_is_named_with_its_place() {
    for (text, said) in [
        ("[timers]\nudp = 0\n", ":2:7: 0 is out of range: 1 to 2592000 seconds"),
        ("[timers]\ntcp_established = 9\ntcp_transitory = 10\n", "must be shorter than"),
        ("uplink = 1", ":1:1: unknown field `uplink`"),
    ] {
        let (done, path) = check(text);
        assert_eq!((done.exit, done.out.as_str()), (1, ""), "{text}");
        assert!(done.err.starts_with(&format!("error: {path}")), "{}", done.err);
        assert!(done.err.contains(said), "{}", done.err);
        assert!(done.err.contains("\nhint: "), "{}", done.err);
    }
}

#[test]
fn a_file_that_is_not_there() {
    let mut command = ctl();
    command.args(["config", "check", "/nonexistent/p.toml"]);
    let done = Done::of(command);
    assert_eq!(done.exit, 1);
    assert!(done.err.starts_with("error: can't read /nonexistent/p.toml: "), "{}", done.err);
}

#[test]
fn the_daemons_configuration_is_shown_as_it_would_be_written() {
    let daemon = Daemon::start();
    let shown = daemon.ctl(&["config", "show"]);
    assert_eq!((shown.exit, shown.err.as_str()), (0, ""));
    assert_eq!(toml::from_str::<Config>(&shown.out).unwrap(), Config::default());
    let json = daemon.ctl(&["config", "show", "-o", "json"]).json();
    assert_eq!((&json["schema"], &json["config"]["drain"]), (&1.into(), &300.into()));
    let mut command = ctl();
    command.args(["-H", "unix:///nonexistent/p.sock", "config", "show"]);
    assert_eq!(Done::of(command).exit, 3);
}
