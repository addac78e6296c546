//! System calls of every worker's standard library.

use sandboxing::libc;
use sandboxing::values::{ABORT, EXECUTABLE, FATAL, GIVEN_BACK, IS_OPEN, WAIT_AND_WAKE};
use sandboxing::{Call, Only, call};

/// What decides what is mapped, and how: the kind of mapping (bits 0 to 3), and whatever takes memory that is not touched, cannot be given back, or is not
/// counted in the address space.
const MAPPING: u64 = 0xf
    | (libc::MAP_ANONYMOUS
        | libc::MAP_GROWSDOWN
        | libc::MAP_HUGETLB
        | libc::MAP_LOCKED
        | libc::MAP_POPULATE) as u64;
/// Memory of its own: no file, whatever the descriptor says, and nothing that stays when it is unmapped, as shared memory does of which one page is still mapped.
const OWN_MEMORY: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
/// Standard error, which goes nowhere by then.
const SAYS: u64 = 2;

/// Memory for this process alone, and its end.
pub(super) const STANDARD: &[Call] = &[
    call!(
        SYS_mmap,
        Only::Bits(&[(2, EXECUTABLE, 0), (3, MAPPING, OWN_MEMORY)]),
        "memory allocator"
    ),
    call!(SYS_mprotect, Only::Without(&[(2, EXECUTABLE)]), "memory allocator"),
    call!(SYS_munmap, "memory allocator"),
    call!(SYS_mremap, "memory allocator: what grows as it is written"),
    call!(SYS_madvise, Only::OneOf(2, &[GIVEN_BACK]), "memory allocator"),
    call!(SYS_brk, "memory allocator"),
    call!(SYS_getrandom, "keys of the standard library's hash tables"),
    call!(SYS_futex, Only::OneOf(1, WAIT_AND_WAKE), "locks of the standard library's"),
    call!(SYS_fcntl, Only::Exactly(1, IS_OPEN), "checks of the standard library's"),
    call!(SYS_close, "descriptors that are read to their end"),
    call!(SYS_write, Only::Exactly(0, SAYS), "a panic, which nobody hears"),
    call!(SYS_rt_sigprocmask, "abort path: memory that is not to be had"),
    call!(SYS_gettid, "abort path"),
    call!(SYS_getpid, "abort path"),
    call!(SYS_tgkill, Only::OwnThreads(&[ABORT]), "abort path"),
    call!(SYS_rt_sigaction, Only::OneOf(0, FATAL), "the end by a memory fault or by giving up"),
    call!(SYS_rt_sigreturn, "the end by a memory fault"),
    call!(SYS_sigaltstack, "the end of the program"),
    call!(SYS_exit_group, "the end of the program"),
];
