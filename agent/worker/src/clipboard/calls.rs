//! Which system calls the reader of a guest's stream may make once it has read its first byte, and why.

use sandboxing::libc;
use sandboxing::{Call, Only, call};

use super::{CHANNEL, STREAM};
use crate::standard::STANDARD;

const STREAM_FD: u64 = STREAM as u64;
const CHANNEL_FD: u64 = CHANNEL as u64;
/// What is sent to the agent waits for it, and raises no signal if it is gone.
const SENDS: u64 = libc::MSG_NOSIGNAL as u64;
/// FALLOC_FL_PUNCH_HOLE and FALLOC_FL_KEEP_SIZE: no other mode, one of which takes memory.
const HOLE: u64 = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u64;
/// The one that it goes by. Among the others is the processor time of every process of the host, by its number, of which the kernel tells anybody.
const CLOCK: u64 = libc::CLOCK_BOOTTIME as u64;

/// What it asks for besides what every worker's standard library does. It reads its guest's stream and cannot write it: what can be sent goes to the channel,
/// and no call copies, passes on or receives a descriptor.
pub(crate) const OWN: &[Call] = &[
    call!(SYS_read, Only::Exactly(0, STREAM_FD), "the guest's stream"),
    call!(SYS_recvfrom, Only::Exactly(0, CHANNEL_FD), "the agent's commands"),
    call!(
        SYS_sendto,
        Only::Bits(&[(0, 0xffff_ffff, CHANNEL_FD), (3, 0xffff_ffff, SENDS)]),
        "what it has read, to the agent"
    ),
    call!(SYS_pwrite64, "content, to the file for it"),
    call!(SYS_fallocate, Only::Exactly(1, HOLE), "the memory of that content, given back"),
    call!(SYS_poll, "the wait for the guest and the agent"),
    call!(SYS_restart_syscall, "that wait, resumed after a stop signal"),
    call!(
        SYS_clock_gettime,
        Only::Exactly(0, CLOCK),
        "the guest's allowance where the vDSO does not answer"
    ),
];

/// Returns all of them.
pub(super) fn calls() -> Vec<Call> {
    [OWN, STANDARD].concat()
}
