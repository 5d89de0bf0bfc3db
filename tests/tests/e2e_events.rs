//! The session log, the end of idle sessions, and who was behind an alias.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use publisher_tests::case::{self, Case};
use publisher_tests::daemon::Daemon;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::shell;
use publisher_tests::topology::{HOST, Options, Topology, client_address, host};
use publisher_tests::traffic::{tcp, udp};
use serde_json::{Value, json};

const ANY: [u8; 4] = [0, 0, 0, 0];
/// Timers so short that a session's whole life fits into a test.
const SHORT: &str = "[timers]\nudp = 6\ntcp_established = 6\ntcp_transitory = 4\n";

/// A lab whose daemon has a configuration file.
fn configured<'a>(case: &'a Case, text: &str) -> Result<Lab<'a>> {
    let file = case.directory().join("publisher.toml");
    std::fs::write(&file, text)?;
    let net = Topology::build(Options::default())?;
    let daemon = Daemon::start_with(case, &net.host, &["--config", &file.to_string_lossy()])?;
    Ok(Lab { daemon, net })
}

/// A running `publisherctl events`.
struct Follower {
    child: Child,
    events: Arc<Mutex<Vec<Value>>>,
}

impl Follower {
    fn start(lab: &Lab) -> Result<Self> {
        let mut command = lab.daemon.ctl_command(&["events"])?;
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&events);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                seen.lock().unwrap().push(event);
            }
        });
        // It must listen before anything happens.
        std::thread::sleep(Duration::from_millis(500));
        Ok(Self { child, events })
    }

    /// Waits for an event of this kind about the session from this client port.
    fn wait(&self, kind: &str, port: u16) -> Result<Value> {
        let find = || {
            let events = self.events.lock().unwrap();
            events.iter().find(|it| it["event"] == kind && it["client_port"] == port).cloned()
        };
        shell::wait_until(Duration::from_secs(20), || find().is_some());
        find().with_context(|| format!("no {kind} of {port}: {:?}", self.events.lock().unwrap()))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn port(stream: &std::net::TcpStream) -> Result<u16> {
    Ok(stream.local_addr()?.port())
}

#[test]
fn sessions_are_logged_as_they_open_and_close() {
    case::run(|case| {
        let lab = configured(case, SHORT)?;
        let server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        let _datagrams = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.add("8080/udp", TARGET)?;
        let id = lab.daemon.entries(&["ls"])?[0]["id"].clone();
        let follower = Follower::start(&lab)?;

        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        let client_port = port(&stream)?;
        assert_eq!(tcp::ask(&mut stream, "hello")?, "hello");
        let SocketAddr::V4(alias) = server.last_peer()? else { anyhow::bail!("an alias is IPv4") };
        let opened = follower.wait("opened", client_port)?;
        for (field, value) in [
            ("schema", json!(1)),
            ("protocol", json!("tcp")),
            ("client", json!(client_address(0))),
            ("scope", Value::Null),
            ("host", json!(HOST)),
            ("host_port", json!(8080)),
            ("alias", json!(alias.ip())),
            ("alias_port", json!(alias.port())),
            ("target", json!("172.17.0.2")),
            ("target_port", json!(80)),
            ("publication", id),
            ("uplink", json!("up0")),
        ] {
            assert_eq!(opened[field], value, "{field}: {opened}");
        }
        drop(stream);
        let closed = follower.wait("closed", client_port)?;
        assert_eq!(closed["reason"], "fin", "{closed}");
        let [bytes_in, bytes_out] = ["bytes_in", "bytes_out"].map(|it| closed[it].as_u64());
        ensure!(bytes_in > Some(200) && bytes_out > Some(150), "{closed}");
        ensure!(closed["packets_in"].as_u64() > Some(3), "{closed}");

        let mut reset = tcp::connect(lab.net.client(), host(8080))?;
        let reset_port = port(&reset)?;
        assert_eq!(tcp::ask(&mut reset, "rude")?, "rude");
        tcp::abort(reset)?;
        assert_eq!(follower.wait("closed", reset_port)?["reason"], "rst");

        let socket = udp::client(lab.net.client(), 0)?;
        for _ in 0..2 {
            udp::ask(&socket, host(8080), b"datagram")?;
        }
        let udp_port = socket.local_addr()?.port();
        assert_eq!(follower.wait("opened", udp_port)?["protocol"], "udp");
        let idle = follower.wait("closed", udp_port)?;
        assert_eq!((&idle["reason"], &idle["protocol"]), (&json!("idle"), &json!("udp")), "{idle}");

        let mut killed = tcp::connect(lab.net.client(), host(8080))?;
        assert_eq!(tcp::ask(&mut killed, "before")?, "before");
        lab.daemon.ctl(&["rm", "8080", "--kill"])?.ok()?;
        assert_eq!(follower.wait("closed", port(&killed)?)?["reason"], "killed");
        Ok(())
    });
}

#[test]
fn s8_an_idle_connection_whose_container_lives_is_kept_by_a_probe() {
    case::run(|case| {
        let lab = configured(case, SHORT)?;
        let _server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        let follower = Follower::start(&lab)?;
        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        let client_port = port(&stream)?;
        assert_eq!(tcp::ask(&mut stream, "before")?, "before");
        assert_eq!(follower.wait("closed", client_port)?["reason"], "idle");
        // Nobody but the probe has sent anything.
        follower.wait("resumed", client_port)?;
        // Without the probe it would have had its 4 s by then. The server gives up after 10 s of silence.
        std::thread::sleep(Duration::from_millis(4_500));
        assert_eq!(tcp::ask(&mut stream, "after")?, "after");
        Ok(())
    });
}

#[test]
fn s8_a_moved_session_goes_on_with_its_next_packet() {
    case::run(|case| {
        let lab =
            configured(case, "[timers]\nudp = 6\ntcp_established = 62\ntcp_transitory = 60\n")?;
        let _server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        let _datagrams = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.add("8080/udp", TARGET)?;
        // The probe isn't to help.
        lab.net.container().sh("iptables -A OUTPUT -p tcp --tcp-flags ALL ACK -j DROP")?;
        let follower = Follower::start(&lab)?;
        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        assert_eq!(tcp::ask(&mut stream, "before")?, "before");
        let socket = udp::client(lab.net.client(), 0)?;
        for _ in 0..2 {
            udp::ask(&socket, host(8080), b"before")?;
        }
        let udp_port = socket.local_addr()?.port();
        assert_eq!(follower.wait("closed", port(&stream)?)?["reason"], "idle");
        assert_eq!(tcp::ask(&mut stream, "after")?, "after");
        follower.wait("resumed", port(&stream)?)?;
        assert_eq!(follower.wait("closed", udp_port)?["reason"], "idle");
        let (reply, _) = udp::ask(&socket, host(8080), b"after")?;
        assert_eq!(reply, b"after");
        follower.wait("resumed", udp_port)?;
        Ok(())
    });
}

#[test]
fn whois_names_the_client_of_an_ended_session() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        let client_port = port(&stream)?;
        assert_eq!(tcp::ask(&mut stream, "hello")?, "hello");
        let asked = server.last_peer()?.to_string();
        let live = lab.daemon.entry(&["whois", &asked])?;
        assert_eq!((&live["sessions"], &live["ended"]), (&json!(1), &Value::Null), "{live}");
        drop(stream);
        // A closing session is still shown as there; a new one that ends at once isn't.
        lab.daemon.ctl(&["rm", "8080", "--kill"])?.ok()?;
        let is_past = || lab.daemon.entry(&["whois", &asked]).is_ok_and(|it| it["sessions"] == 0);
        ensure!(shell::wait_until(Duration::from_secs(5), is_past));
        let past = lab.daemon.entry(&["whois", &asked])?;
        assert_eq!(past["client"], json!(client_address(0)), "{past}");
        assert_eq!(past["client_port"], client_port, "{past}");
        ensure!(past["ended"].is_string() && past["since"].is_string(), "{past}");
        Ok(())
    });
}

#[test]
fn what_happened_while_the_daemon_was_dead_is_in_the_log_afterwards() {
    case::run(|case| {
        let file = case.directory().join("sessions.ndjson");
        let text = format!("[log]\nfile = \"{}\"\n", file.display());
        let mut lab = configured(case, &text)?;
        let _server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.kill()?;
        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        let client_port = port(&stream)?;
        assert_eq!(tcp::ask(&mut stream, "nobody watches")?, "nobody watches");
        drop(stream);
        std::thread::sleep(Duration::from_millis(300));
        lab.daemon.launch()?;
        let found = || -> Vec<String> {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            events
                .filter(|it| it["client_port"] == client_port)
                .map(|it| it["event"].as_str().unwrap_or_default().to_owned())
                .collect()
        };
        let wanted = ["opened", "closed"];
        ensure!(shell::wait_until(Duration::from_secs(5), || found() == wanted), "{:?}", found());
        let status = lab.daemon.json(&["status"])?;
        assert_eq!(status["events"], json!({"lost": 0, "not_written": 0}), "{status}");
        Ok(())
    });
}
