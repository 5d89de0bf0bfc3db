//! `events`: a stream that goes on for as long as both sides live.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use publisher::api::types::{CloseReason, EventKind, EventSession, EventView, SessionPath};
use publisher::model::Protocol;

use crate::support::{Daemon, ctl, failure};

fn event(event: EventKind, reason: Option<CloseReason>) -> EventView {
    EventView {
        time: UNIX_EPOCH + Duration::from_secs(1_795_296_025),
        event,
        session: Some(EventSession {
            protocol: Protocol::Tcp,
            client: "2001:db8::5".parse().unwrap(),
            client_port: 40_000,
            scope: None,
            host: "2001:db8::1".parse().unwrap(),
            host_port: 8080,
            alias: "198.18.0.4".parse().unwrap(),
            alias_port: 40_001,
            target: "172.17.0.2".parse().unwrap(),
            target_port: 80,
            publication: 1,
            path: SessionPath::Kernel,
            uplink: "eth0".into(),
            packets_in: 5,
            bytes_in: 400,
            packets_out: 4,
            bytes_out: 2_000,
            duration_seconds: 12,
        }),
        reason,
        count: None,
    }
}

/// A `publisherctl events` that listens already.
fn follow(daemon: &Daemon, args: &[&str]) -> Child {
    let before = daemon.control.lock().events.0.receiver_count();
    let mut command = ctl();
    command.arg("-H").arg(daemon.host()).arg("events").args(args);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while daemon.control.lock().events.0.receiver_count() == before {
        assert!(start.elapsed() < Duration::from_secs(10), "it never listens");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn send(daemon: &Daemon, event: EventView) {
    daemon.control.lock().events.0.send(Arc::new(event)).unwrap();
}

#[test]
fn a_line_of_json_for_each_event_as_it_happens() {
    let mut daemon = Daemon::start();
    let mut child = follow(&daemon, &[]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next =
        || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    send(&daemon, event(EventKind::Opened, None));
    let opened = next();
    assert_eq!((&opened["schema"], &opened["event"]), (&1.into(), &"opened".into()));
    assert_eq!(opened["time"], "2026-11-21T21:20:25Z");
    assert_eq!((&opened["client"], &opened["alias_port"]), (&"2001:db8::5".into(), &40_001.into()));
    assert!(opened.get("reason").is_none() && opened.get("count").is_none(), "{opened}");
    send(&daemon, event(EventKind::Closed, Some(CloseReason::TargetGone)));
    let closed = next();
    assert_eq!((&closed["event"], &closed["reason"]), (&"closed".into(), &"target_gone".into()));
    assert_eq!((&closed["bytes_out"], &closed["duration_seconds"]), (&2_000.into(), &12.into()));

    // The end of the daemon isn't held up by who listens.
    let start = Instant::now();
    daemon.stop();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("it has ended\nhint: "), "{said}");
}

#[test]
fn lines_for_people_and_a_reader_that_is_too_slow() {
    let mut daemon = Daemon::start();
    let mut child = follow(&daemon, &["-o", "table"]);
    {
        // The server has one thread, which can't take them in between.
        let inner = daemon.control.lock();
        for _ in 0..7 {
            inner
                .events
                .0
                .send(Arc::new(event(EventKind::Closed, Some(CloseReason::Fin))))
                .unwrap();
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    daemon.stop();
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.wait().unwrap();
    let closed = "2026-11-21T21:20:25Z closed tcp [2001:db8::5]:40000 [2001:db8::1]:8080 as \
                  198.18.0.4:40001 -> 172.17.0.2:80 fin after 12s, 400 bytes in, 2000 out";
    let told = out.lines().filter(|line| *line == closed).count() as u64;
    let lost: u64 = out
        .lines()
        .filter_map(|line| {
            line.split_once(" lost ")?.1.strip_suffix(" events")?.parse::<u64>().ok()
        })
        .sum();
    assert_eq!(told + lost, 7, "{out}");
}

#[test]
fn a_daemon_that_refuses_says_why() {
    let daemon = Daemon::start();
    daemon.control.lock().broken = Some(failure(publisher::api::ErrorCode::Failed));
    daemon.ctl(&["events"]).fails(1, "it broke", "mend it");
}
