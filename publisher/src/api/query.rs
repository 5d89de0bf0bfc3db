//! The query strings of the API, written by the client and read by the server.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Deserialize;

use super::types::SessionState;
use super::{ApiError, ErrorCode, RemoveRequest, SessionFilter};
use crate::model::{Banned, Protocol, Published};

/// `?published=[::]:8080/tcp&kill=true` or `?all=true`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RemoveQuery {
    published: Option<String>,
    all: bool,
    kill: bool,
}

impl RemoveQuery {
    /// What is to end, and whether its sessions end too.
    pub(super) fn read(self) -> Result<(RemoveRequest, bool), ApiError> {
        let which = match (self.published, self.all) {
            (Some(published), false) => RemoveRequest::One(published.parse::<Published>()?),
            (None, true) => RemoveRequest::All,
            _ => {
                return Err(ApiError::new(
                    ErrorCode::Usage,
                    "either published=PUBLISHED or all=true must be given",
                ));
            }
        };
        Ok((which, self.kill))
    }

    pub(super) fn write(which: &RemoveRequest, kill: bool) -> String {
        let mut query = Query::default();
        match which {
            RemoveRequest::One(published) => query.push("published", published),
            RemoveRequest::All => query.push("all", true),
        }
        if kill {
            query.push("kill", true);
        }
        query.0
    }
}

/// `?protocol=tcp&client=2001:db8::5`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SessionQuery {
    protocol: Option<Protocol>,
    port: Option<u16>,
    client: Option<Ipv6Addr>,
    alias: Option<Ipv4Addr>,
    state: Option<SessionState>,
    publication: Option<u32>,
    limit: Option<u32>,
}

impl SessionQuery {
    pub(super) fn read(self) -> SessionFilter {
        let Self { protocol, port, client, alias, state, publication, limit } = self;
        SessionFilter { protocol, port, client, alias, state, publication, limit }
    }

    pub(super) fn write(filter: &SessionFilter) -> String {
        let SessionFilter { protocol, port, client, alias, state, publication, limit } = *filter;
        let mut query = Query::default();
        query.push_some("protocol", protocol);
        query.push_some("port", port);
        query.push_some("client", client);
        query.push_some("alias", alias);
        query.push_some("state", state);
        query.push_some("publication", publication);
        query.push_some("limit", limit);
        query.0
    }
}

/// `?port=40000`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WhoisQuery {
    pub(super) port: Option<u16>,
}

impl WhoisQuery {
    pub(super) fn write(port: Option<u16>) -> String {
        let mut query = Query::default();
        query.push_some("port", port);
        query.0
    }
}

/// `?who=2001:db8::/64`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BanQuery {
    pub(super) who: Banned,
}

impl BanQuery {
    pub(super) fn write(who: Banned) -> String {
        let mut query = Query::default();
        query.push("who", who);
        query.0
    }
}

/// A query string with its question mark, empty without a pair.
#[derive(Default)]
struct Query(String);

impl Query {
    fn push(&mut self, key: &str, value: impl ToString) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        for byte in value.to_string().bytes() {
            // The unreserved characters of RFC 3986 §2.3.
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                self.0.push(byte.into());
            } else {
                let _ = write!(self.0, "%{byte:02X}");
            }
        }
    }

    fn push_some(&mut self, key: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.push(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unreserved_characters_stand_for_themselves() {
        let one = |text: &str| RemoveRequest::One(text.parse().unwrap());
        assert_eq!(RemoveQuery::write(&one("8080"), false), "?published=8080%2Ftcp");
        assert_eq!(
            RemoveQuery::write(&one("[fe80::1%eth0]:1-2/udp"), true),
            "?published=%5Bfe80%3A%3A1%25eth0%5D%3A1-2%2Fudp&kill=true"
        );
        assert_eq!(RemoveQuery::write(&RemoveRequest::All, false), "?all=true");
        assert_eq!(SessionQuery::write(&SessionFilter::default()), "");
        assert_eq!(WhoisQuery::write(Some(7)), "?port=7");
    }

    #[test]
    fn one_or_all_never_both_and_never_neither() {
        let query = |published: Option<&str>, all| {
            RemoveQuery { published: published.map(Into::into), all, kill: false }.read()
        };
        assert!(query(Some("8080"), false).is_ok());
        assert!(query(None, true).is_ok());
        for wrong in [query(Some("8080"), true), query(None, false), query(Some("0"), false)] {
            assert_eq!(wrong.unwrap_err().code, ErrorCode::Usage);
        }
    }
}
