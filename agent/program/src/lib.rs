//! Updates of Bulkhead itself: its Debian package in a signed bundle, and how a ward PC installs one and goes back.
//!
//! ```text
//!  bulkhead_*.deb --pack--> bundle <--sign-- officers, whom the trust store allows to sign for `program`
//! ```
//!
//! | module | |
//! | --- | --- |
//! | [`manifest`] | what is signed: serial, floor, version, architecture, size and digest |
//! | [`package`] | what a package says of itself |
//! | [`mod@pack`] | making a bundle |
//!
//! The file itself, whatever it brings, is [`images::container`]'s.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod manifest;
pub mod pack;
pub mod package;
