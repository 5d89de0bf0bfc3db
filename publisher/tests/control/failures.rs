//! How `publisherctl` fails: each time with an exit code, one line that says what is wrong, and one
//! that says what to do.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use publisher::api::ErrorCode;
use publisher::api::types::SessionState;
use publisher::model::Protocol;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

use crate::support::{Daemon, Done, ctl, failure, session};

#[test]
fn what_makes_no_sense_is_refused_without_asking_the_daemon() {
    const SYNTAX: &str =
        "write [HOST_ADDR:]PORT[-PORT][/PROTO], for instance 8080 or [2001:db8::1]:8080/udp";
    for (published, target, error, hint) in [
        ("0", "172.17.0.2:80", "port 0 can't be published: ports are 1 to 65535", SYNTAX),
        ("65536", "172.17.0.2:80", "port 65536 is out of range: ports are 1 to 65535", SYNTAX),
        (
            "8000-8010",
            "172.17.0.2:80",
            "8000-8010/tcp has 11 ports, but target ports 80 are 1: both ranges must be as long as each other",
            "give the target 11 ports",
        ),
        ("90-80", "172.17.0.2:80-90", "port range 90-80 runs backwards", "did you mean 80-90?"),
        (
            "8080",
            "web:80",
            "target 'web' is not an IPv4 address",
            "give the container's own IPv4 address, for instance 172.17.0.2:80",
        ),
        (
            "8080",
            "[2001:db8::2]:80",
            "target '[2001:db8::2]:80' is IPv6: this publishes IPv4-only containers",
            "give the container's IPv4 address; an IPv6 container is reached by routing",
        ),
        (
            "127.0.0.1:8080",
            "172.17.0.2:80",
            "host address 127.0.0.1 is IPv4: this version publishes on the host's IPv6 addresses",
            "leave the address out to publish on every IPv6 address, or write [ADDRESS]:PORT",
        ),
        (
            "8080/sctp",
            "172.17.0.2:80",
            "protocol sctp is not supported: only tcp and udp are published",
            "write 8080/tcp or 8080/udp",
        ),
    ] {
        let mut command = ctl();
        command.args(["-H", "unix:///nonexistent/p.sock", "add", published, target]);
        Done::of(command).fails(2, error, hint);
    }
}

#[test]
fn mistakes_on_the_command_line_are_two_lines() {
    for (args, error, hint) in [
        (
            &["add", "8080", "172.17.0.2:80", "--zap", "proxy"][..],
            "unexpected argument '--zap' found",
            "",
        ),
        (&["add", "8080"], "the following required arguments were not provided: <TARGET>", ""),
        (&["rm"], "the following required arguments were not provided: <PUBLISHED>", ""),
        (&["rm", "8080", "--all"], "the argument '[PUBLISHED]' cannot be used with '--all'", ""),
        (&[], "no command given", "publisherctl --help lists them"),
        (&["lss"], "unrecognized subcommand 'lss'", "did you mean ls?"),
        (
            &["ls", "-o", "xml"],
            "invalid value 'xml' for '--output <OUTPUT>' [possible values: table, wide, json, ndjson]",
            "",
        ),
        (
            &["ls", "-H", "tcp://[::1]:80"],
            "invalid value 'tcp://[::1]:80' for '--host <unix:///PATH>': write it as unix:///run/publisher/publisher.sock",
            "",
        ),
        (
            &["sessions", "colour=red"],
            "there is no filter 'colour'",
            "filters are proto=udp port=8080 client=2001:db8::5 alias=198.18.0.4 state=established publication=3 limit=1000",
        ),
        (
            &["whois", "web"],
            "'web' is not an IPv4 address",
            "write an alias as 198.18.0.4 or 198.18.0.4:40000",
        ),
    ] {
        let mut command = ctl();
        command.args(args);
        let hint = if hint.is_empty() { "publisherctl --help" } else { hint };
        Done::of(command).fails(2, error, hint);
    }
}

#[test]
fn the_daemons_failures_become_exit_codes() {
    let daemon = Daemon::start();
    for (code, exit) in [
        (ErrorCode::Failed, 1),
        (ErrorCode::Usage, 2),
        (ErrorCode::NotFound, 4),
        (ErrorCode::Conflict, 5),
        (ErrorCode::Permission, 6),
    ] {
        daemon.control.lock().broken = Some(failure(code));
        for args in [
            &["add", "80", "172.17.0.2:80"][..],
            &["rm", "80"],
            &["rm", "--all"],
            &["ls"],
            &["sessions"],
            &["whois", "198.18.0.4"],
            &["status"],
            &["drops"],
            &["uninstall"],
        ] {
            daemon.ctl(args).fails(exit, "it broke", "mend it");
        }
    }
}

#[test]
fn no_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.sock");
    let run = || {
        let mut command = ctl();
        command.arg("-H").arg(format!("unix://{}", path.display())).arg("ls");
        Done::of(command)
    };
    let hint = "systemctl start publisherd, or run publisherd; -H names another socket";
    let no_answer = format!("no publisherd answers on {}", path.display());
    run().fails(3, &format!("{no_answer}: there is no such socket"), hint);
    // Without listen(2): a listening one could live on for a moment in a process that another test
    // is just starting.
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    run().fails(3, &format!("{no_answer}: nobody listens there"), hint);
}

#[test]
fn a_daemon_that_stopped_is_no_daemon_and_leaves_no_socket() {
    let mut daemon = Daemon::start();
    assert_eq!(daemon.ctl(&["ls"]).exit, 0);
    daemon.stop();
    assert!(!daemon.socket.exists());
    assert_eq!(daemon.ctl(&["ls"]).exit, 3);
}

#[test]
fn no_permission() {
    let daemon = Daemon::start();
    let mut command;
    let dir = tempfile::tempdir().unwrap();
    if rustix::process::geteuid().is_root() {
        // Where the build directory is may be closed to others.
        let copy = dir.path().join("publisherctl");
        fs::copy(env!("CARGO_BIN_EXE_publisherctl"), &copy).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        command = std::process::Command::new(copy);
        command.env_clear().uid(65_534).gid(65_534);
    } else {
        command = ctl();
        fs::set_permissions(&daemon.socket, fs::Permissions::from_mode(0o000)).unwrap();
    }
    command.args(["-H", &daemon.host(), "add", "80", "172.17.0.2:80"]);
    Done::of(command).fails(
        6,
        &format!("not allowed to use {}", daemon.socket.display()),
        "use sudo, or become a member of the group publisher",
    );
    assert!(daemon.control.lock().state.publications().is_empty());
}

#[test]
fn the_environment_names_the_socket_and_the_command_line_wins() {
    let daemon = Daemon::start();
    let run = |variable: &str, args: &[&str]| {
        let mut command = ctl();
        command.env("PUBLISHER_HOST", variable).args(args);
        Done::of(command)
    };
    run(&daemon.host(), &["ls", "-q"]).says("");
    run("unix:///nonexistent/p.sock", &["ls", "-q", "-H", &daemon.host()]).says("");
    assert_eq!(run("unix:///nonexistent/p.sock", &["ls"]).exit, 3);
    assert_eq!(run("p.sock", &["ls"]).exit, 2);
}

#[test]
fn an_answer_that_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.sock");
    for (answer, why) in [
        ("SSH-2.0-OpenSSH\r\n", "invalid HTTP version parsed"),
        ("", "connection closed before message completed"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
            "missing field `schema` at line 1 column 2",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n{\"schema\":2,\"publications\":[]}",
            "schema 2, this program knows 1 at line 1 column 11",
        ),
        ("HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops", "expected value at line 1 column 1"),
    ] {
        let listener = UnixListener::bind(&path).unwrap();
        let mut command = ctl();
        command.arg("-H").arg(format!("unix://{}", path.display())).arg("ls");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut connection, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        assert!(connection.read(&mut request).unwrap() > 0);
        connection.write_all(answer.as_bytes()).unwrap();
        drop(connection);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            format!(
                "error: publisherd on {} gave no usable answer: {why}\n\
                 hint: publisherctl and publisherd should have the same version\n",
                path.display()
            )
        );
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_reader_that_stops_reading_is_no_failure() {
    let daemon = Daemon::start();
    daemon.control.lock().sessions =
        (1..5000).map(|port| session(port, Protocol::Tcp, SessionState::Established)).collect();
    let mut command = ctl();
    command.args(["-H", &daemon.host(), "sessions"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn a_result_that_cant_be_written_is_a_failure() {
    let daemon = Daemon::start();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = ctl();
    command.args(["-H", &daemon.host(), "ls"]).stdout(full);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.starts_with("error: can't write the result: "), "{err}");
}
