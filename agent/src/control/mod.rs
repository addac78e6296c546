//! The agent's control socket, `<runtime>/control.sock`: one JSON object a line each way.
//!
//! | request | who | answer beyond `"ok": true` |
//! | --- | --- | --- |
//! | `{"command":"status"}` | user, it, officer | a [`protocol::StatusReport`] |
//! | `{"command":"start","domain":NAME}`, `restart`, `reset` | it | |
//! | `{"command":"stop","domain":NAME,"now":BOOL}` | it, officer | |
//!
//! `start`, `stop` and `restart` answer once the wish is noted; `status` tells how far it is.
//! A refusal is `{"ok":false,"error":TEXT}`.

pub mod client;
pub mod protocol;
pub mod roles;
pub mod server;
#[cfg(test)]
mod tests;
