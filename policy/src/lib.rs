//! The separation policy: text in, decisions and explanations out.
//!
//! A policy says what may cross between the domains of a ward PC. It is one TOML text, written and signed by the security
//! office, the same on every PC. Everything is denied unless a rule allows it; in each list the first rule that matches
//! decides. `docs/security-office/policy-handbook.md` is the language's reference.
//!
//! ```text
//!             document          language           decide
//!  text ----> a TOML text  ---> rules with    ---> index, verdicts ----> the agent's mediators
//!   |         read as forms     their places  |       |
//!   |                                         +--> policy-tools: check, explain, diff, matrix
//!   +--> diagnostic: every mistake at once, underlined, with its remedy
//! ```
//!
//! This crate does nothing but compute: no file, no clock, no thread, no unsafe code. Reading, deciding and looking into
//! content are total, whatever they are given; a [`Policy`] exists only if its text was without error, so that a broken
//! policy cannot allow anything.
//!
//! ```
//! use policy::decide::Decision;
//! use policy::language::MediaType;
//! use policy::request::{ClipboardRequest, Context, Request};
//!
//! let policy = policy::Policy::parse("policy.toml", include_str!("../tools/src/starter.toml"))?;
//! let request = Request::Clipboard(ClipboardRequest {
//!     from: "clinical",
//!     to: "internet",
//!     media_type: MediaType::TextPlain,
//!     bytes: 10,
//! });
//! assert_eq!(policy.decide(&request, &Context::default()).decision(), Decision::Deny);
//! # Ok::<(), policy::diagnostic::Diagnostics>(())
//! ```
#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod carriage;
pub mod cleaning;
pub mod decide;
pub mod detect;
pub mod enforcement;
pub mod index;
pub mod language;
pub mod legible;
mod policy;
pub mod request;
pub mod signature;
mod terms;

pub use form::{diagnostic, document, version};
pub use policy::{FORMAT, Policy, SERIAL_MAX};
