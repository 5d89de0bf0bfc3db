//! `publisherd`'s command line, laid over the configuration file.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::Parser;

use super::{Exit, Messages, Style, usage};
use crate::config::{
    AliasPool, Config, ConfigError, DEFAULT_FILE, DEFAULT_PIN_DIR, DEFAULT_SOCKET,
    DEFAULT_STATE_DIR, InterfaceName,
};

/// Publishes container ports on the host's IPv6 addresses, in the kernel.
///
/// What is given here wins over the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "publisherd", version)]
pub struct DaemonArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE", help = format!("Configuration file [default: {DEFAULT_FILE}, if it is there]"))]
    pub config: Option<PathBuf>,
    /// Unix socket of the API
    #[arg(long, value_name = "PATH", help = format!("Unix socket of the API [default: {DEFAULT_SOCKET}]"))]
    pub socket: Option<PathBuf>,
    /// Directory for publications and the alias key
    #[arg(long, value_name = "DIR", help = format!("Directory for publications and the alias key [default: {DEFAULT_STATE_DIR}]"))]
    pub state_dir: Option<PathBuf>,
    /// Directory for pins, on a bpf file system
    #[arg(long, value_name = "DIR", help = format!("Directory for pins, on a bpf file system [default: {DEFAULT_PIN_DIR}]"))]
    pub pin_dir: Option<PathBuf>,
    /// Interface where clients arrive, may be given several times [default: chosen by themselves]
    #[arg(long = "uplink", value_name = "IFACE")]
    pub uplinks: Vec<InterfaceName>,
    /// Network that clients' aliases are taken from [default: 198.18.0.0/15, else 100.64.0.0/10]
    #[arg(long, value_name = "CIDR")]
    pub alias_pool: Option<AliasPool>,
}

impl DaemonArgs {
    /// The configuration: the defaults, then the file, then what was given here.
    ///
    /// # Errors
    ///
    /// Those of the file. It may be missing only if none was named.
    pub fn merge(self) -> Result<Config, ConfigError> {
        let Self { config, socket, state_dir, pin_dir, uplinks, alias_pool } = self;
        let mut merged = match config {
            Some(path) => Config::read(&path)?,
            None => Config::read_default()?,
        };
        if let Some(socket) = socket {
            merged.socket = socket;
        }
        if let Some(state_dir) = state_dir {
            merged.state_dir = state_dir;
        }
        if let Some(pin_dir) = pin_dir {
            merged.pin_dir = pin_dir;
        }
        if !uplinks.is_empty() {
            merged.uplinks = uplinks;
        }
        if alias_pool.is_some() {
            merged.alias.pool = alias_pool;
        }
        Ok(merged)
    }
}

/// Reads `publisherd`'s command line `args` (the program's name first) and the configuration file.
///
/// # Errors
///
/// How to exit instead of running, after everything has been said: [`Exit::Ok`] for `--help` and
/// `--version`, [`Exit::Usage`] for a mistake on the command line or in the file, [`Exit::Failed`]
/// or [`Exit::Permission`] for a file that can't be read.
pub fn configure(
    args: impl IntoIterator<Item = OsString>,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
    style: Style,
) -> Result<Config, Exit> {
    let mut messages = Messages::new(stderr, style);
    let args = DaemonArgs::try_parse_from(args)
        .map_err(|error| usage::report(&error, stdout, &mut messages, "publisherd"))?;
    args.merge().map_err(|error| {
        messages.error(&error.to_string(), error.hint().as_deref());
        match error {
            ConfigError::Invalid { .. } => Exit::Usage,
            ConfigError::Read { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Exit::Permission
            }
            ConfigError::Read { .. } => Exit::Failed,
        }
    })
}

/// Reads the configuration file again, under the same command line.
///
/// # Errors
///
/// What is wrong with the file, in one line.
pub fn configure_again(args: impl IntoIterator<Item = OsString>) -> Result<Config, String> {
    let args = DaemonArgs::try_parse_from(args).map_err(|error| error.to_string())?;
    args.merge().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> (Result<Config, Exit>, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = ["publisherd"].iter().chain(args).map(OsString::from);
        let result = configure(args, &mut out, &mut err, Style::Plain);
        (result, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    /// A configuration file, so that the machine's own has no say.
    fn file(text: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.toml");
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (dir, path)
    }

    #[test]
    fn the_command_line_wins_over_the_file_and_leaves_the_rest() {
        let (_dir, path) = file("socket = \"/file.sock\"\nuplinks = [\"eth9\"]\ndrain = 7\n");
        let (config, out, err) = run(&["--config", &path]);
        assert_eq!((out.as_str(), err.as_str()), ("", ""));
        let config = config.unwrap();
        assert_eq!(config.socket.to_str(), Some("/file.sock"));
        assert_eq!(config.uplinks, ["eth9".parse().unwrap()]);

        let (config, ..) = run(&[
            "--config",
            &path,
            "--socket",
            "/s",
            "--state-dir",
            "/st",
            "--pin-dir",
            "/p",
            "--uplink",
            "eth0",
            "--uplink",
            "wg0",
            "--alias-pool",
            "10.200.0.0/16",
        ]);
        let expected = Config {
            socket: "/s".into(),
            state_dir: "/st".into(),
            pin_dir: "/p".into(),
            uplinks: vec!["eth0".parse().unwrap(), "wg0".parse().unwrap()],
            alias: crate::config::Alias {
                pool: Some("10.200.0.0/16".parse().unwrap()),
                ..crate::config::Alias::default()
            },
            drain: std::time::Duration::from_secs(7),
            ..Config::default()
        };
        assert_eq!(config.unwrap(), expected);
    }

    #[test]
    fn help_and_version_go_to_stdout() {
        let (result, out, err) = run(&["--version"]);
        assert_eq!(result.unwrap_err(), Exit::Ok);
        assert_eq!(out, format!("publisherd {}\n", env!("CARGO_PKG_VERSION")));
        assert_eq!(err, "");
        let (result, out, _) = run(&["--help"]);
        assert_eq!(result.unwrap_err(), Exit::Ok);
        for flag in ["--config", "--socket", "--state-dir", "--pin-dir", "--uplink", "--alias-pool"]
        {
            assert!(out.contains(flag), "{flag}: {out}");
        }
    }

    #[test]
    fn mistakes_say_one_line_and_where_to_look() {
        let (_dir, path) = file("drain = -1\n");
        for (args, exit, said) in [
            (vec!["--config", &path], Exit::Usage, ":1:9: -1 is out of range"),
            (
                vec!["--config", "/nonexistent/p.toml"],
                Exit::Failed,
                "can't read /nonexistent/p.toml",
            ),
            (vec!["--uplink", "a/b"], Exit::Usage, "'a/b' is not an interface name"),
            (vec!["--alias-pool", "10.0.0.1/8"], Exit::Usage, "did you mean 10.0.0.0/8?"),
            (vec!["--frobnicate"], Exit::Usage, "unexpected argument '--frobnicate'"),
            (vec!["start"], Exit::Usage, "unexpected argument 'start'"),
        ] {
            let (result, out, err) = run(&args);
            assert_eq!(result.unwrap_err(), exit, "{args:?}");
            assert_eq!(out, "");
            assert!(err.starts_with("error: ") && err.contains(said), "{args:?}: {err}");
            assert_eq!(err.lines().filter(|line| line.starts_with("error: ")).count(), 1);
        }
    }
}
