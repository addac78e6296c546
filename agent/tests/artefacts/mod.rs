//! Which programs are tested.

use std::path::{Path, PathBuf};

/// Returns a program under test: cargo's, or the one in the directory `BULKHEAD_ARTEFACTS`, which is how `scripts/test artefacts` tests what
/// goes onto a ward PC: statically linked, optimised, and built to end as it does there.
pub(crate) fn program(name: &str) -> PathBuf {
    if let Some(artefacts) = std::env::var_os("BULKHEAD_ARTEFACTS") {
        return Path::new(&artefacts).join(name);
    }
    PathBuf::from(match name {
        "bulkhead" => env!("CARGO_BIN_EXE_bulkhead"),
        "bulkhead-worker" => env!("CARGO_BIN_EXE_bulkhead-worker"),
        _ => env!("CARGO_BIN_EXE_bulkhead-agent"),
    })
}
