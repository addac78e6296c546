//! What the agent and `bulkhead-vmm` say to each other, screen and USB left out.
//!
//! ```text
//!   agent                                         VMM
//!     VmSpec, JSON on a descriptor  ---------->     what to run (--spec-fd; the command line makes the same type)
//!     Request, one JSON line        ---------->     status, power button, reset, stop, pause, resume
//!                                   <----------   Answer, one JSON line
//! ```
//!
//! [`spec`] has the virtual machine with its limits, [`command`] the control socket. Both are read with named caps, and neither end
//! believes the other: the VMM checks a specification as it checks a command line, and the agent takes an answer for an allegation.
#![warn(missing_docs)]
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

/// The last line of the log of a VMM that ends with status 0. Nobody but its parent is told the status, and an agent that took the VMM up
/// is not that.
pub const ENDED_IN_ORDER: &str = "bulkhead-vmm: ended in order";

pub mod command;
pub mod limits;
pub mod memory;
pub mod spec;
mod text;

pub use command::{Answer, Command, HungThread, Request, State, Status};
pub use memory::MemorySize;
pub use spec::{DiskSpec, NetSpec, PortSpec, SandboxSpec, SerialSpec, SpecError, VmSpec};
