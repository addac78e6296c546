//! The command line of a ward PC: see `agent::cli`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    agent::cli::main()
}
