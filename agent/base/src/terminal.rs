//! Whether whoever reads a stream sees colours.

use std::env;
use std::io::IsTerminal;

/// Returns whether to print in colours: only on a terminal that has them, and where nobody asked for none (<https://no-color.org>). Each
/// stream is asked for itself: one of them may go to a file.
#[must_use]
pub fn colours(stream: &impl IsTerminal) -> bool {
    let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !dumb && !unwanted
}
