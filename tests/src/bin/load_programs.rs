//! Loads every program of a BPF object, attaches none, and says what the kernel's verifier made of each.
//!
//! `load_programs OBJECT`: taken along into guests with old kernels. Exit status 1 when a program was refused, after the end of
//! the verifier's log.

use std::process::ExitCode;

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::{ProgramError, SchedClassifier};

/// Lines of the verifier's log that are shown.
const LOG_LINES: usize = 60;

fn main() -> ExitCode {
    match load_all() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns how many programs were refused.
fn load_all() -> Result<u32> {
    let path = std::env::args().nth(1).context("usage: load_programs OBJECT")?;
    let bytes = std::fs::read(&path).with_context(|| format!("read {path}"))?;
    let mut object = Ebpf::load(&bytes).context("load the object's maps")?;
    let mut refused = 0;
    for (name, program) in object.programs_mut() {
        let program: &mut SchedClassifier = program.try_into().context("not a classifier")?;
        match program.load() {
            Ok(()) => {
                let verified =
                    program.info().ok().and_then(|info| info.verified_instruction_count());
                let count = verified.map_or_else(|| "?".to_owned(), |count| count.to_string());
                println!("{name}: loaded, {count} instructions verified");
            }
            Err(ProgramError::LoadError { io_error, verifier_log }) => {
                refused += 1;
                let log = verifier_log.to_string();
                let lines: Vec<&str> = log.lines().collect();
                let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
                println!("{name}: refused: {io_error}\n{end}");
            }
            Err(error) => {
                refused += 1;
                println!("{name}: refused: {:#}", anyhow::Error::from(error));
            }
        }
    }
    Ok(refused)
}
