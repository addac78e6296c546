//! What decodes a picture that crosses: see `worker`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    worker::main()
}
