//! A TOML text that a person wrote, read as forms, with every mistake underlined and its remedy.
//!
//! The security office's `policy.toml` and trust store and IT's `machine.toml` are read by this one reader, so that a mistake in any of
//! them is reported in the same way.
//!
//! | module | |
//! | --- | --- |
//! | [`document`] | a text as a tree of [`Form`](document::Form)s and [`Value`](document::Value)s, each of which knows its place |
//! | [`diagnostic`] | what is wrong with a text, where, and what to write instead |
//! | [`version`] | which versions of Bulkhead read a key |
//! | [`effort`] | steps of work, counted for tests |
#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod diagnostic;
pub mod document;
pub mod effort;
pub mod version;
