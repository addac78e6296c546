//! The entry function of the fuzz target `control_requests`.

use crate::commands::{Request, find};

/// Reads lines of the agent's control socket.
///
/// # Panics
/// A line is taken for a request that no command is.
pub fn requests(input: &[u8]) {
    for line in input.split(|byte| *byte == b'\n') {
        match Request::read(line) {
            Ok(request) => assert!(find(request.command().name).is_some(), "{line:?}"),
            Err(error) => drop(error.to_string()),
        }
    }
}
