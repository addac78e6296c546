//! Log lines, and other output to inherited streams, that never end, block or slow the process that
//! writes them. Used by the VMM and by the agent.
//!
//! ```text
//! tracing event -> limit per place in the code -> one line -> LineSink -> Outlet -> standard error
//!                        counts what it refuses       counts what it drops    never waits
//! ```
//!
//! - A guest can cause many lines, each at a few places in the code: every place has a limiter of
//!   its own, whoever wrote it and whether or not they thought of a guest. What was left out is
//!   counted and said by the next line of that place.
//! - Whoever reads the lines may be slow, stuck or gone. A line that cannot be written at once is
//!   dropped and counted, and the next one that is written says how many.
//! - A panic is one such line ([`install_panic_hook`]); nothing in a long-running program may print
//!   in another way (`clippy::print_stderr` is denied in them).
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

mod outlet;
mod sink;
mod subscriber;

use std::sync::OnceLock;
use std::time::Duration;

use printable::StyledPage;

pub use outlet::Outlet;
pub use sink::LineSink;
pub use subscriber::{LIMITED_BY_CALLER, init};

/// How long the last words of a process wait for their reader.
const FAREWELL: Duration = Duration::from_millis(500);

/// Standard error, once [`init`] has been called.
static SINK: OnceLock<LineSink> = OnceLock::new();
/// Whether that is systemd's journal, which takes a line's level from its beginning (sd-daemon(3)).
static IS_JOURNAL: OnceLock<bool> = OnceLock::new();

/// Returns how lines begin that say what has failed, and those that say what is missing; nothing where nobody reads it.
fn marks() -> [&'static str; 2] {
    if IS_JOURNAL.get() == Some(&true) { ["<3>", "<4>"] } else { ["", ""] }
}

/// Puts a mark before each line of a text.
fn marked(text: &str, mark: &str) -> String {
    let lines = text.split_inclusive('\n');
    lines.map(|line| format!("{mark}{line}")).collect()
}

/// Writes what a process has to say at its end, of any length, made fit for a terminal; waits half a
/// second for the reader at most.
pub fn write_last(text: impl Into<StyledPage>) {
    if let Some(sink) = SINK.get() {
        let [failed, _] = marks();
        let text = text.into();
        let text = String::from_utf8_lossy(text.as_bytes());
        sink.write_patiently(marked(&text, failed).as_bytes(), FAREWELL);
    }
}

/// Installs a panic hook that writes a panic as one line to standard error, like any other.
pub fn install_panic_hook(program: &'static str) {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let message = panic.payload_as_str().unwrap_or("no message").escape_debug();
        let line = match panic.location() {
            Some(place) => format!("{program}: thread {name} panicked at {place}: {message}\n"),
            None => format!("{program}: thread {name} panicked: {message}\n"),
        };
        if let Some(sink) = SINK.get() {
            let [failed, _] = marks();
            sink.write_in_panic(marked(&line, failed).as_bytes());
        }
    }));
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_line_of_a_text_is_marked_and_one_without_a_reader_for_marks_is_not() {
        assert_eq!(
            super::marked("no policy\n  -> write one\n", "<3>"),
            "<3>no policy\n<3>  -> write one\n"
        );
        assert_eq!(super::marked("", "<3>"), "");
        assert_eq!(super::marks(), ["", ""]);
    }
}
