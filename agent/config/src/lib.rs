//! The configuration of a ward PC: the machine file, the policy in force, and the files both come from.
//!
//! ```text
//!  machine.toml --> machine::Machine --+
//!                                      +--> configuration::Configuration --> daemon, doctor
//!  policy.toml ---> policy_store ------+
//! ```
//!
//! | module | |
//! | --- | --- |
//! | [`machine`] | the machine file: which hardware of this PC each domain has |
//! | [`policy_store`] | which policy is in force: signatures, serial, the last good one |
//! | [`domain_policies`] | what of the policy's domains the supervisor needs |
//! | [`cores`] | which processors each domain has to itself |
//! | [`configuration`] | both together: the policy's domains and the machine file's are the same |
//! | [`active`] | what is in force while an agent runs, and how another policy takes its place |
//! | [`entries`] | what the audit log says of policies |
//! | [`files`] | where the files and programs are, and how they are read |
//!
//! Reading changes nothing on the PC. Every mistake of a file is reported at once, with its place and remedy; a machine file with a mistake is refused as a
//! whole, and a policy that fails anything leaves the last good one in force.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

pub mod active;
pub mod configuration;
pub mod cores;
pub mod domain_policies;
pub mod entries;
pub mod files;
pub mod machine;
pub mod policy_store;
