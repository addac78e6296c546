//! Which system calls a worker that serves a USB device may make once it has what is served, and why.

use sandboxing::libc;
use sandboxing::{Call, Only, call};

const EXECUTABLE: u64 = libc::PROT_EXEC as u64;
/// What decides what is mapped, and how: the kind of mapping (bits 0 to 3), and whatever takes memory that is not touched, cannot be given back, or is not
/// counted in the address space.
const MAPPING: u64 = 0xf
    | (libc::MAP_ANONYMOUS
        | libc::MAP_GROWSDOWN
        | libc::MAP_HUGETLB
        | libc::MAP_LOCKED
        | libc::MAP_POPULATE) as u64;
/// Memory of its own: no file, and not the device's, whose node could be mapped.
const OWN_MEMORY: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
const GIVEN_BACK: u64 = libc::MADV_DONTNEED as u64;
/// `MADV_GUARD_INSTALL` (Linux 6.13), which is not in `libc` yet: touching these pages ends the process, and nothing else comes of it.
const GUARD: u64 = 102;
const ABORT: u64 = libc::SIGABRT as u64;
/// `fcntl` with F_GETFD, and with F_DUPFD_CLOEXEC: the node, for the library.
const IS_OPEN_AND_COPY: &[u64] = &[1, 1030];
/// CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, of which the kernel takes an `int`. Among the others is the processor time of every process of the host,
/// by its number, of which the kernel tells anybody.
const CLOCKS: &[u64] = &[0, 1, 7];
/// FUTEX_WAIT, FUTEX_WAKE and FUTEX_WAIT_BITSET, within the process (128) or not, by either clock (256).
const WAIT_AND_WAKE: &[u64] = &[0, 128, 1, 129, 9, 137, 265, 393];
/// What the standard library looks at when memory is touched that is not there, what ends a process that gives up, and the signal by which the C library
/// tells threads of a change of user: it sets its own handler when there is to be a second thread.
const HANDLED: &[u64] = &[libc::SIGSEGV as u64, libc::SIGBUS as u64, ABORT, 33];
/// What the C library asks of a thread: it shares memory, files, signal handlers and process with its starter, and has
/// its starter's filters. Any other flag, or one of these less, would be a process, a namespace, or a thread that the process does not own.
const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u64;
/// `prctl` with PR_SET_NAME.
const SET_NAME: u64 = 15;
/// Bytes of `struct robust_list_head`.
const ROBUST_LIST: u64 = 24;
/// An open file is looked at, by its descriptor.
const BY_DESCRIPTOR: u64 = libc::AT_EMPTY_PATH as u64;

/// All of them but ioctls. None opens, makes, maps or passes on a file, none makes a process or a socket, none receives a descriptor.
pub const CALLS: &[Call] = &[
    call!(SYS_poll, "waits for the VMM, the device and the agent"),
    call!(SYS_read, "the VMM's stream, the job, what wakes it, the node's descriptors"),
    call!(SYS_pread64, "the node's descriptors after a reset"),
    call!(SYS_write, "the VMM's stream, what wakes it; a panic, which nobody hears"),
    call!(SYS_sendto, Only::Exactly(4, 0), "the channel and the VMM's stream, which are connected"),
    call!(SYS_recvfrom, "the channel and the VMM's stream"),
    call!(SYS_shutdown, "the VMM's stream, when its guest has the device no longer"),
    call!(SYS_lseek, "the node's descriptors, from the beginning"),
    call!(
        SYS_statx,
        Only::Bits(&[(2, BY_DESCRIPTOR, BY_DESCRIPTOR)]),
        "the standard library, before it reads a file to its end"
    ),
    call!(SYS_epoll_create1, "the library's thread"),
    call!(SYS_epoll_ctl, "the library's thread: the node, a timer"),
    call!(SYS_epoll_wait, "the library's thread: transfers that have ended"),
    call!(SYS_epoll_pwait, "the library's thread: transfers that have ended"),
    call!(SYS_timerfd_create, Only::OneOf(0, CLOCKS), "control requests that take too long"),
    call!(SYS_timerfd_settime, "control requests that take too long"),
    call!(SYS_clone, Only::Exactly(0, THREAD), "the library's thread, and no process"),
    call!(SYS_clone3, Only::Absent, "the C library then asks by `clone`, whose flags can be seen"),
    call!(SYS_set_robust_list, Only::Exactly(1, ROBUST_LIST), "start of the library's thread"),
    call!(SYS_rseq, "start and end of the library's thread"),
    call!(
        SYS_sched_getaffinity,
        Only::Absent,
        "start of a thread: the C library tells of its processors beside its stack, if it can; of any process of the host the kernel answers"
    ),
    call!(
        SYS_prctl,
        Only::Exactly(0, SET_NAME),
        "the library's thread has a name; the answer is `ENOSYS`: the kernel's log would have it in every line about this process"
    ),
    call!(SYS_exit, "end of a thread"),
    call!(
        SYS_mmap,
        Only::Bits(&[(2, EXECUTABLE, 0), (3, MAPPING, OWN_MEMORY)]),
        "memory allocator, the thread's stack"
    ),
    call!(SYS_mprotect, Only::Without(&[(2, EXECUTABLE)]), "memory allocator"),
    call!(SYS_munmap, "memory allocator"),
    call!(SYS_mremap, "memory allocator"),
    call!(
        SYS_madvise,
        Only::OneOf(2, &[GIVEN_BACK, GUARD]),
        "memory allocator; the guard of a new thread's stack, from glibc 2.42 on"
    ),
    call!(SYS_brk, "memory allocator"),
    call!(SYS_getrandom, "keys of the standard library's hash tables, the memory allocator"),
    call!(SYS_futex, Only::OneOf(1, WAIT_AND_WAKE), "locks, and waiting for a control request"),
    call!(SYS_sched_yield, "contended locks"),
    call!(
        SYS_fcntl,
        Only::OneOf(1, IS_OPEN_AND_COPY),
        "the node; checks of the standard library's"
    ),
    call!(SYS_close, "the job, and the node in the end"),
    call!(SYS_clock_gettime, Only::OneOf(0, CLOCKS), "where the vDSO does not answer"),
    call!(SYS_restart_syscall, "a call resumed after a stop signal"),
    call!(SYS_rt_sigprocmask, "start and end of a thread, abort path"),
    call!(SYS_gettid, "abort path, the end of a thread"),
    call!(SYS_getpid, "abort path"),
    call!(SYS_tgkill, Only::OwnThreads(&[ABORT]), "abort path"),
    call!(
        SYS_rt_sigaction,
        Only::OneOf(0, HANDLED),
        "start of the first thread; the end by a memory fault or by giving up"
    ),
    call!(SYS_rt_sigreturn, "the end by a memory fault"),
    call!(SYS_sigaltstack, "start and end of a thread"),
    call!(SYS_exit_group, "the end of the program"),
];

/// What is asked of the node (`linux/usbdevice_fs.h`), of whatever share.
const OF_INTERFACES: [(libc::c_ulong, &str); 7] = [
    (0x8038_550a, "USBDEVFS_SUBMITURB: a transfer"),
    (0x4008_550d, "USBDEVFS_REAPURBNDELAY: a transfer that has ended"),
    (0x550b, "USBDEVFS_DISCARDURB: a transfer that the guest took back, or that takes too long"),
    (0x8004_550f, "USBDEVFS_CLAIMINTERFACE: an interface of its share"),
    (0x8004_5510, "USBDEVFS_RELEASEINTERFACE: an interface that is let go"),
    (0x8008_5504, "USBDEVFS_SETINTERFACE: an alternate setting"),
    (0x8004_5515, "USBDEVFS_CLEAR_HALT: an endpoint that was halted"),
];

/// USBDEVFS_CONTROL. Who waits for its answer may be beyond every signal, and without end.
const CONTROL: libc::c_ulong = 0xc018_5500;
const OF_EVERY_NODE: (libc::c_ulong, &str) = (
    CONTROL,
    "USBDEVFS_CONTROL: the library asks which configuration the device is in; the answer is `ENOSYS`, and the agent says it",
);

/// What the library asks for and can do without, as call, argument and value: the answer is `ENOSYS`. The lists have these, too: who asks lives on.
pub(super) const REFUSED: &[(libc::c_long, u8, u64)] =
    &[(libc::SYS_ioctl, 1, CONTROL), (libc::SYS_prctl, 0, SET_NAME)];

/// What is asked of the node of a device of which somebody else has the rest.
pub const IOCTLS_OF_A_PART: &[(libc::c_ulong, &str)] = &{
    let [a, b, c, d, e, f, g] = OF_INTERFACES;
    [OF_EVERY_NODE, a, b, c, d, e, f, g]
};

/// What is asked of the node of a device that is served as it is.
pub const IOCTLS_OF_A_WHOLE: &[(libc::c_ulong, &str)] = &{
    let [a, b, c, d, e, f, g] = OF_INTERFACES;
    let reset = (0x5514, "USBDEVFS_RESET: the guest resets its device");
    let configuration = (0x8004_5505, "USBDEVFS_SETCONFIGURATION: the guest chooses one");
    [OF_EVERY_NODE, a, b, c, d, e, f, g, reset, configuration]
};
