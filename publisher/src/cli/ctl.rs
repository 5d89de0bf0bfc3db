//! `publisherctl`: reads the command line, asks the daemon, prints the answer.

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Parser as _;

use super::args::{CtlArgs, Format, Verb};
use super::output::Output;
use super::{Exit, Messages, Style, columns, filter, manual, status, usage};
use crate::api::documents::{Clients, Document, Done, Drops, Publications};
use crate::api::types::SessionsFound;
use crate::api::{ApiError, Client, ClientError, ErrorCode, RemoveRequest};
use crate::model::{PublicationSpec, Published, SpecError};

/// Runs `publisherctl` with `args` (the program's name first). Data goes to `stdout`, messages go to
/// `stderr` in `style`.
pub async fn run(
    args: impl IntoIterator<Item = OsString>,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
    style: Style,
) -> Exit {
    let mut messages = Messages::new(stderr, style);
    let args = match CtlArgs::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => return usage::report(&error, stdout, &mut messages, "publisherctl"),
    };
    let mut command = Command {
        client: Client::new(args.global.host.0.clone()),
        output: Output::new(stdout, &args.global),
        messages: &mut messages,
    };
    let done = match command.run(args.verb).await {
        Ok(()) => command.output.flush().map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    let Err(failure) = done else { return Exit::Ok };
    failure.report(&mut messages)
}

/// Why a command didn't get to its end.
pub(super) enum Failure {
    /// The daemon, or the way to it.
    Client(ClientError),
    /// A value on the command line.
    Refused(ApiError),
    /// Standard output.
    Output(io::Error),
    /// A file that was to be written.
    File(io::Error),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Failure {
    fn report(self, messages: &mut Messages<'_>) -> Exit {
        match self {
            Self::Client(error) => {
                messages.error(&error.to_string(), error.hint().as_deref());
                match error {
                    ClientError::Unreachable { .. } => Exit::Unreachable,
                    ClientError::Permission(_) => Exit::Permission,
                    ClientError::Api(error) => error.code.into(),
                    ClientError::Garbled { .. } => Exit::Failed,
                }
            }
            Self::Refused(error) => {
                messages.error(&error.message, error.hint.as_deref());
                error.code.into()
            }
            // `publisherctl ls | head -1`: the reader has all it wanted.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Self::Output(error) => {
                messages.error(&format!("can't write the result: {error}"), None);
                Exit::Failed
            }
            Self::File(error) => {
                messages.error(&format!("can't write the manual pages: {error}"), None);
                match error.kind() {
                    io::ErrorKind::PermissionDenied => Exit::Permission,
                    _ => Exit::Failed,
                }
            }
        }
    }
}

/// A command that is being run.
pub(super) struct Command<'a, 'b> {
    pub(super) client: Client,
    pub(super) output: Output<'a>,
    messages: &'a mut Messages<'b>,
}

impl Command<'_, '_> {
    async fn run(&mut self, verb: Verb) -> Result<(), Failure> {
        match verb {
            Verb::Add { published, target, source, path, proxy_protocol, guards } => {
                let spec = (|| -> Result<_, SpecError> {
                    let (access, limits) = guards.read()?;
                    PublicationSpec::new(published.parse()?, target.parse()?, source)?
                        .guarded(access, limits)
                        .by_way_of(path, proxy_protocol)
                })();
                self.add(&spec.map_err(ApiError::from)?).await
            }
            Verb::Rm { published, all: _, kill } => self.rm(published.as_deref(), kill).await,
            Verb::Ls => self.ls().await,
            Verb::Sessions { filters } => self.sessions(&filters).await,
            Verb::Whois { alias } => self.whois(&alias).await,
            Verb::Deny { verb } => self.deny(verb).await,
            Verb::Config { verb } => self.config(verb).await,
            Verb::Events => self.events().await,
            Verb::Status => self.status().await,
            Verb::Drops => self.drops().await,
            Verb::Uninstall => self.uninstall().await,
            Verb::Completions { shell } => Ok(self.output.raw(&manual::completions(shell))?),
            Verb::Man { dir: Some(dir) } => manual::write_pages(&dir).map_err(Failure::File),
            Verb::Man { dir: None } => Ok(self.output.raw(&manual::page()?)?),
        }
    }

    async fn add(&mut self, spec: &PublicationSpec) -> Result<(), Failure> {
        let added = self.client.add(spec).await?;
        for warning in &added.warnings {
            self.messages.warning(warning);
        }
        if self.output.is_json() {
            self.output.json(&Document::new(added))?;
        } else {
            let updated = if added.updated { " (updated)" } else { "" };
            self.output.line(&format!("{}{updated}", added.publication))?;
        }
        Ok(())
    }

    async fn rm(&mut self, published: Option<&str>, kill: bool) -> Result<(), Failure> {
        let which = match published {
            Some(published) => {
                RemoveRequest::One(published.parse::<Published>().map_err(ApiError::from)?)
            }
            None => RemoveRequest::All,
        };
        let mut removed = self.client.remove(&which, kill).await?;
        columns::sort_publications(&mut removed);
        match self.output.format {
            Format::Json => self.output.json(&Publications::new(removed))?,
            Format::Ndjson => {
                for publication in removed {
                    self.output.json(&Document::new(publication))?;
                }
            }
            Format::Table | Format::Wide => {
                for publication in removed {
                    self.output.line(&publication.to_string())?;
                }
            }
        }
        Ok(())
    }

    async fn ls(&mut self) -> Result<(), Failure> {
        let mut rows = self.client.list().await?;
        columns::sort_publications(&mut rows);
        // The wide table has a column for them, JSON has fields.
        let notes: Vec<_> = match self.output.format {
            Format::Table if !self.output.quiet => rows
                .iter()
                .flat_map(|row| columns::notes(row).map(|it| format!("{}: {it}", row.published())))
                .collect(),
            _ => Vec::new(),
        };
        self.output.list(rows, &columns::PUBLICATIONS, Publications::new)?;
        self.warn(&notes)
    }

    async fn sessions(&mut self, filters: &[String]) -> Result<(), Failure> {
        let found = self.client.sessions(&filter::session_filter(filters)?).await?;
        let SessionsFound { sessions: mut rows, left_out } = found;
        columns::sort_sessions(&mut rows);
        let whole = |sessions| Document::new(SessionsFound { sessions, left_out });
        self.output.list(rows, &columns::SESSIONS, whole)?;
        if left_out > 0 {
            let more = format!("{left_out} more sessions are left out: limit=N asks for more");
            self.warn(&[more])?;
        }
        Ok(())
    }

    async fn whois(&mut self, alias: &str) -> Result<(), Failure> {
        let (address, port) = filter::alias(alias)?;
        let mut rows = self.client.whois(address, port).await?;
        if rows.is_empty() {
            let message = format!("no client is known behind {alias}");
            return Err(ApiError::new(ErrorCode::NotFound, message)
                .with_hint("publisherctl sessions shows the aliases in use")
                .into());
        }
        columns::sort_clients(&mut rows);
        Ok(self.output.list(rows, &columns::CLIENTS, Clients::new)?)
    }

    /// Prints events until the daemon ends, or the reader has enough.
    async fn events(&mut self) -> Result<(), Failure> {
        let is_text = matches!(self.output.chosen, Some(Format::Table | Format::Wide));
        // One a line, whatever the kind of JSON: the stream has no end.
        self.output.format = Format::Ndjson;
        let mut events = self.client.events().await?;
        loop {
            match events.next().await {
                Ok(Some(event)) if is_text => self.output.line(&columns::event(&event))?,
                Ok(Some(event)) => self.output.json(&Document::new(&*event))?,
                Ok(None) => return Err(self.client.events_ended(None).into()),
                Err(why) => return Err(self.client.events_ended(Some(why)).into()),
            }
            self.output.flush()?;
        }
    }

    async fn status(&mut self) -> Result<(), Failure> {
        let status = self.client.status().await?;
        let warnings = status.warnings.clone();
        if self.output.is_json() {
            self.output.json(&Document::new(status))?;
        } else {
            status::print(&status, &mut self.output)?;
        }
        self.warn(&warnings)
    }

    async fn drops(&mut self) -> Result<(), Failure> {
        let mut rows = self.client.drops().await?;
        columns::sort_drops(&mut rows);
        if self.output.format == Format::Table {
            rows.retain(|row| row.count > 0);
        }
        Ok(self.output.list(rows, &columns::DROPS, Drops::new)?)
    }

    async fn uninstall(&mut self) -> Result<(), Failure> {
        self.client.uninstall().await?;
        if self.output.is_json() {
            self.output.json(&Done::default())?;
        } else {
            let socket = self.client.socket().display();
            self.output
                .line(&format!("publisherd on {socket} has removed everything and stops"))?;
        }
        Ok(())
    }

    /// Warnings, after the result that they are about.
    pub(super) fn warn(&mut self, warnings: &[String]) -> Result<(), Failure> {
        self.output.flush()?;
        for warning in warnings {
            self.messages.warning(warning);
        }
        Ok(())
    }
}
