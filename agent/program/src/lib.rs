//! Updates of Bulkhead itself: its Debian package in a signed bundle, and how a ward PC installs one and goes back.
//!
//! ```text
//!  bulkhead_*.deb --pack--> bundle <--sign-- officers, whom the trust store allows to sign for `program`
//!                             |
//!                             '--install--> store --bulkhead-update.service--> dpkg, the agent restarted --> in force, or back
//! ```
//!
//! | module | |
//! | --- | --- |
//! | [`manifest`] | what is signed: serial, floor, version, architecture, size and digest |
//! | [`package`] | what a package says of itself |
//! | [`mod@pack`] | making a bundle |
//! | [`record`] | what is in force, before, or under way, and what may come; pure |
//! | [`store`] | the folder with the bundles and the record |
//! | [`install`] | what the commands do with it |
//! | [`update`] | installing, proving and going back, step by step |
//! | [`passing`] | why a package was not installed, and whether that passes; pure |
//! | `readiness` | whether a restarted agent works; pure |
//! | [`worked`] | what worked before, and has to work again; pure |
//! | [`host`] | dpkg and systemd of this PC |
//! | [`fuzz`] | the way in for fuzzing |
//! | [`notes`] | what was done, for the audit log |
//!
//! The file itself, whatever it brings, is [`images::container`]'s.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod fuzz;
pub mod host;
pub mod install;
pub mod manifest;
pub mod notes;
pub mod pack;
pub mod package;
pub mod passing;
mod readiness;
pub mod record;
pub mod store;
pub mod update;
pub mod worked;
