//! What is wrong gets one error line with a hint and its exit code, and harms nothing that was
//! there before.

use std::fs;
use std::io::Write;
use std::net::Ipv6Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use publisher_tests::answer::Answer;
use publisher_tests::case;
use publisher_tests::confine;
use publisher_tests::daemon::Daemon;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::topology::{Options, Topology, host};
use publisher_tests::traffic::tcp::{self, Outcome};

const ANY: [u8; 4] = [0, 0, 0, 0];

/// 8080 is published to a page, and still is after `body`, unchanged.
fn beside_a_publication(body: impl FnOnce(&mut Lab) -> Result<()>) {
    case::run(|case| {
        let mut lab = Lab::simple(case)?;
        let _server = tcp::Server::page(lab.net.container(), (ANY, 80), "unharmed")?;
        lab.daemon.add("8080", TARGET)?;
        let before = lab.daemon.entry(&["ls"])?;
        body(&mut lab)?;
        let after = lab.daemon.entries(&["ls"])?;
        let same = after.iter().find(|publication| publication["id"] == before["id"]);
        let same = same.with_context(|| format!("the publication is lost: {after:?}"))?;
        for field in ["host", "ports", "protocol", "target", "target_ports", "created"] {
            assert_eq!(same[field], before[field], "{field}");
        }
        ensure!(tcp::fetch(lab.net.client(), host(8080))?.starts_with("unharmed"));
        Ok(())
    });
}

/// Each of these arguments of `add` is refused as wrong usage, by a line that holds the word.
fn refused_as_usage(cases: &[(&[&str], &str)]) {
    beside_a_publication(|lab| {
        for (args, word) in cases {
            let args = [&["add"], *args].concat();
            let answer = lab.daemon.ctl(&args)?;
            let line = answer.failed_with(2).with_context(|| format!("{args:?}"))?;
            ensure!(line.contains(word), "{args:?}: {word:?} isn't in {line:?}");
        }
        assert_eq!(lab.daemon.entries(&["ls"])?.len(), 1);
        Ok(())
    });
}

#[test]
fn ports_that_dont_exist() {
    refused_as_usage(&[
        (&["0", TARGET], "0"),
        (&["65536", TARGET], "65536"),
        (&["99999999999999999999", TARGET], "9999"),
        (&["-1", TARGET], "-1"),
        (&["http", TARGET], "http"),
        (&["8081", "172.17.0.2:0"], "0"),
        (&["8081", "172.17.0.2:65536"], "65536"),
        (&["8081", "172.17.0.2"], "port"),
        (&["8081/sctp", TARGET], "sctp"),
    ]);
}

#[test]
fn ranges_that_dont_fit() {
    refused_as_usage(&[
        (&["8000-8010", "172.17.0.2:80-85"], "8000-8010"),
        (&["8000-8010", TARGET], "8000-8010"),
        (&["8081", "172.17.0.2:80-81"], "80-81"),
        (&["8010-8000", "172.17.0.2:80-90"], "8010-8000"),
        (&["0-10", "172.17.0.2:80-90"], "0"),
        (&["65530-65536", "172.17.0.2:80-86"], "65536"),
    ]);
}

#[test]
fn targets_that_are_no_ipv4_address() {
    refused_as_usage(&[
        (&["8081", "web.example:80"], "web.example"),
        (&["8081", "localhost:80"], "localhost"),
        (&["8081", "[2001:db8::5]:80"], "IPv6"),
        (&["8081", "2001:db8::5"], "IPv6"),
        (&["8081", "172.17.0.300:80"], "172.17.0.300"),
        (&["8081", "0.0.0.0:80"], "0.0.0.0"),
        (&["8081", "127.0.0.1:80"], "127.0.0.1"),
        (&["8081", "224.0.0.1:80"], "224.0.0.1"),
    ]);
}

#[test]
fn host_addresses_that_cant_be_published() {
    refused_as_usage(&[
        (&["127.0.0.1:8081", TARGET], "127.0.0.1"),
        (&["192.0.2.1:8081", TARGET], "192.0.2.1"),
        (&["[ff02::1]:8081", TARGET], "ff02::1"),
        (&["[fe80::1]:8081", TARGET], "fe80::1"),
        (&["2001:db8::1:8081", TARGET], "brackets"),
        (&["host.example:8081", TARGET], "host.example"),
    ]);
}

#[test]
fn unknown_words_on_the_command_line() {
    beside_a_publication(|lab| {
        for args in [
            &["add", "8081", TARGET, "--path", "magic"][..],
            &["add", "8081", TARGET, "--path", "kernel", "--proxy-protocol", "v2"],
            &["add", "8081", TARGET, "--proxy-protocol", "v1"],
            &["add", "8081", TARGET, "--source", "somewhere"],
            &["add", "8081"],
            &["publish", "8081"],
            &["whois", "nobody"],
            &["rm"],
            &["ls", "-o", "xml"],
            &[],
        ] {
            let answer = lab.daemon.ctl(args)?;
            answer.failed_with(2).with_context(|| format!("{args:?}"))?;
        }
        lab.daemon.ctl(&["rm", "9999"])?.failed_with(4)?;
        lab.daemon.ctl(&["rm", "8080/udp"])?.failed_with(4)?;
        lab.daemon.ctl(&["rm", "[2001:db8:1::1]:8080"])?.failed_with(4)?;
        Ok(())
    });
}

#[test]
fn a_host_address_that_isnt_there_yet() {
    beside_a_publication(|lab| {
        let later: Ipv6Addr = "2001:db8:1::77".parse()?;
        let published = format!("[{later}]:8088");
        let answer = lab.daemon.ctl(&["add", &published, TARGET])?.ok()?;
        let warns = |line: &str| line.starts_with("warning: ") && line.contains("2001:db8:1::77");
        ensure!(answer.stderr.lines().any(warns), "no warning: {answer:?}");
        let ls = lab.daemon.entries(&["ls"])?;
        let one = ls.iter().find(|p| p["ports"]["first"] == 8088).context("it is kept")?;
        ensure!(one["warnings"].to_string().contains("2001:db8:1::77"), "{one}");
        let add = format!("addr add {later}/64 dev up0 nodad");
        lab.daemon.alter(|| lab.net.host.ip(&add))?;
        std::thread::sleep(Duration::from_millis(300));
        ensure!(tcp::fetch(lab.net.client(), (later, 8088))?.starts_with("unharmed"));
        let ls = lab.daemon.entries(&["ls"])?;
        let one = ls.iter().find(|p| p["ports"]["first"] == 8088).context("it is kept")?;
        assert_eq!(one["warnings"], serde_json::json!([]));
        Ok(())
    });
}

#[test]
fn a_port_that_is_taken() {
    beside_a_publication(|lab| {
        let line = lab.daemon.ctl(&["add", "8080", "172.17.0.9:80"])?.failed_with(5)?;
        ensure!(line.contains("8080/tcp") && line.contains("172.17.0.2:80"), "{line}");
        let overlap = &["add", "8079-8081", "172.17.0.9:80-82"];
        lab.daemon.ctl(overlap)?.failed_with(5)?;
        // Nothing of the range was published.
        let outcome = tcp::try_connect(lab.net.client(), host(8079), Duration::from_secs(1));
        ensure!(matches!(outcome, Outcome::Refused), "{outcome:?}");
        // The other protocol is free.
        lab.daemon.add("8080/udp", TARGET)?;
        Ok(())
    });
}

/// The daemon starts although its state file is `damaged` by this, keeps it and says so.
fn a_damaged_state_file(damage: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    case::run(|case| {
        let mut lab = Lab::simple(case)?;
        let _server = tcp::Server::page(lab.net.container(), (ANY, 80), "unharmed")?;
        lab.daemon.add("8080", TARGET)?;
        lab.daemon.stop()?;
        let directory = lab.daemon.state_dir();
        let files = |word: &str| -> Result<Vec<_>> {
            let entries = fs::read_dir(&directory)?;
            let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
            Ok(paths.into_iter().filter(|p| p.to_string_lossy().contains(word)).collect())
        };
        let states = files(".json")?;
        ensure!(states.len() == 1, "one state file: {states:?}");
        let damaged = damage(fs::read(&states[0])?);
        fs::write(&states[0], &damaged)?;
        lab.daemon.launch()?;
        let aside = files("corrupt")?;
        ensure!(aside.len() == 1 && fs::read(&aside[0])? == damaged, "kept aside: {aside:?}");
        let status = lab.daemon.json(&["status"])?;
        let name = aside[0].file_name().context("name")?.to_string_lossy().into_owned();
        ensure!(status["warnings"].to_string().contains(&name), "{status}");
        // It works on, and what is added now is kept.
        let answer = lab.daemon.ctl(&["add", "8080", TARGET])?.ok()?;
        assert_eq!(answer.stdout, "8080/tcp -> 172.17.0.2:80\n");
        lab.daemon.stop()?;
        lab.daemon.launch()?;
        ensure!(tcp::fetch(lab.net.client(), host(8080))?.starts_with("unharmed"));
        Ok(())
    });
}

#[test]
fn a_corrupt_state_file() {
    a_damaged_state_file(|_| b"{\"schema\": \x00 not json".to_vec());
}

#[test]
fn a_truncated_state_file() {
    a_damaged_state_file(|bytes| bytes[..bytes.len() / 2].to_vec());
}

#[test]
fn an_empty_state_file() {
    a_damaged_state_file(|_| Vec::new());
}

#[test]
fn no_daemon() {
    case::run(|case| {
        let net = Topology::build(Options { containers: 0, ..Options::default() })?;
        let daemon = Daemon::prepare(case, &net.host, &[])?;
        for args in [&["ls"][..], &["status"], &["add", "8080", TARGET], &["whois", "198.18.0.1"]] {
            let line = daemon.ctl(args)?.failed_with(3)?;
            ensure!(line.contains("socket"), "names the socket: {line}");
        }
        Ok(())
    });
}

#[test]
fn no_permission_on_the_socket() {
    beside_a_publication(|lab| {
        let directory = lab.daemon.socket().parent().context("directory")?.to_owned();
        let up = directory.parent().context("scratch directory")?.to_owned();
        confine::for_everybody("publisherctl", &up)?;
        let program = confine::for_everybody("publisherctl", &directory)?;
        for args in [&["ls"][..], &["add", "8081", TARGET], &["rm", "8080"], &["uninstall"]] {
            let mut command = Command::new(&program);
            command.arg("-H").arg(format!("unix://{}", lab.daemon.socket().display())).args(args);
            let answer = Answer::of(confine::as_nobody(&mut command))?;
            answer.failed_with(6).with_context(|| format!("{args:?}"))?;
        }
        Ok(())
    });
}

#[test]
fn a_daemon_without_root() {
    case::run(|case| {
        let program = confine::for_everybody("publisherd", case.directory())?;
        let mut command = Command::new(program);
        for option in ["--socket", "--state-dir", "--pin-dir"] {
            command.arg(option).arg(case.directory().join(option));
        }
        let answer = Answer::soon(confine::as_nobody(&mut command))?;
        answer.failed_with(6)?;
        Ok(())
    });
}

#[test]
fn a_pin_directory_that_isnt_on_a_bpf_file_system() {
    case::run(|case| {
        let net = Topology::simple()?;
        let mut daemon = Daemon::prepare(case, &net.host, &[])?;
        let pins = case.directory().join("pins");
        let mut command = daemon.command_with_pins(&pins)?;
        let line = Answer::soon(&mut command)?.failed_with(1)?;
        ensure!(line.contains("BPF file system"), "{line}");
        // It can be put right without a trace of the failure.
        daemon.launch()?;
        daemon.add("8080", TARGET)?;
        Ok(())
    });
}

#[test]
fn a_kernel_without_bpf() {
    case::run(|case| {
        let net = Topology::simple()?;
        let mut daemon = Daemon::start(case, &net.host)?;
        let _server = tcp::Server::page(net.container(), (ANY, 80), "unharmed")?;
        daemon.add("8080", TARGET)?;
        daemon.stop()?;
        let answer = Answer::soon(confine::without_bpf(&mut daemon.command()?))?;
        answer.failed_with(1)?;
        // The state is as it was.
        ensure!(tcp::fetch(net.client(), host(8080))?.starts_with("unharmed"));
        daemon.launch()?;
        assert_eq!(daemon.entries(&["ls"])?.len(), 1);
        Ok(())
    });
}

#[test]
fn a_second_daemon_in_the_same_place() {
    beside_a_publication(|lab| {
        let line = Answer::soon(&mut lab.daemon.command()?)?.failed_with(1)?;
        ensure!(line.contains("in use"), "names what is taken: {line}");
        Ok(())
    });
}

#[test]
fn wrong_options_of_the_daemon() {
    case::run(|case| {
        let net = Topology::build(Options { containers: 0, ..Options::default() })?;
        let config = case.directory().join("publisher.toml");
        let mut file = fs::File::create(&config)?;
        file.write_all(b"no_such_setting = true\n")?;
        for args in [
            &["--alias-pool", "198.18.0.0/40"][..],
            &["--alias-pool", "2001:db8::/64"],
            &["--no-such-option"],
            &["--config", config.to_str().context("path")?],
        ] {
            let daemon = Daemon::prepare(case, &net.host, args)?;
            let answer = Answer::soon(&mut daemon.command()?)?;
            ensure!(answer.code == Some(2), "{args:?}: {answer:?}");
            ensure!(answer.stderr.contains("error: "), "{args:?}: {answer:?}");
        }
        Ok(())
    });
}
