//! clap's own messages in the form of ours: one `error:` line, one `hint:` line.

use std::io::Write;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{Exit, Messages};

/// Says what `error` says; help and version on `stdout`, the rest as messages.
pub(super) fn report(
    error: &clap::Error,
    stdout: &mut dyn Write,
    messages: &mut Messages<'_>,
    program: &str,
) -> Exit {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            return match write!(stdout, "{text}") {
                Ok(()) => Exit::Ok,
                Err(_) => Exit::Failed,
            };
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            messages.error("no command given", Some(&format!("{program} --help lists them")));
            return Exit::Usage;
        }
        _ => {}
    }
    // A missing argument's name stands on the lines that follow.
    let mut lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
    let first = lines.next().unwrap_or("the command line makes no sense");
    let mut message = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    for more in lines {
        message.push(' ');
        message.push_str(more);
    }
    messages.error(&message, Some(&hint(error, program)));
    Exit::Usage
}

/// What was probably meant, or where to read.
fn hint(error: &clap::Error, program: &str) -> String {
    for kind in
        [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue]
    {
        match error.get(kind) {
            Some(ContextValue::String(meant)) => return format!("did you mean {meant}?"),
            Some(ContextValue::Strings(meant)) if !meant.is_empty() => {
                return format!("did you mean {}?", meant.join(" or "));
            }
            _ => {}
        }
    }
    format!("{program} --help")
}
