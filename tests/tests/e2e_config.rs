//! The configuration on a real host: what is in its way, what it is, and a change of it at run time.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use publisher_tests::case;
use publisher_tests::daemon::Daemon;
use publisher_tests::shell;
use publisher_tests::topology::Topology;
use rustix::process::{Pid, Signal, kill_process};

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// Sends SIGHUP and waits until the daemon has written `said` for the `times`th time.
fn reload(daemon: &Daemon<'_>, said: &str, times: usize) -> Result<()> {
    let pid = daemon.json(&["status"])?["pid"].as_i64().context("pid")?;
    kill_process(Pid::from_raw(pid.try_into()?).context("pid")?, Signal::HUP)?;
    let heard =
        shell::wait_until(Duration::from_secs(5), || daemon.log().matches(said).count() >= times);
    ensure!(heard, "{said:?} isn't in the log:\n{}", daemon.log());
    Ok(())
}

#[test]
fn a_pool_that_the_host_uses_is_refused_by_its_route() {
    case::run(|case| {
        let net = Topology::simple()?;
        let file = case.directory().join("p.toml");
        fs::write(&file, "[alias]\npool = \"172.17.128.0/24\"\n")?;
        let daemon = Daemon::prepare(case, &net.host, &["--config", text(&file)?])?;
        let line = daemon.ctl(&["config", "check", text(&file)?])?.failed_with(1)?;
        ensure!(line.contains("172.17.0.0/16") && line.contains("br0"), "{line}");
        let answer = publisher_tests::answer::Answer::soon(&mut daemon.command()?)?;
        let line = answer.failed_with(1)?;
        ensure!(line.contains("172.17.0.0/16") && line.contains("br0"), "{line}");
        fs::write(&file, "[alias]\npool = \"198.51.100.0/24\"\n")?;
        let said = daemon.ctl(&["config", "check", text(&file)?])?.ok()?.stdout;
        assert_eq!(said, format!("{}: ok\n", text(&file)?));
        Ok(())
    });
}

#[test]
fn sighup_changes_what_can_be_changed() {
    case::run(|case| {
        let net = Topology::simple()?;
        let file = case.directory().join("p.toml");
        fs::write(&file, "drain = 100\n")?;
        let daemon = Daemon::start_with(case, &net.host, &["--config", text(&file)?])?;
        let config = || Ok::<_, anyhow::Error>(daemon.json(&["config", "show"])?["config"].clone());
        let before = config()?;
        assert_eq!(
            (&before["drain"], &before["alias"]["pool"]),
            (&100.into(), &"198.18.0.0/15".into())
        );
        assert_eq!(before["sessions"]["per_source"], 65_536);

        fs::write(
            &file,
            "drain = 7\nhost_firewall = \"bypass\"\n[alias]\nprefix = 64\npool = \"10.99.0.0/16\"\n\
             [timers]\nudp = 400\n[sessions]\ncapacity = 1024\n",
        )?;
        reload(&daemon, "has been read anew", 1)?;
        let after = config()?;
        assert_eq!((&after["drain"], &after["host_firewall"]), (&7.into(), &"bypass".into()));
        assert_eq!((&after["alias"]["prefix"], &after["timers"]["udp"]), (&64.into(), &400.into()));
        // What takes a restart stays, and is named.
        assert_eq!(after["alias"]["pool"], before["alias"]["pool"]);
        assert_eq!(after["sessions"]["capacity"], before["sessions"]["capacity"]);
        for name in ["alias.pool", "sessions.capacity"] {
            ensure!(daemon.log().contains(&format!("{name} takes a restart")), "{}", daemon.log());
        }

        // A mistake changes nothing; nor does a pool that the host uses.
        for (mistake, said) in [
            ("drain = 8\n[timers]\nudp = 0\n", "stays as it was: "),
            (
                "drain = 8\n[alias]\npool = \"172.17.0.0/16\"\n",
                "alias pool 172.17.0.0/16 is in use",
            ),
        ] {
            fs::write(&file, mistake)?;
            reload(&daemon, said, 1)?;
            assert_eq!(config()?, after, "{mistake}");
        }
        Ok(())
    });
}
