//! What a ward PC is told: the machine file, the policy, and the files both come from.
//!
//! ```text
//!  machine.toml --> machine::Machine --+
//!                                      +--> configuration::Configuration --> daemon, doctor
//!  policy.toml ---> policy_store ------+
//! ```
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

pub mod configuration;
pub mod files;
pub mod machine;
pub mod policy_store;
pub mod roster;
