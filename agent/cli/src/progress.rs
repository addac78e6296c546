//! How far a long copy is: one line on a terminal, written anew, and some lines where there is none.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clock::Moment;

use super::{Common, complain};

/// Between two looks on a terminal.
const OFTEN: Duration = Duration::from_millis(200);
/// Between two lines elsewhere, such as in the log of a deployment tool.
const SELDOM: Duration = Duration::from_secs(10);

/// The progress of something that takes long, as it is told on a terminal or in a log.
pub(crate) struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    terminal: bool,
    /// Whether nothing is printed, as JSON was asked for.
    silent: bool,
    said: Option<Moment>,
}

impl Progress {
    /// Begins with nothing of `total` bytes done. Nothing is said for scripts.
    pub(crate) fn new(common: &Common, what: &'static str, total: u64) -> Self {
        let terminal = io::stderr().is_terminal();
        Self { what, total, done: 0, terminal, silent: common.json, said: None }
    }

    /// Counts bytes, and says how far it is if that is due.
    pub(crate) fn add(&mut self, bytes: u64) {
        // What is read anew is counted again.
        self.done = self.done.saturating_add(bytes).min(self.total);
        let every = if self.terminal { OFTEN } else { SELDOM };
        if self.silent || self.said.get_or_insert_with(Moment::now).elapsed() < every {
            return;
        }
        self.said = Some(Moment::now());
        let percent = self.done.saturating_mul(100).checked_div(self.total).unwrap_or(100);
        let line = format!("{} {percent} % of {}", self.what, size(self.total));
        complain(&if self.terminal { format!("{line}   \r") } else { format!("{line}\n") });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && !self.silent && self.done > 0 {
            complain("\n");
        }
    }
}

/// Returns a size, for a person.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        _ => format!("{} MB", bytes.div_ceil(1_000_000)),
    }
}
