//! Clipboards of guests that do not trust each other, and what may cross between them: one of the agent's mediators.
//!
//! ```text
//!  guest A --bytes--> reader: a process that sees A alone
//!                        |  what A says, as messages of few kinds
//!                        v
//!  hotkeys, answers --> mediator::ClipboardMediator --> vdagent::Outbox --bytes--> guest B
//!  policy ------------>  |            |         |
//!                        |            |         +--> audit events, words for people
//!                        |            +-- Job --> worker: a process that decodes one picture
//!                        v
//!                     clipboard_content: text and pictures, made fit to cross
//! ```
//!
//! A person copies in one desktop and pastes in another, each with a hotkey. The policy says what becomes of it, the reference monitor permits
//! it, and it is in the audit log before the other guest is offered anything.
//!
//! | module | what it does | I/O |
//! | --- | --- | --- |
//! | [`mediator`] | decides who may paste what, as a state machine; its caps and times are in [`mediator::limits`] | none |
//! | [`clipboard_content`] | is a crate of its own, as the command line's `explain` asks it too: has the policy judge content, sanitises text, and checks the picture that a worker made | none |
//! | [`grant`] | is what a permit allows: the content that may be sent to a guest, and there is no other way to it | none |
//! | [`vdagent`] | makes what is sent to a guest; what a guest sends is read by its reader, by the crate of the same name | none |
//! | [`operations`] | keeps what became of the command line's hotkeys | none |
//! | [`service`] | is the running mediator: a thread with the guests' sockets, the clock, the readers, and the processes that decode pictures | all there is |
//! | `fuzz` | has the entry functions of `agent/fuzz`; built for tests and with the feature `fuzzing` alone | none |
//!
//! - **What decides has no I/O.** Bytes, commands and the time are given to the mediator; [`service`] carries out what it says.
//! - **Nothing crosses without a hotkey**: no guest is asked for its clipboard, or offered another's, before one was pressed in it.
//! - **What a worker says is read by total functions**, as its guest's bytes are by the worker, and what is kept of it is bounded by a named cap.
//! - **No picture is decoded here**: a worker does that, and is believed nothing.
//!
//! Left out: formatted text, for which the guests' protocol has no type, and files, of which the names cross and nothing else.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod grant;
pub mod mediator;
pub mod operations;
pub mod service;
pub mod vdagent;
