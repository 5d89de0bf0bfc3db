//! `publisherctl config`

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::ctl::{Command, Failure};
use crate::api::documents::{ConfigDocument, Schema};
use crate::api::{ApiError, ErrorCode};
use crate::config::{Config, DEFAULT_FILE};
use crate::engine;

/// What `config` can do.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Look for mistakes in a configuration file, without a daemon
    ///
    /// Reads the file, and checks that this host has the memory for its tables and that nothing of the host
    /// is in the alias pool. Exits with 1 if the daemon wouldn't start with it.
    Check {
        /// The file
        #[arg(value_name = "FILE", default_value = DEFAULT_FILE)]
        file: PathBuf,
    },
    /// Show the configuration that the daemon runs with, defaults included
    Show,
}

impl Command<'_, '_> {
    pub(super) async fn config(&mut self, verb: ConfigVerb) -> Result<(), Failure> {
        match verb {
            ConfigVerb::Check { file } => self.config_check(&file).await,
            ConfigVerb::Show => self.config_show().await,
        }
    }

    async fn config_check(&mut self, file: &Path) -> Result<(), Failure> {
        let config = Config::read(file).map_err(|error| {
            let hint = error.hint();
            ApiError { hint, ..ApiError::failed(error.to_string()) }
        })?;
        let warnings = engine::check(&config).await.map_err(|error| {
            let hint = error.hint();
            ApiError { hint, ..ApiError::failed(format!("{}: {error}", file.display())) }
        })?;
        self.output.line(&format!("{}: ok", file.display()))?;
        self.warn(&warnings)
    }

    async fn config_show(&mut self) -> Result<(), Failure> {
        let config = self.client.config().await?;
        if self.output.is_json() {
            return Ok(self.output.json(&ConfigDocument { schema: Schema, config })?);
        }
        let text = toml::to_string(&config).map_err(|error| {
            ApiError::new(ErrorCode::Failed, format!("can't write the configuration: {error}"))
        })?;
        Ok(self.output.raw(text.as_bytes())?)
    }
}
