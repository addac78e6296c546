//! What the agent and the host's systemd do for each other. The units themselves lie beside this crate.
//!
//! ```text
//!  bulkhead-claim.service -----> claim: what the host's services keep off, at each boot
//!  bulkhead-rescue.service ----> a note of each boot without Bulkhead --> rescue: an audit event
//!  bulkhead-agent.service -----> service_manager: ready, alive, stopping    inhibitor: the PC is not to sleep
//! ```
//!
//! | module | |
//! | --- | --- |
//! | [`claim`] | files below `/run` by which network services, display manager, log-in and logind leave the domains what is theirs |
//! | [`service_manager`] | notifications, and the watchdog that is fed only while every thread comes round |
//! | [`inhibitor`] | the lock that keeps logind from having the PC sleep |
//! | [`rescue`] | boots without Bulkhead, for the audit log |
//!
//! Nothing here waits for systemd, and a host without it has no agent that fails for that.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr)]
#![forbid(unsafe_code)]

pub mod claim;
pub mod inhibitor;
pub mod rescue;
pub mod service_manager;
