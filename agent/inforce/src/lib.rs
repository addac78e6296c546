//! What is in force on a ward PC: the policy and the machine file, checked against each other, and how another policy takes its place.
//!
//! ```text
//!  machine.toml --> config::machine --+
//!                                     +--> configuration::Configuration --> active::ActiveConfiguration --> daemon
//!  policy.toml ---> policy_store -----+                  |
//!  trust.toml ----> config::trust ----^                  +--> doctor
//! ```
//!
//! | module | |
//! | --- | --- |
//! | [`policy_store`] | which policy is in force: signatures, serial, the last good one; another is put in force with a permit of the monitor's alone |
//! | [`configuration`] | policy and machine file together: the domains of both are the same |
//! | [`active`] | what is in force while an agent runs, and how another policy takes its place |
//! | [`entries`] | what the audit log says of policies |
//!
//! A policy that fails anything leaves the last good one in force. What only reads what people wrote, as the command line does, is the crate `config`'s: it knows
//! nothing of the monitor.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

pub mod active;
pub mod configuration;
pub mod entries;
pub mod policy_store;
