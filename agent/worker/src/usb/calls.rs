//! Which system calls a worker that serves a USB device may make once it has what is served, and why.

use sandboxing::libc;
use sandboxing::values::{GUARD, ROBUST_LIST, THREAD};
use sandboxing::{Call, Only, call};

use crate::standard::STANDARD;

/// `fcntl` with F_DUPFD_CLOEXEC.
const COPY: u64 = libc::F_DUPFD_CLOEXEC as u64;
/// CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, of which the kernel takes an `int`. Among the others is the processor time of every process of the host,
/// by its number, of which the kernel tells anybody.
const CLOCKS: &[u64] = &[0, 1, 7];
/// The signal by which the C library tells threads of a change of user: it sets its own handler when there is to be a second thread.
const CHANGE_OF_USER: u64 = 33;
/// `prctl` with PR_SET_NAME.
const SET_NAME: u64 = 15;
/// An open file is looked at, by its descriptor.
const BY_DESCRIPTOR: u64 = libc::AT_EMPTY_PATH as u64;
/// Both directions of a stream.
const BOTH: u64 = libc::SHUT_RDWR as u64;

/// What it asks for besides what every worker's standard library does, and besides ioctls. None opens, makes, maps or passes on a file, none makes a process or
/// a socket, none receives a descriptor.
pub(crate) const OWN: &[Call] = &[
    call!(SYS_poll, "waits for the VMM, the device and the agent"),
    call!(SYS_read, "the VMM's stream, the job, what wakes it, the node's descriptors"),
    call!(SYS_pread64, "the node's descriptors after a reset"),
    call!(SYS_write, "the VMM's stream, what wakes it"),
    call!(SYS_sendto, Only::Exactly(4, 0), "the channel and the VMM's stream, which are connected"),
    call!(SYS_recvfrom, "the channel and the VMM's stream"),
    call!(
        SYS_shutdown,
        Only::OneOf(1, &[BOTH]),
        "the VMM's stream, when its guest has the device no longer"
    ),
    call!(SYS_lseek, "the node's descriptors, from the beginning"),
    call!(
        SYS_statx,
        Only::Bits(&[(2, BY_DESCRIPTOR, BY_DESCRIPTOR)]),
        "the standard library, before it reads a file to its end"
    ),
    call!(SYS_fcntl, Only::OneOf(1, &[COPY]), "the node, for the library"),
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
        SYS_madvise,
        Only::OneOf(2, &[GUARD]),
        "the guard of a new thread's stack, from glibc 2.42 on"
    ),
    call!(SYS_rt_sigaction, Only::OneOf(0, &[CHANGE_OF_USER]), "start of the first thread"),
    call!(
        SYS_prctl,
        Only::Exactly(0, SET_NAME),
        "the library's thread has a name; the answer is `ENOSYS`: the kernel's log would have it in every line about this process"
    ),
    call!(SYS_exit, "end of a thread"),
    call!(SYS_sched_yield, "contended locks"),
    call!(SYS_clock_gettime, Only::OneOf(0, CLOCKS), "where the vDSO does not answer"),
    call!(SYS_restart_syscall, "a call resumed after a stop signal"),
];

/// Returns all of them but ioctls.
pub(super) fn calls() -> Vec<Call> {
    [OWN, STANDARD].concat()
}

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
pub(crate) const IOCTLS_OF_A_PART: &[(libc::c_ulong, &str)] = &{
    let [a, b, c, d, e, f, g] = OF_INTERFACES;
    [OF_EVERY_NODE, a, b, c, d, e, f, g]
};

/// What is asked of the node of a device that is served as it is.
pub(crate) const IOCTLS_OF_A_WHOLE: &[(libc::c_ulong, &str)] = &{
    let [a, b, c, d, e, f, g] = OF_INTERFACES;
    let reset = (0x5514, "USBDEVFS_RESET: the guest resets its device");
    let configuration = (0x8004_5505, "USBDEVFS_SETCONFIGURATION: the guest chooses one");
    [OF_EVERY_NODE, a, b, c, d, e, f, g, reset, configuration]
};
