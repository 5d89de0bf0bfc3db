//! The columns of the tables, and the order of their rows.

use std::cmp::Reverse;
use std::net::Ipv6Addr;
use std::time::SystemTime;

use super::output::{Columns, or_dash};
use crate::api::types::{DropView, EventView, PublicationView, SessionView, WhoisView};
use crate::model::timestamp;

pub(super) const PUBLICATIONS: Columns<PublicationView> = Columns {
    name: |it| it.published().to_string(),
    short: &[
        ("PUBLISHED", |it| it.published().to_string()),
        ("TARGET", PublicationView::target_text),
        ("SOURCE", |it| or_dash(it.source.used.as_ref())),
        ("PATH", |it| it.path.to_string()),
        ("LINK", |it| or_dash(it.veth.as_ref().or(it.link.as_ref()))),
        ("SESSIONS", |it| it.sessions.to_string()),
    ],
    more: &[
        ("ID", |it| it.id.to_string()),
        ("ASKED", |it| match it.proxy_protocol {
            Some(version) => {
                format!("{} {} proxy-{version}", it.source.requested, it.path_requested)
            }
            None => format!("{} {}", it.source.requested, it.path_requested),
        }),
        ("ACCESS", |it| dash_if_empty(it.access.to_string())),
        ("LIMITS", |it| dash_if_empty(it.limits.to_string())),
        ("BRIDGE", |it| or_dash(it.veth.as_ref().and(it.link.as_ref()))),
        ("CREATED", |it| timestamp::format(it.created)),
        ("NOTES", |it| {
            let notes: Vec<_> = notes(it).collect();
            if notes.is_empty() { "-".to_owned() } else { notes.join("; ") }
        }),
    ],
};

/// Why a publication isn't as its owner may think: its source, its path, its warnings.
pub(super) fn notes(publication: &PublicationView) -> impl Iterator<Item = String> {
    let PublicationView { source, path, path_reason, warnings, .. } = publication;
    let source =
        source.used.zip(source.reason.as_ref()).map(|(used, why)| format!("source {used}: {why}"));
    let path = path_reason.as_ref().map(|why| format!("path {path}: {why}"));
    source.into_iter().chain(path).chain(warnings.iter().cloned())
}

pub(super) const SESSIONS: Columns<SessionView> = Columns {
    name: |it| endpoint(it.client, it.scope.as_deref(), Some(it.client_port)),
    short: &[
        ("PROTO", |it| it.protocol.to_string()),
        ("CLIENT", |it| endpoint(it.client, it.scope.as_deref(), Some(it.client_port))),
        ("HOST", |it| endpoint(it.host, None, Some(it.host_port))),
        ("ALIAS", |it| format!("{}:{}", it.alias, it.alias_port)),
        ("TARGET", |it| format!("{}:{}", it.target, it.target_port)),
        ("STATE", |it| it.state.to_string()),
        ("PATH", |it| it.path.to_string()),
        ("IDLE", |it| duration(it.idle_seconds)),
    ],
    more: &[
        ("AGE", |it| duration(it.age_seconds)),
        ("PUBLICATION", |it| it.publication.to_string()),
        ("UPLINK", |it| dash_if_empty(it.uplink.clone())),
        ("LINK", |it| dash_if_empty(it.link.clone())),
        ("PACKETS-IN", |it| it.packets_in.to_string()),
        ("BYTES-IN", |it| it.bytes_in.to_string()),
        ("PACKETS-OUT", |it| it.packets_out.to_string()),
        ("BYTES-OUT", |it| it.bytes_out.to_string()),
    ],
};

pub(super) const CLIENTS: Columns<WhoisView> = Columns {
    name: |it| endpoint(it.client, it.scope.as_deref(), it.client_port),
    short: &[
        ("ALIAS", |it| match it.port {
            Some(port) => format!("{}:{port}", it.alias),
            None => it.alias.to_string(),
        }),
        ("CLIENT", |it| match it.prefix_length {
            Some(length) => format!("{}/{length}", it.client),
            None => endpoint(it.client, it.scope.as_deref(), it.client_port),
        }),
        ("SESSIONS", |it| it.sessions.to_string()),
        ("SINCE", |it| or_dash(it.since.map(format_time).as_ref())),
        ("ENDED", |it| or_dash(it.ended.map(format_time).as_ref())),
    ],
    more: &[],
};

pub(super) const DROPS: Columns<DropView> = Columns {
    name: |it| it.reason.clone(),
    short: &[
        ("REASON", |it| it.reason.clone()),
        ("COUNT", |it| it.count.to_string()),
        ("MEANING", |it| it.meaning.clone()),
    ],
    more: &[],
};

/// By host address (every address first), then port, then protocol.
pub(super) fn sort_publications(rows: &mut [PublicationView]) {
    rows.sort_by_cached_key(|it| (it.published(), it.id));
}

/// By published port, then client.
pub(super) fn sort_sessions(rows: &mut [SessionView]) {
    rows.sort_by(|a, b| {
        let key = |it: &SessionView| {
            (it.protocol, it.host_port, it.host, it.client, it.client_port, it.alias, it.alias_port)
        };
        key(a).cmp(&key(b)).then_with(|| a.scope.cmp(&b.scope))
    });
}

/// Who is there first, then who has left, the last one first.
pub(super) fn sort_clients(rows: &mut [WhoisView]) {
    rows.sort_by(|a, b| {
        let key =
            |it: &WhoisView| (it.ended.map(Reverse), it.alias, it.port, it.client, it.client_port);
        key(a).cmp(&key(b)).then_with(|| a.scope.cmp(&b.scope))
    });
}

/// The most frequent first.
pub(super) fn sort_drops(rows: &mut [DropView]) {
    rows.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.reason.cmp(&b.reason)));
}

/// An event as a line for people.
pub(super) fn event(event: &EventView) -> String {
    let EventView { time, event, session, reason, count } = event;
    let mut line = format!("{} {event}", timestamp::format(*time));
    if let Some(count) = count {
        line.push_str(&format!(" {count} events"));
    }
    let Some(it) = session else { return line };
    line.push_str(&format!(
        " {} {} {} as {}:{} -> {}:{}",
        it.protocol,
        endpoint(it.client, it.scope.as_deref(), Some(it.client_port)),
        endpoint(it.host, None, Some(it.host_port)),
        it.alias,
        it.alias_port,
        it.target,
        it.target_port,
    ));
    if let Some(reason) = reason {
        let (bytes, time) = (it.bytes_in, duration(it.duration_seconds));
        line.push_str(&format!(" {reason} after {time}, {bytes} bytes in, {} out", it.bytes_out));
    }
    line.replace(char::is_control, " ")
}

/// `2001:db8::5`, or with a port `[2001:db8::5]:40000`.
fn endpoint(address: Ipv6Addr, scope: Option<&str>, port: Option<u16>) -> String {
    let address = match scope {
        Some(scope) => format!("{address}%{scope}"),
        None => address.to_string(),
    };
    match port {
        Some(port) => format!("[{address}]:{port}"),
        None => address,
    }
}

fn dash_if_empty(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn format_time(time: SystemTime) -> String {
    timestamp::format(time)
}

/// Two units at most: `7s`, `5m10s`, `2h4m`, `3d1h`.
pub(super) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{}m", minutes % 60),
        (days, hours, _) => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m0s"),
            (310, "5m10s"),
            (7440, "2h4m"),
            (86_400 * 3 + 3600, "3d1h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn endpoints() {
        let address = "fe80::1".parse().unwrap();
        assert_eq!(endpoint(address, None, None), "fe80::1");
        assert_eq!(endpoint(address, Some("eth0"), Some(7)), "[fe80::1%eth0]:7");
    }
}
