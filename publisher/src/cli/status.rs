//! `publisherctl status` for people.

use std::io;

use super::columns::duration;
use super::output::{Column, Output, or_dash};
use crate::api::types::{
    EventsView, FeatureView, LinkView, ProgramView, StatusView, TableView, UplinkView,
};

/// Prints everything but the warnings, which are messages.
pub(super) fn print(status: &StatusView, output: &mut Output<'_>) -> io::Result<()> {
    let StatusView {
        version,
        layout,
        pid,
        uptime_seconds,
        uplinks,
        links,
        alias_pool,
        publications,
        tables,
        events,
        features,
        programs,
        warnings: _,
    } = status;
    output.line(&format!(
        "publisherd {version} (pid {pid}), up {}, map layout {layout}",
        duration(*uptime_seconds)
    ))?;
    let s = if *publications == 1 { "" } else { "s" };
    output.line(&format!("{publications} publication{s}, aliases out of {alias_pool}"))?;
    section(output, uplinks, UPLINKS)?;
    section(output, links, LINKS)?;
    section(output, tables, TABLES)?;
    if *events != EventsView::default() {
        let EventsView { lost, not_written } = events;
        output.line("")?;
        output
            .line(&format!("events lost: {lost}, not written to the log's file: {not_written}"))?;
    }
    section(output, features, FEATURES)?;
    section(output, programs, PROGRAMS)
}

fn section<T>(output: &mut Output<'_>, rows: &[T], columns: &[Column<T>]) -> io::Result<()> {
    if output.quiet || rows.is_empty() {
        return Ok(());
    }
    output.line("")?;
    output.table(rows, &[columns])
}

const UPLINKS: &[Column<UplinkView>] = &[
    ("UPLINK", |it| it.name.clone()),
    ("INDEX", |it| it.ifindex.to_string()),
    ("MTU", |it| it.mtu.to_string()),
    ("ATTACHED", |it| it.attach.to_string()),
    ("ETHERNET", |it| yes_or_no(it.ethernet)),
];

const LINKS: &[Column<LinkView>] = &[
    ("LINK", |it| it.name.clone()),
    ("KIND", |it| it.kind.to_string()),
    ("ATTACHED", |it| it.attach.to_string()),
];

const TABLES: &[Column<TableView>] = &[
    ("TABLE", |it| it.name.clone()),
    ("USED", |it| it.used.to_string()),
    ("CAPACITY", |it| it.capacity.to_string()),
    ("FULL", |it| match it.used.saturating_mul(100).checked_div(it.capacity) {
        Some(percent) => format!("{percent}%"),
        None => "-".to_owned(),
    }),
    ("MIB", |it| or_dash(it.memory_bytes.map(|bytes| bytes.div_ceil(1 << 20)).as_ref())),
];

const FEATURES: &[Column<FeatureView>] = &[
    ("FEATURE", |it| it.name.clone()),
    ("AVAILABLE", |it| yes_or_no(it.available)),
    ("MEANS", |it| it.means.clone()),
];

const PROGRAMS: &[Column<ProgramView>] = &[
    ("PROGRAM", |it| it.name.clone()),
    ("VERIFIED", |it| it.verified_instructions.to_string()),
    ("RUNS", |it| it.run_count.to_string()),
    ("NS/RUN", |it| match it.run_ns.checked_div(it.run_count) {
        Some(each) => each.to_string(),
        None => "-".to_owned(),
    }),
];

fn yes_or_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}
