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
//!
//! ```
//! use form::diagnostic::Source;
//! use form::document;
//!
//! let source = Source::new("ward.toml", "beds = 4\ncolor = \"red\"\n");
//! let beds = document::read(&source, |mut form| {
//!     let beds = form.required("beds", "beds = 4", |value| value.integer("beds", 1..=20));
//!     form.close();
//!     beds
//! });
//! // Nobody asked for `color`, so it is an unknown key.
//! let mistakes = beds.unwrap_err().to_string();
//! assert!(mistakes.contains("ward.toml:2:1"), "{mistakes}");
//! ```
//!
//! Reading is total and bounded: a text has a length at the most, a list a number of entries, and the diagnostics that are kept a number too. A text in which a
//! secret key stands is not read at all, and no report shows it.
//!
//! Left out: writing TOML, which `toml_edit` does where a file is changed (`setup`); what the keys mean, which is up to whoever reads the forms.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod diagnostic;
pub mod document;
pub mod effort;
pub mod version;
