//! `cargo xtask demo`: publishes a container's port and fetches a page through it over IPv6.
//!
//! Everything happens in network namespaces of its own and is gone at the end, also after Ctrl-C or an error.

mod story;
mod tell;

use std::process::ExitCode;

use anyhow::Result;
use publisher_tests::{case, interrupt};

fn main() -> ExitCode {
    let docker = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--docker") => true,
        Some(other) => {
            eprintln!("error: unknown argument {other}");
            eprintln!("hint: cargo xtask demo [--docker]");
            return ExitCode::from(2);
        }
    };
    interrupt::watch();
    let outcome =
        case::attempt(|case| if docker { story::docker(case) } else { story::plain(case) });
    let left = tell::left_behind();
    tell::cleaned_up(&left);
    finish(outcome, left.is_empty())
}

fn finish(outcome: Result<()>, clean: bool) -> ExitCode {
    match outcome {
        // What an interrupted step says about itself is of no interest.
        _ if interrupt::happened() => {
            eprintln!("interrupted");
            ExitCode::from(130)
        }
        Ok(()) if clean => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
