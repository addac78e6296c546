//! The agent's end of its workers: processes that see one thing each, and are believed nothing.
//!
//! ```text
//!  Program::read --> Process::start(role, stdin, stdout) --> bulkhead-worker, in its sandbox
//!                       |  pidfd: readable when it has ended
//!  Channel::pair -------+--> messages of one packet each, with descriptors from the agent alone
//! ```
//! | module | |
//! | --- | --- |
//! | [`program`] | the program, read once and started from memory |
//! | [`process`] | a process of it: started with two descriptors, killed when it is dropped |
//! | [`channel`] | the socket pair between a worker that lives on and the agent |
//! | [`group`] | the cgroup that workers enter |
//! | [`reserved_user`] | whether the numbers they run under are nobody else's |
//!
//! Nothing here knows what a worker does: that is up to the mediator that starts it, and to the messages in `worker_link`.
#![warn(missing_docs)]
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

pub mod channel;
pub mod group;
pub mod process;
pub mod program;
pub mod reserved_user;

pub use channel::Channel;
pub use process::Process;
pub use program::Program;
