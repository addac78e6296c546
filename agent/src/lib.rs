//! bulkhead-agent, the daemon of a ward PC, and bulkhead, its command line.
//!
//! ```text
//!  bulkhead --- control socket ---> daemon --- supervisor ---> bulkhead-vmm, one a domain
//!     |                               |            |
//!   doctor                       files, machine   pci::handover, host_network
//! ```
//! A guest is hostile, and so is its VMM: what comes from one is capped, has a deadline, and is
//! never waited for.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr)]
#![forbid(unsafe_code)]

pub mod cli;
pub mod configuration;
pub mod control;
pub mod daemon;
pub mod doctor;
pub mod files;
pub mod host_network;
pub mod layout;
pub mod machine;
pub mod pci;
pub mod policy_store;
pub mod recorder;
pub mod roster;
pub mod secrets;
pub mod supervisor;
mod terminal;
