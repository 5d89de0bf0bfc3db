//! `publisherctl`, the client of `publisherd`.

use std::io::{self, BufWriter};

use publisher::cli::{self, Exit, Style};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Exit {
    let mut stderr = io::stderr();
    let style = Style::of(&stderr);
    // Whole blocks: a list of sessions has many lines, and `run` flushes at the end.
    let mut stdout = BufWriter::new(io::stdout().lock());
    cli::run(std::env::args_os(), &mut stdout, &mut stderr, style).await
}
