//! `bulkhead-vmm`: see the library's documentation.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr, clippy::print_stdout)]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use printable::explain;
use ratelimit::Rate;
use tracing::level_filters::LevelFilter;
use vmm::cli::{Cli, Command};
use vmm::machine::{self, ExitReason};
use vmm_control::ENDED_IN_ORDER;

const PROGRAM: &str = "bulkhead-vmm";
/// Exit status of a VMM that failed.
const FAILED: u8 = 1;
/// Lines from any one place in the code: a guest can make most of them.
const LINES: Rate = Rate { burst: 16, every: Duration::from_secs(60) };

fn main() -> ExitCode {
    // Bad usage exits with status 2, help with 0.
    let Command::Run(args) = Cli::parse().command;
    // Before anything is opened: what was left open by whoever started this is nobody's.
    if sandboxing::close_others(args.spec_fd()).is_err() {
        return ExitCode::from(FAILED);
    }
    logging::install_panic_hook(PROGRAM);
    if logging::init(LevelFilter::from(args.log_level), LINES).is_err() {
        // There is nobody to tell: standard error is closed.
        return ExitCode::from(FAILED);
    }
    let spec = match args.spec() {
        Ok(spec) => spec,
        Err(error) => {
            logging::write_last(format!("{PROGRAM}: {}\n", explain(&error)).as_str());
            return ExitCode::from(FAILED);
        }
    };
    match machine::run(&spec) {
        // What it had not yet written to its disks is lost: nobody may take that for an orderly end.
        Ok(end @ ExitReason::SwitchedOff) => {
            logging::write_last(format!("{PROGRAM}: {end}\n").as_str());
            ExitCode::from(FAILED)
        }
        Ok(end) => {
            tracing::info!("{end}");
            logging::write_last(format!("{ENDED_IN_ORDER}\n").as_str());
            ExitCode::SUCCESS
        }
        Err(error) => {
            logging::write_last(format!("{PROGRAM}: {}\n", explain(&error)).as_str());
            ExitCode::from(FAILED)
        }
    }
}
