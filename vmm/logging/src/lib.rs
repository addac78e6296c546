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

/// Writes what a process has to say at its end, of any length, made fit for a terminal; waits half a
/// second for the reader at most.
pub fn write_last(text: impl Into<StyledPage>) {
    if let Some(sink) = SINK.get() {
        sink.write_patiently(text.into().as_bytes(), FAREWELL);
    }
}

/// Has a panic be one line on standard error from here on, written like any other.
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
            sink.write_in_panic(line.as_bytes());
        }
    }));
}
