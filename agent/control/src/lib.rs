//! The agent's control socket, `<runtime>/control.sock`: one JSON object a line each way, as [`commands`] has them. A refusal is
//! `{"ok":false,"error":TEXT}`.
//!
//! `start`, `stop` and `restart` answer once the wish is noted; `status` tells how far it is.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr)]
#![forbid(unsafe_code)]

#[macro_use]
pub mod table;

pub mod client;
pub mod commands;
pub mod protocol;
pub mod reports;
pub mod roles;
pub mod server;
#[cfg(test)]
mod tests;
