//! The agent's control socket, `<runtime>/control.sock`: JSON lines by which `bulkhead` asks a running agent.
//!
//! ```text
//!  bulkhead --> client --one JSON object a line--> server --> roles: may this user ask?
//!                                                     |            | no: refused, in the audit log
//!                                                     |            v yes
//!                      <--one JSON object a line--  Answer <-- daemon, one method for each command
//! ```
//!
//! | module | |
//! | --- | --- |
//! | [`commands`] | the one table of commands: request, roles, what is recorded, help |
//! | [`table`] | the macro that makes requests, dispatch and documents of that table |
//! | [`roles`] | which groups of the host may ask for what |
//! | [`entries`] | what the audit log says of requests |
//! | [`budget`] | how often one user may ask for what changes something |
//! | [`server`], [`client`] | the two ends; neither waits for the other without a deadline |
//! | [`protocol`], [`reports`] | what is answered |
//! | [`findings`], [`setup_report`] | what `bulkhead-agent doctor` and `bulkhead-agent setup` say to the command line that started them |
//!
//! Who asks is what the kernel says of the socket's other end, not what the request says. A refusal is `{"ok":false,"error":TEXT}`.
//! `start`, `stop` and `restart` are answered when they have begun; `status` says how far they are.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr)]
#![forbid(unsafe_code)]

#[macro_use]
pub mod table;

pub mod budget;
pub mod client;
pub mod commands;
pub mod entries;
pub mod findings;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod protocol;
pub mod reports;
pub mod roles;
pub mod server;
pub mod setup_report;
#[cfg(test)]
mod tests;
