//! Manual pages and completions, out of the same description as the command lines themselves.

use std::io;
use std::path::Path;

use clap::CommandFactory as _;
use clap_mangen::Man;

use super::args::CtlArgs;
use super::daemon::DaemonArgs;

/// The manual page publisherctl(1).
pub(super) fn page() -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(CtlArgs::command()).render(&mut page)?;
    Ok(page)
}

/// Writes publisherctl(1), a page for each of its verbs, and publisherd(8) to `dir`.
pub(super) fn write_pages(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(CtlArgs::command(), dir)?;
    Man::new(DaemonArgs::command()).section("8").generate_to(dir)?;
    Ok(())
}

/// A completion script for `shell`.
pub(super) fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CtlArgs::command(), "publisherctl", &mut script);
    script
}
