//! Which thread may make which system call, and why.
//!
//! The lists of a [`Role`] hold what its threads run: a part of the VMM that makes system calls of
//! its own declares them beside its code (as `serial::SYSTEM_CALLS`), and every role that runs it
//! takes them from there. `machine::roles` drives every device from a thread of every role that
//! reaches it, with its filter on.

use libc::c_ulong;

use sandboxing::values::{
    ABORT, EXECUTABLE, FATAL, GIVEN_BACK, GUARD, IS_OPEN, ROBUST_LIST, THREAD, WAIT_AND_WAKE,
};
use sandboxing::{Call, Only, call};

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The event loop: devices without a thread of their own, control socket, signals, resets.
    Main,
    /// Runs a vCPU and answers its exits.
    Vcpu,
    /// Serves one block device.
    Block,
    /// Serves the screen.
    Screen,
    /// Writes the serial port's log.
    Log,
}

/// The first real-time signal that glibc leaves to programs, by which a vCPU is kicked.
const KICK: u64 = 34;
/// Huge pages are the host's, of which every guest's start takes its share.
const HUGE_PAGES: u64 = libc::MAP_HUGETLB as u64;
/// `fcntl` commands that change nothing: F_GETFD, F_GETFL.
const FLAGS: &[u64] = &[IS_OPEN, 3];
/// A hole that leaves the file as long as it is, and zeroes inside of the file: neither makes it longer, nor takes
/// blocks beyond its end.
const HOLE_AND_ZEROES: &[u64] = &[
    (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u64,
    libc::FALLOC_FL_ZERO_RANGE as u64,
];
/// Who is at the other end. No handle on that process (`SO_PEERPIDFD`).
const WHO_ASKS: &[u64] = &[libc::SO_PEERCRED as u64];

/// Needed by the runtime under every thread.
const RUNTIME: &[Call] = &[
    call!(SYS_futex, Only::OneOf(1, WAIT_AND_WAKE), "locks, waiting for a thread's end"),
    call!(
        SYS_mmap,
        Only::Without(&[(2, EXECUTABLE), (3, HUGE_PAGES)]),
        "memory allocator, BARs of functions, frame memory"
    ),
    call!(SYS_mprotect, Only::Without(&[(2, EXECUTABLE)]), "memory allocator"),
    call!(SYS_fcntl, Only::OneOf(1, FLAGS), "checks of the standard library's"),
    call!(SYS_tgkill, Only::OwnThreads(&[ABORT]), "abort path"),
    call!(SYS_read, "eventfds, files, sockets"),
    call!(SYS_write, "eventfds, log lines, sockets"),
    call!(SYS_sendto, Only::Exactly(4, 0), "log lines, connected sockets"),
    call!(SYS_close, "clients and file descriptors that are done with"),
    call!(SYS_munmap, "memory allocator, end of a thread's stack"),
    call!(SYS_mremap, "memory allocator"),
    call!(
        SYS_madvise,
        Only::OneOf(2, &[GIVEN_BACK, GUARD]),
        "memory allocator, end of a thread's stack; the guard of a new one's, from glibc 2.42 on"
    ),
    call!(SYS_brk, "memory allocator"),
    call!(SYS_rt_sigreturn, "end of a signal handler"),
    call!(
        SYS_rt_sigaction,
        Only::OneOf(0, FATAL),
        "the end by a memory fault or by an abort, which is reported as what it is"
    ),
    call!(SYS_rt_sigprocmask, "end of a thread"),
    call!(SYS_sigaltstack, "end of a thread"),
    call!(SYS_clock_gettime, "log time stamps where the vDSO does not answer"),
    call!(SYS_gettimeofday, "log time stamps where the vDSO does not answer"),
    call!(SYS_sched_yield, "contended locks"),
    call!(SYS_gettid, "abort path"),
    call!(SYS_getpid, "abort path, status"),
    call!(SYS_exit, "end of a thread"),
    call!(SYS_exit_group, "end of the VMM"),
    call!(SYS_restart_syscall, "a call resumed after a stop signal"),
    call!(SYS_rseq, "end of a thread"),
    call!(SYS_poll, "whether a log line can be written"),
];

const BLOCK: &[Call] = &[
    call!(SYS_epoll_wait, "event loop"),
    call!(SYS_epoll_pwait, "event loop"),
    call!(SYS_epoll_ctl, "event loop"),
    call!(SYS_preadv, "disk reads"),
    call!(SYS_pwritev2, "disk writes"),
    call!(SYS_pwrite64, "zeroes where the file system has no call for them"),
    call!(SYS_fdatasync, "flush"),
    call!(SYS_fallocate, Only::OneOf(1, HOLE_AND_ZEROES), "discard and write zeroes"),
    call!(SYS_clone, Only::Exactly(0, THREAD), "start of a helper: a thread, and no process"),
    call!(SYS_clone3, Only::Absent, "the C library then asks by `clone`, whose flags can be seen"),
    call!(SYS_set_robust_list, Only::Exactly(1, ROBUST_LIST), "start of a helper"),
    call!(SYS_sched_getaffinity, "start of a helper: the standard library looks for its stack"),
];

const SCREEN: &[Call] = &[
    call!(SYS_epoll_wait, "event loop"),
    call!(SYS_epoll_pwait, "event loop"),
    call!(SYS_epoll_ctl, "event loop"),
];

const LOG: &[Call] = &[
    call!(SYS_epoll_wait, "event loop"),
    call!(SYS_epoll_pwait, "event loop"),
    call!(SYS_epoll_ctl, "event loop"),
];

const VCPU: &[Call] = &[
    call!(SYS_pread64, "configuration space and BARs of passed-through functions"),
    call!(SYS_pwrite64, "configuration space and BARs of passed-through functions"),
    call!(SYS_timerfd_settime, "devices' timers"),
    call!(SYS_eventfd2, "a vector that is first used"),
];

const MAIN: &[Call] = &[
    call!(SYS_epoll_wait, "event loop"),
    call!(SYS_epoll_pwait, "event loop"),
    call!(SYS_epoll_ctl, "event loop"),
    call!(SYS_readv, "taps and sockets to guest memory"),
    call!(SYS_writev, "taps and sockets from guest memory"),
    call!(SYS_pread64, "loading the kernel again, passed-through functions' reset"),
    call!(SYS_pwrite64, "passed-through functions' reset"),
    call!(SYS_lseek, "loading the kernel again at a reset"),
    call!(SYS_accept4, "clients of the control socket and of console ports"),
    call!(SYS_recvfrom, "clients"),
    call!(SYS_recvmsg, "clients"),
    call!(SYS_shutdown, "clients"),
    call!(SYS_getsockopt, Only::OneOf(2, WHO_ASKS), "who wants the seat"),
    call!(SYS_getrandom, "the entropy device"),
    call!(SYS_timerfd_settime, "a USB device that does not answer"),
    call!(SYS_nanosleep, "waiting for a full serial port"),
    call!(SYS_clock_nanosleep, "waiting for a full serial port and for a device's reset"),
    call!(SYS_eventfd2, "a vector that is first used"),
    call!(SYS_tgkill, Only::OwnThreads(&[KICK]), "kicking a vCPU"),
];

/// ioctls of a thread that answers exits: what a device's registers can lead to. On the IOMMU's container two of
/// VFIO's numbers mean something else, VFIO_IOMMU_GET_INFO (0x3b70) and VFIO_IOMMU_MAP_DMA (0x3b71): they let the
/// guest's own functions reach memory of its own VMM, no other.
const IOCTL_DEVICES: &[(c_ulong, &str)] = &[
    (0x4020_ae76, "KVM_IRQFD: a vector masked or unmasked"),
    (0x4040_ae79, "KVM_IOEVENTFD: a BAR moved"),
    (0x4008_ae6a, "KVM_SET_GSI_ROUTING: a vector's message changed"),
    (0x4020_ae46, "KVM_SET_USER_MEMORY_REGION: a passed-through BAR moved"),
    (0x3b6d, "VFIO_DEVICE_GET_IRQ_INFO: a function's vectors"),
    (0x3b6e, "VFIO_DEVICE_SET_IRQS: a function's vectors"),
    (0x3b6f, "VFIO_DEVICE_RESET: a function's reset"),
    (0x3b70, "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: a function's reset"),
    (
        0x3b71,
        "VFIO_DEVICE_PCI_HOT_RESET: a function's reset; on the container the number is VFIO_IOMMU_MAP_DMA, which the filter cannot tell apart",
    ),
    (0x4004_54d0, "TUNSETOFFLOAD: the driver chose its offloads"),
];

const IOCTL_VCPU: &[(c_ulong, &str)] = &[
    (0xae80, "KVM_RUN: the guest runs"),
    (0x8138_ae83, "KVM_GET_SREGS: boot registers"),
    (0x4090_ae82, "KVM_SET_REGS: reset"),
    (0x4138_ae84, "KVM_SET_SREGS: reset"),
    (0x4008_ae89, "KVM_SET_MSRS: reset"),
    (0x41a0_ae8d, "KVM_SET_FPU: reset"),
    (0x5000_aea5, "KVM_SET_XSAVE: reset"),
    (0xaead, "KVM_KVMCLOCK_CTRL: going on after a pause"),
    (0x4400_ae8f, "KVM_SET_LAPIC: reset"),
    (0x4004_ae99, "KVM_SET_MP_STATE: reset"),
    (0x4040_aea0, "KVM_SET_VCPU_EVENTS: reset"),
    (0x4188_aea7, "KVM_SET_XCRS: reset"),
    (0x4080_aea2, "KVM_SET_DEBUGREGS: reset"),
];

const IOCTL_MAIN: &[(c_ulong, &str)] = &[
    (0x8208_ae63, "KVM_SET_IRQCHIP: reset"),
    (0x4018_aee1, "KVM_SET_DEVICE_ATTR: a passed-through function that the host wants back"),
    (0x5401, "TCGETS: giving the terminal back"),
    (0x5402, "TCSETS: giving the terminal back"),
    (0x5421, "FIONBIO: clients"),
];

impl Role {
    /// Every role that a thread of the VMM can have.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 5] =
        [Self::Main, Self::Vcpu, Self::Block, Self::Screen, Self::Log];

    /// Returns the system calls allowed, except ioctls. Of several entries for one call each allows its part.
    pub(crate) fn calls(self) -> impl Iterator<Item = Call> {
        let (own, shared): (&[_], &[_]) = match self {
            Self::Main => (MAIN, &[]),
            Self::Vcpu => (VCPU, crate::serial::SYSTEM_CALLS),
            Self::Log => (LOG, crate::serial::LOG_SYSTEM_CALLS),
            Self::Block => (BLOCK, &[]),
            Self::Screen => (SCREEN, &[]),
        };
        RUNTIME.iter().chain(own).chain(shared).copied()
    }

    /// Returns the ioctl requests allowed, each with its name and reason.
    pub(crate) fn ioctls(self) -> impl Iterator<Item = (c_ulong, &'static str)> {
        let (first, second): (&[_], &[_]) = match self {
            Self::Main => (IOCTL_DEVICES, IOCTL_MAIN),
            Self::Vcpu => (IOCTL_DEVICES, IOCTL_VCPU),
            // They serve queues; registers are answered by the vCPUs.
            Self::Block | Self::Screen | Self::Log => (&[], &[]),
        };
        first.iter().chain(second).copied()
    }
}
