//! Failures as both sides of the socket name them.

use serde::{Deserialize, Serialize};

use crate::model::{Ban, Banned, Publication, PublicationSpec, Published, SourceMode, SpecError};
use crate::proxy::Occupied;

/// What kind of failure it is. Decides the HTTP status and `publisherctl`'s exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// It was tried and failed: HTTP 500, exit code 1.
    Failed,
    /// The request makes no sense: HTTP 400, exit code 2.
    Usage,
    /// What the request names isn't there: HTTP 404, exit code 4.
    NotFound,
    /// Something else is in the way: HTTP 409, exit code 5.
    Conflict,
    /// The caller, or the daemon itself, may not do this: HTTP 403, exit code 6.
    Permission,
}

impl ErrorCode {
    /// The HTTP status code.
    pub const fn status(self) -> u16 {
        match self {
            Self::Failed => 500,
            Self::Usage => 400,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Permission => 403,
        }
    }
}

/// A failure: one line that says what is wrong, and one that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct ApiError {
    /// Its kind.
    pub code: ErrorCode,
    /// One line, without a prefix.
    pub message: String,
    /// The next command to run, or what to change, without a prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ApiError {
    /// A failure of kind `code` without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// [`ErrorCode::Failed`] without a hint.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Failed, message)
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// `spec` can't be added: `owner` has a port of it.
    pub fn taken(spec: &PublicationSpec, owner: &Publication) -> Self {
        let (wanted, has) = (spec.published(), &owner.spec);
        let source = match has.source() {
            SourceMode::Auto => String::new(),
            source => format!(", source {source}"),
        };
        // The ports are repeated only where they aren't the ones that were asked for.
        let what = if has.published() == wanted {
            format!("→ {}{source}", has.target_endpoint())
        } else {
            format!("{} → {}{source}", has.published(), has.target_endpoint())
        };
        let (ports, are) = if wanted.ports.len() == 1 { ("port", "is") } else { ("ports", "are") };
        Self::new(
            ErrorCode::Conflict,
            format!(
                "{ports} {}/{} on [{}] {are} taken by publication {} ({what})",
                wanted.ports, wanted.protocol, wanted.host, owner.id
            ),
        )
        .with_hint(format!("publisherctl rm {}, or choose another port", has.published()))
    }

    /// A port that another process has.
    pub fn occupied(occupied: &Occupied) -> Self {
        Self::new(ErrorCode::Conflict, occupied.to_string()).with_hint(
            "stop it, or publish with --path kernel, which serves clients of uplinks beside it",
        )
    }

    /// There is no publication of exactly `published` to remove among `existing`.
    pub fn not_published(published: &Published, existing: &[Publication]) -> Self {
        let error = Self::new(ErrorCode::NotFound, format!("{published} is not published"));
        let near = existing.iter().map(|publication| publication.spec.published()).find(|other| {
            other.protocol == published.protocol && other.ports.overlaps(published.ports)
        });
        match near {
            Some(near) => error.with_hint(format!("did you mean publisherctl rm {near}?")),
            None => error.with_hint("publisherctl ls shows what is"),
        }
    }
}

impl ApiError {
    /// There is no ban by the name of `who` among `existing`.
    pub fn not_banned(who: &Banned, existing: &[Ban]) -> Self {
        let error = Self::new(ErrorCode::NotFound, format!("{who} is not denied"));
        // A longer or a shorter prefix may have been meant.
        let near = existing.iter().map(|ban| ban.clients).find(|ban| match who {
            Banned::Clients(who) => ban.contains(who.address()) || who.contains(ban.address()),
            Banned::Alias(..) => false,
        });
        match near {
            Some(near) => error.with_hint(format!("did you mean publisherctl deny rm {near}?")),
            None => error.with_hint("publisherctl deny ls shows who is"),
        }
    }
}

impl From<SpecError> for ApiError {
    fn from(error: SpecError) -> Self {
        Self { code: ErrorCode::Usage, message: error.to_string(), hint: error.hint() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::timestamp;

    fn spec(published: &str, target: &str, source: SourceMode) -> PublicationSpec {
        PublicationSpec::new(published.parse().unwrap(), target.parse().unwrap(), source).unwrap()
    }

    fn taken(wanted: &str, to: &str, owner: PublicationSpec) -> (String, String) {
        let owner = Publication { id: 3, generation: 1, spec: owner, created: timestamp::now() };
        let error = ApiError::taken(&spec(wanted, to, SourceMode::Auto), &owner);
        assert_eq!(error.code, ErrorCode::Conflict);
        (error.message, error.hint.unwrap())
    }

    #[test]
    fn a_conflict_names_its_owner_and_the_way_out() {
        assert_eq!(
            taken("8080", "172.17.0.3:80", spec("8080", "172.17.0.2:80", SourceMode::Auto)),
            (
                "port 8080/tcp on [::] is taken by publication 3 (→ 172.17.0.2:80)".into(),
                "publisherctl rm 8080/tcp, or choose another port".into()
            )
        );
        assert_eq!(
            taken(
                "[::1]:8005-8006",
                "172.17.0.3:1-2",
                spec("[::1]:8000-8010", "172.17.0.2:80-90", SourceMode::Gateway)
            ),
            (
                "ports 8005-8006/tcp on [::1] are taken by publication 3 \
                 ([::1]:8000-8010/tcp → 172.17.0.2:80-90, source gateway)"
                    .into(),
                "publisherctl rm [::1]:8000-8010/tcp, or choose another port".into()
            )
        );
    }

    #[test]
    fn what_is_not_published_may_be_misspelt() {
        let spec = spec("[::1]:8000-8010", "172.17.0.2:80-90", SourceMode::Auto);
        let existing = [Publication { id: 3, generation: 1, spec, created: timestamp::now() }];
        for (published, hint) in [
            ("8005", "did you mean publisherctl rm [::1]:8000-8010/tcp?"),
            ("8005/udp", "publisherctl ls shows what is"),
            ("8011", "publisherctl ls shows what is"),
        ] {
            let error = ApiError::not_published(&published.parse().unwrap(), &existing);
            assert_eq!((error.code, error.hint.as_deref()), (ErrorCode::NotFound, Some(hint)));
        }
    }

    #[test]
    fn codes_travel_as_words() {
        let json = serde_json::to_string(&ApiError::new(ErrorCode::NotFound, "x")).unwrap();
        assert_eq!(json, r#"{"code":"not_found","message":"x"}"#);
    }
}
