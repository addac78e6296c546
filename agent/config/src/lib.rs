//! What people wrote for a ward PC, as it is read: the machine file, the policy, and who may sign one.
//!
//! | module | |
//! | --- | --- |
//! | [`machine`] | the machine file: which hardware of this PC each domain has |
//! | [`trust`] | which trust store counts: who may sign what |
//! | [`domain_policies`] | what of the policy's domains the supervisor needs |
//! | [`cores`] | which processors each domain has to itself |
//! | [`files`] | where the files and programs are, and how they are read |
//!
//! Reading changes nothing on the PC. Every mistake of a file is reported at once, with its place and remedy; a machine file with a mistake is refused as a
//! whole. What of it is in force is the crate `inforce`'s. The command line links this crate, so it depends on no mediator, not on the monitor, and on nothing that
//! hands PCI functions over.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

pub mod cores;
pub mod domain_policies;
pub mod files;
pub mod machine;
pub mod trust;
