//! What the agent and `bulkhead-vmm` say to each other, screen and USB left out.
//!
//! ```text
//!   agent                                         VMM
//!     VmSpec, JSON on a descriptor  ---------->     what to run (--spec-fd; the command line makes the same type)
//!     Request, one JSON line        ---------->     status, power button, reset, stop, pause, resume
//!                                   <----------   Answer, one JSON line
//! ```
//!
//! | module | |
//! | --- | --- |
//! | [`spec`] | the virtual machine: one type, whoever describes it, with what is refused and why |
//! | [`limits`] | how much of each there may be, once for both ends |
//! | [`memory`] | the size of a guest's memory, as people write it |
//! | [`command`] | the control socket: what may be asked, and what is answered |
//!
//! ```
//! use vmm_control::{Answer, Command, Request};
//!
//! let asked = Request { command: Command::PowerButton }.line();
//! assert_eq!(asked, b"{\"command\":\"power-button\"}\n");
//! assert_eq!(Request::read(&asked)?.command, Command::PowerButton);
//!
//! let refused = Answer::refused("it is paused already".to_owned());
//! assert_eq!(Answer::read(&refused.line())?, refused);
//! # Ok::<(), vmm_control::LineError>(())
//! ```
//!
//! Both are read with named caps, and neither end believes the other: the VMM checks a specification as it checks a command line, and the agent takes an
//! answer for an allegation. Unknown keys in what is asked are refused, so that an older VMM never leaves out in silence what
//! a newer agent asked for.
//!
//! Not here: the sockets themselves, and who may connect to them (`vmm::api`, `domains`).
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

pub use command::{Answer, Command, HungThread, LineError, Request, State, Status};
pub use memory::MemorySize;
pub use spec::{DiskSpec, NetSpec, PortSpec, SandboxSpec, SerialSpec, SpecError, VmSpec};
