//! `docs/design/sandbox.md`, of which each program's tests hold their part against its filters.
#![expect(clippy::unwrap_used, reason = "only tests call it")]

use std::path::Path;

/// Where the workers' part begins.
const WORKERS: &str = "\n## The workers' sandboxes, call by call\n";

/// A part of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What a VMM's threads may do, from the beginning of the document.
    Vmm,
    /// What each worker may do, to its end, below a heading of its own.
    Workers,
}

/// Holds a part of the document against this text, which is the part without its heading; with `BULKHEAD_WRITE` in the environment it is written first.
///
/// # Panics
/// The document says something else, which `command` mends.
pub fn hold(part: Part, text: &str, command: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/design/sandbox.md");
    let read = || std::fs::read_to_string(&path).unwrap();
    let split = |whole: String| {
        let (vmms, workers) = whole.split_once(WORKERS).unwrap_or((&whole, ""));
        (vmms.to_owned(), workers.to_owned())
    };
    if std::env::var_os("BULKHEAD_WRITE").is_some() {
        let (vmms, workers) = split(read());
        let whole = match part {
            Part::Vmm => [text, WORKERS, &workers],
            Part::Workers => [&vmms, WORKERS, text],
        };
        std::fs::write(&path, whole.concat()).unwrap();
    }
    let (vmms, workers) = split(read());
    let written = if part == Part::Vmm { vmms } else { workers };
    assert!(
        text == written,
        "run `BULKHEAD_WRITE=1 {command}` to write docs/design/sandbox.md anew"
    );
}
