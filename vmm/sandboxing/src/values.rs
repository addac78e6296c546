//! Values of arguments that the filters of more than one program name: what the C library, the standard library and the memory allocator ask for.

/// Memory from which programs run.
pub const EXECUTABLE: u64 = libc::PROT_EXEC as u64;
/// Pages that the memory allocator gives back.
pub const GIVEN_BACK: u64 = libc::MADV_DONTNEED as u64;
/// `MADV_GUARD_INSTALL` (Linux 6.13), which is not in `libc` yet: touching these pages ends the process, and nothing else comes of it.
pub const GUARD: u64 = 102;
/// What a process that gives up sends itself.
pub const ABORT: u64 = libc::SIGABRT as u64;
/// The standard library looks at the first two first, for stacks that are full, and then gives them up. `abort` gives up the third: the first
/// process of a PID namespace, which a VMM is, gets it neither way, and ends by the fault that `abort` ends with.
pub const FATAL: &[u64] = &[libc::SIGSEGV as u64, libc::SIGBUS as u64, ABORT];
/// `fcntl` with F_GETFD.
pub const IS_OPEN: u64 = libc::F_GETFD as u64;
/// FUTEX_WAIT, FUTEX_WAKE and FUTEX_WAIT_BITSET, within the process (128) or not, by either clock (256). None that
/// hands a waiter from one lock to another or lends it a priority.
pub const WAIT_AND_WAKE: &[u64] = &[0, 128, 1, 129, 9, 137, 265, 393];
/// What the C library asks of a thread: it shares memory, files, signal handlers and process with its starter, and has
/// its starter's filters. Any other flag, or one of these less, would be a process, a namespace, or a thread that the process does not own.
pub const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u64;
/// Bytes of `struct robust_list_head`.
pub const ROBUST_LIST: u64 = 24;
