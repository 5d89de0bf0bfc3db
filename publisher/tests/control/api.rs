//! The API against callers who mean no good, or don't know better.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use publisher::api::{Client, ErrorCode};
use publisher::model::{PublicationSpec, SourceMode};

use crate::support::Daemon;

const GOOD: &str = r#"{"ports":{"first":80,"last":80},"protocol":"tcp","target":"172.17.0.2","target_ports":{"first":80,"last":80}}"#;

/// Sends `request` as it is and reads until the server closes.
fn raw(daemon: &Daemon, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(&daemon.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // The server may answer, and close, before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        // What it closed without reading.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}"),
    }
    String::from_utf8(answer).unwrap()
}

/// A request with a body: the answer's status and its JSON.
pub fn request(daemon: &Daemon, line: &str, kind: &str, body: &str) -> (u16, serde_json::Value) {
    let answer = raw(
        daemon,
        format!(
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{kind}content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{line}: {answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

fn post(daemon: &Daemon, body: &str) -> (u16, serde_json::Value) {
    request(daemon, "POST /v1/publications", "content-type: application/json\r\n", body)
}

fn guarded(access: &str) -> String {
    GOOD.replace("{\"ports", &format!("{{\"access\":{access},\"ports"))
}

fn many_rules(count: usize) -> String {
    let rules: Vec<_> = (0..count).map(|n| format!("\"2001:db8::{n:x}\"")).collect();
    format!("{{\"deny\":[{}]}}", rules.join(","))
}

/// Nothing was published, and the server goes on.
#[track_caller]
pub fn unharmed(daemon: &Daemon) {
    assert!(daemon.control.lock().state.publications().is_empty());
    assert_eq!(daemon.ctl(&["ls", "-q"]).exit, 0);
}

#[test]
fn the_calls_as_documented() {
    let daemon = Daemon::start();
    let (status, added) = post(&daemon, GOOD);
    assert_eq!((status, &added["publication"]["id"]), (201, &1.into()));
    let (status, again) = post(&daemon, GOOD);
    assert_eq!((status, &again["already"]), (200, &true.into()));
    let get = |path: &str| request(&daemon, &format!("GET {path}"), "", "");
    for (path, field) in [
        ("/v1/publications", "publications"),
        ("/v1/sessions?protocol=tcp&port=80", "sessions"),
        ("/v1/whois/198.18.0.4?port=7", "clients"),
        ("/v1/status", "uplinks"),
        ("/v1/drops", "drops"),
    ] {
        let (status, json) = get(path);
        assert_eq!((status, &json["schema"]), (200, &1.into()), "{path}");
        assert!(json[field].is_array(), "{path}: {json}");
    }
    let (status, json) =
        request(&daemon, "DELETE /v1/publications?published=%5B::%5D:80/tcp", "", "");
    assert_eq!((status, json["publications"].as_array().unwrap().len()), (200, 1));
    let (status, json) = request(&daemon, "POST /v1/uninstall", "", "");
    assert_eq!((status, json), (200, serde_json::json!({"schema": 1})));
}

#[test]
fn bodies_that_are_no_publication() {
    let daemon = Daemon::start();
    for (body, status, said) in [
        ("", 400, "EOF while parsing"),
        ("{", 400, "EOF while parsing"),
        ("\0\0\0\0", 400, "expected value"),
        ("[]", 422, "invalid length"),
        ("null", 422, "invalid type: null"),
        (&GOOD.replace("80,", "0,"), 422, "port 0 can't be published"),
        (&GOOD.replace("80,", "65536,"), 422, "port 65536 is out of range"),
        (&GOOD.replace("80,", "-1,"), 422, "invalid value: integer `-1`"),
        (&GOOD.replace("80,", "1e99,"), 422, "invalid type: floating point"),
        (&GOOD.replace("80},\"protocol\"", "90},\"protocol\""), 422, "both ranges"),
        (&GOOD.replace("tcp", "sctp"), 422, "protocol sctp is not supported"),
        (&GOOD.replace("172.17.0.2", "web"), 422, "invalid IPv4 address"),
        (&GOOD.replace("172.17.0.2", "2001:db8::2"), 422, "invalid IPv4 address"),
        (&GOOD.replace("172.17.0.2", "127.0.0.1"), 422, "is loopback"),
        (&GOOD.replace("172.17.0.2", "224.0.0.1"), 422, "is multicast"),
        (&GOOD.replace("172.17.0.2", "0.0.0.0"), 422, "is unspecified"),
        (&GOOD.replace("{\"ports", "{\"host\":\"127.0.0.1\",\"ports"), 422, "is IPv4"),
        (&GOOD.replace("{\"ports", "{\"host\":\"ff02::1\",\"ports"), 422, "is multicast"),
        (&GOOD.replace("{\"ports", "{\"host\":\"fe80::1\",\"ports"), 422, "needs an interface"),
        (&GOOD.replace("{\"ports", "{\"way\":\"proxy\",\"ports"), 422, "unknown field `way`"),
        (&GOOD.replace("{\"ports", "{\"path\":\"magic\",\"ports"), 422, "'magic' is not a path"),
        (&GOOD.replace("{\"ports", "{\"source\":\"me\",\"ports"), 422, "'me' is not a source"),
        (&GOOD.replace("{\"ports", "{\"limits\":{\"rate\":0},\"ports"), 422, "nonzero u32"),
        (&GOOD.replace("{\"ports", "{\"limits\":{\"rat\":1},\"ports"), 422, "unknown field `rat`"),
        (&guarded(r#"{"allow":["10.0.0.0/8"]}"#), 422, "is IPv4: clients are IPv6"),
        (&guarded(r#"{"allow":["2001:db8::1/64"]}"#), 422, "has host bits"),
        (&guarded(r#"{"allow":["::/0"],"deny":["::/0"]}"#), 422, "both allowed and denied"),
        (&guarded(r#"{"permit":["::/0"]}"#), 422, "unknown field `permit`"),
        (&guarded(&many_rules(257)), 422, "257 access rules are too many"),
        (&"[".repeat(10_000), 422, "invalid type: sequence"),
        (&format!("{GOOD}x"), 400, "trailing characters"),
    ] {
        let (got, json) = post(&daemon, body);
        let error = &json["error"];
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(said), "{body:.200}: {message}");
        assert_eq!((got, &json["schema"], &error["code"]), (status, &1.into(), &"usage".into()));
        assert!(!message.contains('\n'));
    }
    unharmed(&daemon);
}

#[test]
fn bodies_that_are_too_large_or_of_no_kind() {
    let daemon = Daemon::start();
    let (status, json) = post(&daemon, &" ".repeat(20_000));
    assert_eq!((status, &json["error"]["code"]), (413, &"usage".into()));
    let (status, json) = request(&daemon, "POST /v1/publications", "", GOOD);
    assert_eq!((status, &json["error"]["code"]), (415, &"usage".into()));
    // What is announced counts as little as what never ends.
    let huge = format!(
        "POST /v1/publications HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: 99999999999999\r\n\r\n{}",
        " ".repeat(20_000)
    );
    assert!(raw(&daemon, huge.as_bytes()).starts_with("HTTP/1.1 413 "));
    let endless = format!(
        "POST /v1/publications HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n{}",
        format!("1000\r\n{}\r\n", " ".repeat(0x1000)).repeat(64)
    );
    assert!(raw(&daemon, endless.as_bytes()).starts_with("HTTP/1.1 413 "));
    unharmed(&daemon);
}

#[test]
fn paths_and_queries_that_make_no_sense() {
    let daemon = Daemon::start();
    for (line, status, code, said) in [
        ("GET /", 404, "failed", "no such call"),
        ("GET /v2/publications", 404, "failed", "no such call"),
        ("GET /v1/secrets", 404, "failed", "no such call"),
        ("PUT /v1/publications", 405, "failed", "no such method"),
        ("GET /v1/uninstall", 405, "failed", "no such method"),
        ("GET /v1/whois/web", 400, "usage", "web"),
        ("GET /v1/whois/198.18.0.4?port=65536", 400, "usage", "number too large"),
        ("GET /v1/sessions?port=-1", 400, "usage", "invalid digit"),
        ("GET /v1/sessions?colour=red", 400, "usage", "unknown field `colour`"),
        ("GET /v1/sessions?state=open", 400, "usage", "unknown variant `open`"),
        ("GET /v1/sessions?protocol=%FF", 400, "usage", ""),
        ("DELETE /v1/publications", 400, "usage", "either published=PUBLISHED or all=true"),
        ("DELETE /v1/publications?all=false", 400, "usage", "either"),
        ("DELETE /v1/publications?all=true&published=80", 400, "usage", "either"),
        ("DELETE /v1/publications?published=0", 400, "usage", "port 0"),
        ("DELETE /v1/publications?published=80", 404, "not_found", "80/tcp is not published"),
    ] {
        let (got, json) = request(&daemon, line, "", "");
        let message = json["error"]["message"].as_str().unwrap();
        assert_eq!((got, &json["error"]["code"]), (status, &code.into()), "{line}: {message}");
        assert!(message.contains(said), "{line}: {message}");
    }
    unharmed(&daemon);
}

#[test]
fn callers_that_speak_no_http() {
    let daemon = Daemon::start();
    for request in [&b""[..], b"\0\0\0\0\0\0", b"GET", b"POST /v1/publications HTTP/1.1\r\n"] {
        let mut stream = UnixStream::connect(&daemon.socket).unwrap();
        let _ = stream.write_all(request);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    // Headers without an end.
    let mut endless = b"GET /v1/status HTTP/1.1\r\n".to_vec();
    endless.extend(b"x: y\r\n".repeat(100_000));
    assert!(raw(&daemon, &endless).starts_with("HTTP/1.1 431 "));
    // One who says nothing at all doesn't keep others waiting.
    let silent = UnixStream::connect(&daemon.socket).unwrap();
    unharmed(&daemon);
    drop(silent);
}

#[test]
fn callers_that_stop_halfway_dont_keep_the_daemon_from_stopping() {
    let mut daemon = Daemon::start();
    let mut callers = Vec::new();
    for begun in [
        "",
        "POST /v1/publications HT",
        "POST /v1/publications HTTP/1.1\r\nhost: x\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{",
    ] {
        let mut stream = UnixStream::connect(&daemon.socket).unwrap();
        stream.write_all(begun.as_bytes()).unwrap();
        callers.push(stream);
    }
    // All of them are accepted by now.
    unharmed(&daemon);
    let before = Instant::now();
    daemon.stop();
    assert!(before.elapsed() < Duration::from_secs(8), "{:?}", before.elapsed());
    assert!(!daemon.socket.exists());
}

/// Sends a good `add` that the daemon takes half a second for, and goes away.
fn add_and_leave(daemon: &Daemon) {
    daemon.control.lock().delay = Duration::from_millis(500);
    let mut stream = UnixStream::connect(&daemon.socket).unwrap();
    let request = format!(
        "POST /v1/publications HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{GOOD}",
        GOOD.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(daemon.control.lock().state.publications().is_empty());
}

#[test]
fn a_change_is_made_whole_though_its_caller_left() {
    let daemon = Daemon::start();
    add_and_leave(&daemon);
    let before = Instant::now();
    while daemon.control.lock().state.publications().is_empty() {
        assert!(before.elapsed() < Duration::from_secs(10), "it was dropped");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_change_is_made_whole_though_the_daemon_is_asked_to_stop() {
    let mut daemon = Daemon::start();
    add_and_leave(&daemon);
    daemon.stop();
    assert_eq!(daemon.control.lock().state.publications().len(), 1);
}

#[test]
fn a_bug_is_an_answer_too() {
    let daemon = Daemon::start();
    daemon.control.lock().panics = true;
    let (status, json) = post(&daemon, GOOD);
    assert_eq!((status, &json["error"]["code"]), (500, &"failed".into()));
    daemon.control.lock().panics = false;
    unharmed(&daemon);
}

#[test]
fn a_hundred_callers_at_once_publish_one_publication() {
    let daemon = Daemon::start();
    let already = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..100).map(|_| scope.spawn(|| post(&daemon, GOOD))).collect();
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .filter(|(_, added)| added["already"] == true)
            .count()
    });
    assert_eq!(already, 99);
    assert_eq!(daemon.control.lock().state.publications().len(), 1);
}

#[test]
fn each_change_is_logged_with_its_caller() {
    let daemon = Daemon::start();
    assert_eq!(post(&daemon, GOOD).0, 201);
    assert_eq!(daemon.ctl(&["rm", "80", "--kill"]).exit, 0);
    assert_eq!(daemon.ctl(&["rm", "80"]).exit, 4);
    assert_eq!(daemon.ctl(&["uninstall"]).exit, 0);
    assert_eq!(daemon.ctl(&["ls"]).exit, 0);
    let log = daemon.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(" uid=")).collect();
    assert_eq!(lines.len(), 4, "{log}");
    let me = format!(
        "uid={} pid={}",
        rustix::process::geteuid().as_raw(),
        rustix::process::getpid().as_raw_nonzero()
    );
    for (line, said) in lines.iter().zip([
        "INFO publisher::api::server: add 80/tcp -> 172.17.0.2:80",
        "INFO publisher::api::server: rm 80/tcp with its sessions",
        "WARN publisher::api::server: rm 80/tcp failed: 80/tcp is not published",
        "INFO publisher::api::server: uninstall",
    ]) {
        assert!(line.contains(said), "{line}");
        assert!(line.contains("pid="), "{line}");
    }
    assert!(lines[0].ends_with(&me), "{}", lines[0]);
}

#[tokio::test]
async fn the_client_without_the_program_around_it() {
    let daemon = Daemon::start();
    let client = Client::new(&daemon.socket);
    let spec = |target: &str| {
        let target = target.parse().unwrap();
        PublicationSpec::new("[fe80::1%eth0]:80".parse().unwrap(), target, SourceMode::Auto)
            .unwrap()
    };
    let added = client.add(&spec("172.17.0.2:80")).await.unwrap();
    assert_eq!(client.list().await.unwrap(), [added.publication]);
    let error = client.add(&spec("172.17.0.3:80")).await.unwrap_err();
    assert!(error.to_string().contains("taken by publication 1"), "{error}");
    assert!(matches!(
        error,
        publisher::api::ClientError::Api(error) if error.code == ErrorCode::Conflict
    ));
    client.uninstall().await.unwrap();
    assert!(daemon.control.lock().uninstalled);
}
