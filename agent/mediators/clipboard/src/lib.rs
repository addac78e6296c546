//! Clipboards of guests that do not trust each other, and what may cross between them. Without I/O.
//!
//! ```text
//!  guest A --bytes--> vdagent::Reader --+                      +--> vdagent::Outbox --bytes--> guest B
//!                                       v                      |
//!  hotkeys, answers ------------> mediator::Mediator -----------+--> audit events, words for people
//!                                       |
//!  policy ------------------------------+--> content: text and pictures, made fit to cross
//! ```
//! [`mediator`] decides, [`vdagent`] speaks the guests' protocol, [`content`] looks at what crosses, [`operations`] keeps
//! what became of the command line's hotkeys. Whoever has the sockets, the
//! clock and the audit log carries out what the mediator says.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

pub mod content;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod judgement;
pub mod mediator;
pub mod operations;
pub mod service;
pub mod vdagent;
