//! Which system calls a worker that decodes may make once it has read its first byte, and why.

use sandboxing::{Call, call};

use crate::standard::STANDARD;

/// What it asks for besides what every worker's standard library does. None opens, makes, maps or passes on a file, none makes a process, a thread or a
/// socket, none waits for anybody else; memory is had for this process alone, and only within its address space.
pub(crate) const OWN: &[Call] = &[call!(SYS_read, "the job"), call!(SYS_pwrite64, "the answer")];

/// Returns all of them.
pub(super) fn calls() -> Vec<Call> {
    [OWN, STANDARD].concat()
}
