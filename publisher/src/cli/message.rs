//! Messages for people, on stderr: `error: …`, `hint: …`, `warning: …`, one line each.

use std::io::{IsTerminal, Write};

/// Whether messages are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// For files, pipes and terminals whose owner asked for it.
    Plain,
    /// For terminals.
    Coloured,
}

impl Style {
    /// Colour for a terminal, unless `NO_COLOR` is set to anything (<https://no-color.org>).
    pub fn of(stream: &impl IsTerminal) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        if stream.is_terminal() && !no_color && !dumb { Self::Coloured } else { Self::Plain }
    }
}

/// Where messages go.
pub struct Messages<'a> {
    to: &'a mut dyn Write,
    style: Style,
}

impl<'a> Messages<'a> {
    /// Messages to `to`, usually stderr.
    pub fn new(to: &'a mut dyn Write, style: Style) -> Self {
        Self { to, style }
    }

    /// `error: TEXT`, and `hint: HINT` if there is one.
    pub fn error(&mut self, text: &str, hint: Option<&str>) {
        self.line("31", "error", text);
        if let Some(hint) = hint {
            self.line("36", "hint", hint);
        }
    }

    /// `warning: TEXT`
    pub fn warning(&mut self, text: &str) {
        self.line("33", "warning", text);
    }

    fn line(&mut self, colour: &str, prefix: &str, text: &str) {
        // What a daemon, a file or a kernel says stays on its line and leaves the terminal alone.
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        // Nobody is left to be told that stderr is gone.
        let _ = match self.style {
            Style::Plain => writeln!(self.to, "{prefix}: {text}"),
            Style::Coloured => writeln!(self.to, "\x1b[1;{colour}m{prefix}:\x1b[0m {text}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(style: Style) -> String {
        let mut bytes = Vec::new();
        let mut messages = Messages::new(&mut bytes, style);
        messages.error("two\nlines \x1b[2J", Some("try"));
        messages.warning("careful");
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn one_line_each_and_no_control_characters() {
        assert_eq!(written(Style::Plain), "error: two lines  [2J\nhint: try\nwarning: careful\n");
    }

    #[test]
    fn only_the_prefix_is_coloured() {
        assert!(written(Style::Coloured).starts_with("\x1b[1;31merror:\x1b[0m two lines"));
    }
}
