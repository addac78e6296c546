//! The sandbox: closed after everything is open and before the guest's first instruction.
//!
//! The layers, and what each takes away, are the crate [`sandboxing`]'s. Here is what a VMM asks of them:
//! - It keeps standard streams, the specification's descriptor and what it has opened itself.
//! - No file grows beyond the longest that it writes, and it has at most [`FILES_MAX`] descriptors.
//! - Each thread has a filter of its own, by what it is for ([`Role`]). `docs/design/sandbox.md` lists each call with its reason, and
//!   what the escape tool (`machine::escape`) tries.
//!
//! Started by an ordinary user the VMM keeps that user and closes the other layers.

mod filter;
#[cfg(test)]
mod tests;

pub use filter::Role;
pub use sandboxing::SandboxError;

use sandboxing::{Landlock, Limits};
use vmm_control::SandboxSpec;

/// File descriptors a VMM ever holds: sixteen devices with their queues and vectors, and clients.
const FILES_MAX: u64 = 4096;

/// Closes the layers that belong to the whole process. Call with one thread only. No file is written
/// beyond `file_bytes_max` from here on: a VMM that was taken over can make each of its files as long as the
/// longest of them, and none longer.
pub fn enter(config: &SandboxSpec, file_bytes_max: u64) -> Result<(), SandboxError> {
    if !config.enabled {
        tracing::warn!("the sandbox is off: a guest that breaks out of the VMM has all its rights");
        return Ok(());
    }
    let limits = Limits {
        file_bytes: file_bytes_max,
        files: FILES_MAX,
        memory: None,
        processor_time: None,
        threads: None,
    };
    if sandboxing::enter(config.ids, &limits)? == Landlock::Missing {
        tracing::warn!("this kernel has no Landlock; the other layers of the sandbox stand");
    }
    Ok(())
}

/// Loads the calling thread's system call filter.
pub fn filter_thread(config: &SandboxSpec, role: Role) -> Result<(), SandboxError> {
    if config.enabled {
        load(role)?;
    }
    Ok(())
}

fn load(role: Role) -> Result<(), SandboxError> {
    sandboxing::load(role.calls(), role.ioctls().map(|(request, _)| request))
}
