//! What every part of the agent stands on. Nothing here knows of policies, domains or devices.
//!
//! | module | |
//! | --- | --- |
//! | [`mailbox`] | a thread and its mailbox: commands in, events out, and what is left when it dies |
//! | [`layout`], [`defaults`] | which file and folder is where |
//! | [`state_volume`] | whether the state is on a volume of its own, and whether that is mounted |
//! | [`secrets`], [`terminal`] | no core dumps of secrets, who may read their files; whether a stream sees colours |
//! | [`durable`] | files that survive a crash with their old content or their new one |
//! | [`sockets`] | Unix sockets that are never waited for |
//! | [`programs`] | programs of the distribution, as an administrator runs them |
//! | [`accounts`] | the host's users and groups, read from its own files |
//! | [`uevent`] | the kernel's word on devices that come and go |
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

pub mod accounts;
pub mod defaults;
pub mod durable;
pub mod layout;
pub mod mailbox;
pub mod programs;
pub mod secrets;
pub mod sockets;
pub mod state_volume;
pub mod terminal;
pub mod uevent;
