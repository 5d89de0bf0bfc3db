//! `publisherctl deny`

use std::time::SystemTime;

use clap::Subcommand;

use super::columns::duration;
use super::ctl::{Command, Failure};
use super::output::{Columns, or_dash};
use crate::api::documents::{Bans, Document};
use crate::api::types::BanResult;
use crate::api::{ApiError, BanRequest};
use crate::model::{Ban, BanTime, Banned, timestamp};

/// What `deny` can do.
#[derive(Debug, Subcommand)]
pub(super) enum DenyVerb {
    /// Keep clients out of every publication, and end their sessions
    Add {
        /// Clients by their prefix or address, or the client behind an alias that a container sees
        #[arg(value_name = "CIDR|ALIAS[:PORT]")]
        who: String,
        /// For how long: 90s, 10m, 2h, 7d; a bare number is seconds [default: for good]
        #[arg(long = "for", value_name = "DURATION")]
        time: Option<String>,
    },
    /// Let them in again
    Rm {
        /// As it was written for `deny add`, or as `deny ls` shows it
        #[arg(value_name = "CIDR|ALIAS")]
        who: String,
    },
    /// List who is kept out
    Ls,
}

impl Command<'_, '_> {
    pub(super) async fn deny(&mut self, verb: DenyVerb) -> Result<(), Failure> {
        match verb {
            DenyVerb::Add { who, time } => self.deny_add(&who, time.as_deref()).await,
            DenyVerb::Rm { who } => self.deny_rm(&who).await,
            DenyVerb::Ls => {
                let mut rows = self.client.bans().await?;
                rows.sort_by_key(|ban| ban.clients);
                Ok(self.output.list(rows, &BANS, Bans::new)?)
            }
        }
    }

    async fn deny_add(&mut self, who: &str, time: Option<&str>) -> Result<(), Failure> {
        let who: Banned = who.parse().map_err(ApiError::from)?;
        let seconds = time.map(str::parse::<BanTime>).transpose().map_err(ApiError::from)?;
        let done = self.client.ban(&BanRequest { who, seconds }).await?;
        if self.output.is_json() {
            return Ok(self.output.json(&Document::new(done))?);
        }
        let BanResult { ban, again, ended } = &done;
        let again = if *again { ", in place of the ban before" } else { "" };
        let s = if *ended == 1 { "" } else { "s" };
        let until = until(ban);
        Ok(self.output.line(&format!("denied {ban} {until}{again}; {ended} session{s} ended"))?)
    }

    async fn deny_rm(&mut self, who: &str) -> Result<(), Failure> {
        let who: Banned = who.parse().map_err(ApiError::from)?;
        let gone = self.client.unban(who).await?;
        if self.output.is_json() {
            return Ok(self.output.list(gone, &BANS, Bans::new)?);
        }
        for ban in gone {
            self.output.line(&format!("no longer denied: {ban}"))?;
        }
        Ok(())
    }
}

fn until(ban: &Ban) -> String {
    ban.until
        .map_or_else(|| "for good".into(), |until| format!("until {}", timestamp::format(until)))
}

const BANS: Columns<Ban> = Columns {
    name: |it| it.clients.to_string(),
    short: &[
        ("CLIENTS", |it| it.clients.to_string()),
        ("ALIAS", |it| or_dash(it.alias.map(|alias| Banned::Alias(alias, it.alias_port)).as_ref())),
        ("UNTIL", |it| or_dash(it.until.map(timestamp::format).as_ref())),
        ("LEFT", |it| {
            let left = it.until.map(|until| until.duration_since(SystemTime::now()));
            or_dash(left.map(|left| duration(left.map_or(0, |it| it.as_secs()))).as_ref())
        }),
    ],
    more: &[("CREATED", |it| timestamp::format(it.created))],
};
