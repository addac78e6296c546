//! The agent's control socket, `<runtime>/control.sock`: one JSON object a line each way, as [`commands`] has them. A refusal is
//! `{"ok":false,"error":TEXT}`.
//!
//! `start`, `stop` and `restart` answer once the wish is noted; `status` tells how far it is.

#[macro_use]
pub mod table;

pub mod client;
pub mod commands;
pub mod protocol;
pub mod roles;
pub mod server;
#[cfg(test)]
mod tests;
