//! Results on stdout: tables for people, JSON for programs.

use std::io::{self, Write};

use comfy_table::{Table, presets};
use serde::Serialize;

use super::args::{Format, GlobalArgs};
use crate::api::documents::Document;

/// Where results go, and how.
pub(super) struct Output<'a> {
    to: &'a mut dyn Write,
    pub(super) format: Format,
    /// The format that was asked for, if one was.
    pub(super) chosen: Option<Format>,
    pub(super) quiet: bool,
    headers: bool,
}

/// How the rows of a table are made: a header and a cell for each column.
pub(super) struct Columns<T: 'static> {
    /// What names a row: all that is left of it with `--quiet`.
    pub(super) name: fn(&T) -> String,
    /// The columns of the table.
    pub(super) short: &'static [Column<T>],
    /// The columns that `wide` puts behind them.
    pub(super) more: &'static [Column<T>],
}

/// A column: its header and a row's cell.
pub(super) type Column<T> = (&'static str, fn(&T) -> String);

impl<'a> Output<'a> {
    pub(super) fn new(to: &'a mut dyn Write, global: &GlobalArgs) -> Self {
        let GlobalArgs { host: _, output, quiet, no_headers } = global;
        Self {
            to,
            format: output.unwrap_or_default(),
            chosen: *output,
            quiet: *quiet,
            headers: !no_headers,
        }
    }

    /// Whether results are JSON.
    pub(super) fn is_json(&self) -> bool {
        matches!(self.format, Format::Json | Format::Ndjson)
    }

    /// Prints `rows`, which `whole` wraps for `json`.
    pub(super) fn list<T: Serialize, D: Serialize>(
        &mut self,
        rows: Vec<T>,
        columns: &Columns<T>,
        whole: impl FnOnce(Vec<T>) -> D,
    ) -> io::Result<()> {
        match self.format {
            Format::Json => self.json(&whole(rows)),
            Format::Ndjson => rows.into_iter().try_for_each(|row| self.json(&Document::new(row))),
            Format::Table | Format::Wide if self.quiet => {
                rows.iter().try_for_each(|row| writeln!(self.to, "{}", (columns.name)(row)))
            }
            Format::Table => self.table(&rows, &[columns.short]),
            Format::Wide => self.table(&rows, &[columns.short, columns.more]),
        }
    }

    /// Prints one document, on one line for `ndjson`.
    pub(super) fn json(&mut self, document: &impl Serialize) -> io::Result<()> {
        match self.format {
            Format::Ndjson => serde_json::to_writer(&mut *self.to, document)?,
            _ => serde_json::to_writer_pretty(&mut *self.to, document)?,
        }
        writeln!(self.to)
    }

    /// Prints a line of plain text, unless `--quiet`.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        if self.quiet { Ok(()) } else { writeln!(self.to, "{text}") }
    }

    /// Prints bytes as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)
    }

    /// Prints a table without borders.
    pub(super) fn table<T>(&mut self, rows: &[T], columns: &[&[Column<T>]]) -> io::Result<()> {
        let columns: Vec<_> = columns.iter().flat_map(|part| part.iter()).collect();
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if self.headers {
            table.set_header(columns.iter().map(|(header, _)| *header));
        }
        for row in rows {
            table.add_row(columns.iter().map(|(_, cell)| {
                // A name out of the kernel or the daemon must not move the cursor.
                cell(row).replace(char::is_control, " ")
            }));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        if self.headers || !rows.is_empty() {
            writeln!(self.to, "{}", table.trim_fmt())?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A cell for what may not be there.
pub(super) fn or_dash(text: Option<&impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), ToString::to_string)
}
