//! What every part of the agent stands on. Nothing here knows of policies, domains or devices.
//!
//! | module | |
//! | --- | --- |
//! | [`mailbox`] | a thread and its mailbox: commands in, events out, and what is left when it dies |
//! | [`durable`] | files that survive a crash with their old content or their new one |
//! | [`sockets`] | Unix sockets that are never waited for |
//! | [`accounts`] | the host's users and groups, read from its own files |
//! | [`uevent`] | the kernel's word on devices that come and go |
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

pub mod accounts;
pub mod durable;
pub mod mailbox;
pub mod sockets;
pub mod uevent;
