//! `bulkhead-vmm`: see the library's documentation.

use std::process::ExitCode;

use clap::Parser;
use tracing::level_filters::LevelFilter;
use vmm::cli::{Cli, Command};
use vmm::machine;

/// The VMM failed.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    // Bad usage exits with status 2, help with 0.
    let Command::Run(args) = Cli::parse().command;
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::from(args.log_level))
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    match machine::run(&(*args).into()) {
        Ok(end) => {
            tracing::info!("{end}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bulkhead-vmm: {}", explain(&error));
            ExitCode::from(FAILED)
        }
    }
}

/// An error and all its causes on one line.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
