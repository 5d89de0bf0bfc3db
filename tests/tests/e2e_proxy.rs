//! The socket proxy: connections and datagrams as their ends would have them without it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ppp::v2::{Addresses, Header};
use publisher_tests::case;
use publisher_tests::fetched;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::shell;
use publisher_tests::topology::{HOST, HOST_2, client_address, host};
use publisher_tests::traffic::bulk::{self, MIB};
use publisher_tests::traffic::{tcp, udp};

const ANY: [u8; 4] = [0, 0, 0, 0];
const SOON: Duration = Duration::from_secs(2);

/// What the container got of a client that closed its half first, and the client of a container that
/// answered afterwards.
#[test]
fn both_sides_may_close_their_half_first() {
    case::run(|case| {
        let lab = Lab::proxied(case, &[])?;
        let _server = tcp::Server::start(lab.net.container(), (ANY, 80), |mut stream| {
            let mut got = Vec::new();
            if stream.read_to_end(&mut got).is_ok() {
                let _ = stream.write_all(&[b"all: ", got.as_slice()].concat());
            }
        })?;
        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        stream.write_all(b"a question")?;
        tcp::half_close(&stream)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        assert_eq!(answer, "all: a question");

        lab.daemon.add("8081", "172.17.0.2:81")?;
        lab.daemon.ctl(&["add", "8081", "172.17.0.2:81", "--path", "proxy"])?.ok()?;
        let (sender, receiver) = std::sync::mpsc::channel();
        let _server = tcp::Server::start(lab.net.container(), (ANY, 81), move |mut stream| {
            let _ = stream.write_all(b"a greeting");
            let _ = stream.shutdown(Shutdown::Write);
            let mut got = String::new();
            let _ = stream.read_to_string(&mut got);
            let _ = sender.send(got);
        })?;
        let mut stream = tcp::connect(lab.net.client(), host(8081))?;
        let mut greeting = String::new();
        stream.read_to_string(&mut greeting)?;
        assert_eq!(greeting, "a greeting");
        stream.write_all(b"thanks")?;
        drop(stream);
        assert_eq!(receiver.recv_timeout(SOON)?, "thanks");
        Ok(())
    });
}

#[test]
fn bulk_data_arrives_as_it_was_sent() {
    case::run(|case| {
        let lab = Lab::proxied(case, &[])?;
        let _bulk = tcp::Server::start(lab.net.container(), (ANY, 81), bulk::serve)?;
        let _server = tcp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.ctl(&["add", "8081", "172.17.0.2:81", "--path", "proxy"])?.ok()?;
        bulk::exchange(&mut tcp::connect(lab.net.client(), host(8081))?, 300 * MIB)?;
        // Many small pieces, none of which fills a buffer.
        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        for n in 0..5_000 {
            let line = format!("{n}:{}", "x".repeat(n % 700));
            assert_eq!(tcp::ask(&mut stream, &line)?, line);
        }
        Ok(())
    });
}

/// Whether a connection was reset, which may be half-closed: then only who writes is told.
fn is_broken(stream: &mut TcpStream) -> Result<()> {
    let broken = || stream.take_error().is_ok_and(|error| error.is_some());
    ensure!(shell::wait_until(SOON, broken), "the connection goes on");
    Ok(())
}

#[test]
fn a_reset_of_either_side_reaches_the_other() {
    case::run(|case| {
        let lab = Lab::proxied(case, &[])?;
        let listener =
            lab.net.container().run(|| TcpListener::bind(SocketAddr::from((ANY, 80))))?;
        let connect = || -> Result<(TcpStream, TcpStream)> {
            let stream = tcp::connect(lab.net.client(), host(8080))?;
            Ok((stream, listener.accept()?.0))
        };
        for half_closed in [false, true] {
            let (client, mut container) = connect()?;
            if half_closed {
                tcp::half_close(&client)?;
                assert_eq!(container.read(&mut [0; 1])?, 0);
            }
            tcp::abort(client)?;
            is_broken(&mut container).with_context(|| format!("the container's, {half_closed}"))?;

            let (mut client, container) = connect()?;
            if half_closed {
                tcp::half_close(&container)?;
                assert_eq!(client.read(&mut [0; 1])?, 0);
            }
            tcp::abort(container)?;
            is_broken(&mut client).with_context(|| format!("the client's, {half_closed}"))?;
        }
        drop(listener);
        // Nobody listens there any more: the client hears of it at once.
        let start = Instant::now();
        match tcp::try_connect(lab.net.client(), host(8080), SOON) {
            tcp::Outcome::Connected(mut stream) => tcp::is_reset(&mut stream)?,
            tcp::Outcome::Failed(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => anyhow::bail!("{other:?}"),
        }
        ensure!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
        Ok(())
    });
}

#[test]
fn an_answer_arrives_although_a_reset_follows_it() {
    /// It leaves at once, so that the server's own reset can't overtake it.
    const ANSWER: usize = 10_000;
    case::run(|case| {
        let lab = Lab::proxied(case, &[])?;
        // It answers after the first line, and closes with the rest unread, which is a reset.
        let _server = tcp::Server::start(lab.net.container(), (ANY, 80), |mut stream| {
            let mut line = [0; 4];
            if stream.read_exact(&mut line).is_ok() {
                std::thread::sleep(Duration::from_millis(50));
                let _ = stream.write_all(&[b'n'; ANSWER]);
            }
        })?;
        for _ in 0..20 {
            let mut stream = tcp::connect(lab.net.client(), host(8080))?;
            stream.write_all(&[b'?'; 50_000])?;
            let mut answer = Vec::new();
            let end = stream.read_to_end(&mut answer);
            ensure!(answer.len() == ANSWER, "{} bytes of the answer, then {end:?}", answer.len());
        }
        Ok(())
    });
}

#[test]
fn a_target_that_is_the_proxy_itself_ends_at_once() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        lab.daemon.ctl(&["add", "8080", "172.17.0.1:8080", "--path", "proxy"])?.ok()?;
        // The reset may come before the client has seen that it is connected.
        let to = (Ipv6Addr::LOCALHOST, 8080);
        match tcp::try_connect(&lab.net.host, to, Duration::from_secs(2)) {
            tcp::Outcome::Connected(mut stream) => tcp::is_reset(&mut stream)?,
            tcp::Outcome::Failed(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => bail!("{other:?}"),
        }
        ensure!(lab.daemon.entries(&["sessions"])?.is_empty());
        Ok(())
    });
}

#[test]
fn a_slow_reader_holds_up_its_sender_and_nothing_else() {
    case::run(|case| {
        let lab = Lab::proxied(case, &[])?;
        // It never reads.
        let _server = tcp::Server::start(lab.net.container(), (ANY, 80), |_stream| {
            std::thread::sleep(Duration::from_secs(20));
        })?;
        let memory = || -> Result<u64> {
            let status = std::fs::read_to_string(format!("/proc/{}/status", lab.daemon.pid()?))?;
            let line = status.lines().find(|line| line.starts_with("VmRSS")).context("VmRSS")?;
            Ok(line.split_whitespace().nth(1).context("a number")?.parse()?)
        };
        let before = memory()?;
        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        stream.set_write_timeout(Some(Duration::from_secs(1)))?;
        let (piece, mut sent) = (vec![7; MIB as usize], 0);
        let stuck = loop {
            match stream.write(&piece) {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
            ensure!(sent < 512 << 20, "nothing holds the sender up");
        };
        ensure!(stuck.kind() == ErrorKind::WouldBlock, "{stuck}");
        let grown = memory()?.saturating_sub(before);
        ensure!(grown < 4 << 10, "{sent} bytes were taken, and {grown} KiB of memory");
        Ok(())
    });
}

#[test]
fn datagrams_are_answered_from_the_address_that_was_asked() {
    case::run(|case| {
        let lab = Lab::proxied(case, &[])?;
        let server = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        let socket = udp::client(lab.net.client(), 5_000)?;
        let link_local = std::net::SocketAddrV6::new(
            lab.net.host.link_local("up0")?,
            8080,
            0,
            lab.net.client().ifindex("eth0")?,
        );
        let asked = [(HOST, 8080).into(), (HOST_2, 8080).into(), SocketAddr::V6(link_local)];
        for (round, to) in asked.iter().cycle().take(9).enumerate() {
            let content = format!("{round} for {to}");
            let (answer, from) = udp::ask(&socket, *to, content.as_bytes())?;
            assert_eq!((answer, from), (content.into_bytes(), *to));
        }
        // One session for each of them.
        assert_eq!(lab.daemon.entries(&["sessions", "proto=udp"])?.len(), 3);
        let ports: std::collections::BTreeSet<_> =
            server.seen().into_iter().map(|it| it.0).collect();
        assert_eq!(ports.len(), 3);
        // Of every size, in fragments too, and empty.
        for size in [0, 1, 1_000, 1_452, 1_453, 9_000, 65_000] {
            let content: Vec<u8> = (0..size).map(|n| n as u8).collect();
            let (answer, _) = udp::ask(&socket, asked[0], &content)?;
            ensure!(answer == content, "{size} bytes came back as {}", answer.len());
        }
        Ok(())
    });
}

#[test]
fn udp_sessions_end_when_nobody_sends_and_live_while_one_side_does() {
    case::run(|case| {
        let net = publisher_tests::topology::Topology::simple()?;
        let file = case.directory().join("p.toml");
        std::fs::write(&file, "[proxy]\nudp_idle = 2\n")?;
        let path = file.to_str().context("path")?;
        let daemon =
            publisher_tests::daemon::Daemon::start_with(case, &net.host, &["--config", path])?;
        daemon.ctl(&["add", "8080/udp", TARGET, "--path", "proxy"])?.ok()?;
        let server = udp::Server::sink(net.container(), (ANY, 80))?;
        let socket = udp::client(net.client(), 5_000)?;
        socket.send_to(b"from the client", (HOST, 8080))?;
        let session = server.wait_for(b"from the client")?;
        let count = || daemon.entries(&["sessions"]).map_or(0, |it| it.len());
        // First only the client sends, then only the container does.
        for n in 0..8 {
            std::thread::sleep(Duration::from_millis(500));
            socket.send_to(format!("again {n}").as_bytes(), (HOST, 8080))?;
        }
        assert_eq!(server.wait_for(b"again 7")?, session);
        for n in 0..8 {
            std::thread::sleep(Duration::from_millis(500));
            server.reply(session, format!("answer {n}").as_bytes())?;
        }
        let mut buffer = [0; 100];
        for n in 0..8 {
            let length = socket.recv(&mut buffer)?;
            assert_eq!(&buffer[..length], format!("answer {n}").as_bytes());
        }
        assert_eq!(count(), 1);
        ensure!(shell::wait_until(Duration::from_secs(6), || count() == 0), "it goes on idle");
        Ok(())
    });
}

#[test]
fn the_proxy_protocol_names_the_client() {
    case::run(|case| {
        let lab = Lab::proxied(case, &["--proxy-protocol", "v2"])?;
        let client_of = |bytes: &[u8]| -> Result<(SocketAddr, Vec<u8>)> {
            let header = Header::try_from(bytes).map_err(|error| anyhow::anyhow!("{error}"))?;
            let rest = bytes[header.len()..].to_vec();
            match header.addresses {
                Addresses::IPv6(it) => {
                    ensure!((it.destination_address, it.destination_port) == (HOST, 8080));
                    Ok(((it.source_address, it.source_port).into(), rest))
                }
                other => anyhow::bail!("{other:?}"),
            }
        };
        let (sender, receiver) = std::sync::mpsc::channel();
        let _tcp = tcp::Server::start(lab.net.container(), (ANY, 80), move |mut stream| {
            let mut got = Vec::new();
            let _ = stream.read_to_end(&mut got);
            let _ = sender.send(got);
        })?;
        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        stream.write_all(b"after the header")?;
        let me = stream.local_addr()?;
        drop(stream);
        assert_eq!(client_of(&receiver.recv_timeout(SOON)?)?, (me, b"after the header".to_vec()));

        let udp = udp::Server::sink(lab.net.container(), (ANY, 80))?;
        let socket = udp::client(lab.net.client(), 5_000)?;
        for content in [b"one".as_slice(), b"", b"three"] {
            socket.send_to(content, (HOST, 8080))?;
        }
        ensure!(shell::wait_until(SOON, || udp.seen().len() == 3), "{:?}", udp.seen());
        for ((_, datagram), content) in udp.seen().iter().zip([b"one".as_slice(), b"", b"three"]) {
            let (client, rest) = client_of(datagram)?;
            assert_eq!((client, rest), ((client_address(0), 5_000).into(), content.to_vec()));
        }
        let publication = &lab.daemon.entries(&["ls"])?[0];
        assert_eq!(
            (&publication["path"], &publication["proxy_protocol"]),
            (&"proxy".into(), &"v2".into())
        );
        Ok(())
    });
}

#[test]
fn nginx_logs_the_clients_address() {
    case::run(|case| {
        let lab = Lab::proxied(case, &["--proxy-protocol", "v2"])?;
        let directory = case.directory().join("nginx");
        std::fs::create_dir(&directory)?;
        let here = directory.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {here}/{kind};\n"))
            .concat();
        let config = format!(
            "daemon off; master_process off; pid {here}/pid; error_log {here}/error; events {{}}\n\
             http {{ {temporary} log_format who '$proxy_protocol_addr $proxy_protocol_port'; \
             access_log {here}/access who; server {{ listen 172.17.0.2:80 proxy_protocol; \
             location / {{ return 200 'from nginx'; }} }} }}\n"
        );
        std::fs::write(directory.join("conf"), config)?;
        let program = fetched::tree("PUBLISHER_NGINX", "nginx-1.22")?.join("usr/sbin/nginx");
        let mut command = lab.net.container().command(program);
        command.arg("-p").arg(&directory).arg("-e").arg(directory.join("error"));
        let mut nginx = command.arg("-c").arg(directory.join("conf")).spawn().context("nginx")?;
        let asked = || -> Result<(String, u16)> {
            let mut stream = tcp::connect(lab.net.client(), host(8080))?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut page = String::new();
            stream.read_to_string(&mut page)?;
            Ok((page, stream.local_addr()?.port()))
        };
        let mut answer = None;
        shell::wait_until(SOON, || {
            answer = asked().ok();
            answer.is_some()
        });
        let logged = std::fs::read_to_string(directory.join("access"));
        nginx.kill()?;
        nginx.wait()?;
        let (page, port) = answer.context("nginx doesn't answer")?;
        ensure!(page.ends_with("from nginx"), "{page}");
        let line = format!("{} {port}\n", client_address(0));
        ensure!(logged?.ends_with(&line), "nginx has not logged {line}");
        Ok(())
    });
}
