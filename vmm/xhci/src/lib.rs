//! An xHCI 1.0 host controller: the USB every guest has a driver for.
//!
//! Written from the eXtensible Host Controller Interface specification 1.2; numbers in brackets in
//! this crate are its sections. The devices are behind a trait, [`Backend`], one at each root hub
//! port; nothing here knows where they are.
//!
//! ```text
//!  vCPU: BAR 0 -> Controller { Registers, Port.., Slot { Endpoint.. } } -> Backend::submit
//!        doorbell -- notes that there is work, and returns
//!  event loop: Controller::step, again and again, a bounded piece of work each
//!        command ring -> Slot, Endpoint           transfer ring -> Transfer
//!  backend: Controller::complete, attach, detach ---> event ring -> Interrupt -> guest
//! ```
//!
//! | offered | |
//! | --- | --- |
//! | ports | some of USB 2, some of USB 3; hot-plug; reset, suspend and resume of the link |
//! | transfers | control, bulk, interrupt; split into chunks of [`spec::CHUNK_BYTES`] |
//! | events | one interrupter, up to [`spec::EVENT_SEGMENTS`] segments |
//!
//! Left out: isochronous endpoints (refused with a bandwidth error), streams, hubs, scratchpads, link
//! power management, the frame wrap event, bandwidth commands, state kept over a suspend.
//!
//! # Against hostile guests
//! A ring is followed for a bounded number of TRBs a step, and what is allocated for an endpoint is one
//! chunk; guest memory is reached through checked accesses only. A transfer ring, TRB or buffer that
//! makes no sense stops its endpoint with a TRB error; a command or event ring that makes none stops
//! the controller (USBSTS.HSE or HCE) until its driver resets it. See [`spec`] for the bounds.
//!
//! # What went wrong elsewhere
//! Other controllers of this kind hung with drives that keep many transfers going. One put an interrupt
//! off for the moderation interval and had no timer to make good for it, so the last event before a
//! pause was never announced: here no interrupt is put off (module `events`). Another waited for the
//! device's answer before it completed Stop Endpoint: here for a second at most (module `stopping`), as
//! only the answer says what was moved, and what is not known to have been moved would be moved twice.
#![warn(missing_docs)]
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "registers are halves and bytes of wider values; lengths and indices are checked"
)]

mod backend;
mod command;
mod context;
mod controller;
mod endpoint;
mod events;
mod function;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod memory;
mod port;
mod registers;
mod ring;
mod slot;
pub mod spec;
#[cfg(any(test, feature = "fuzzing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod trb;
mod worker;

pub use backend::{
    Backend, EndpointAddress, Interrupt, Moved, Payload, PortId, Request, Setup, Speed, Standard,
    Status, Transfer, TransferId,
};
pub use controller::{AttachError, Controller, Ports, Progress};
pub use function::{Error, XhciPci};
pub use memory::GuestMemory;
pub use worker::{Handle, XhciWorker};
