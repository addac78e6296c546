//! Writes `docs/compliance.md`.

use tests::{Failure, compliance};

fn main() {
    let written = compliance::table()
        .and_then(|table| std::fs::write(compliance::file(), table).map_err(Failure::from));
    if let Err(Failure(error)) = written {
        eprintln!("compliance: {error}");
        std::process::exit(1);
    }
}
