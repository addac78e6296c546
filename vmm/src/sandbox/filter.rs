//! Which thread may make which system call, and why.
//!
//! The lists of a [`Role`] hold what its threads run: a part of the VMM that makes system calls of
//! its own declares them beside its code (as `serial::SYSTEM_CALLS`), and every role that runs it
//! takes them from there. `machine::roles` drives every device from a thread of every role that
//! reaches it, with its filter on.

use libc::{c_long, c_ulong};

use crate::system_call::{Call, Only, limited};

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

const EXECUTABLE: u64 = libc::PROT_EXEC as u64;
const ABORT: u64 = libc::SIGABRT as u64;
/// The first real-time signal that glibc leaves to programs, by which a vCPU is kicked.
const KICK: u64 = 34;
/// `fcntl` commands that change flags only: F_GETFD, F_SETFD, F_GETFL, F_SETFL.
const FLAGS: &[u64] = &[1, 2, 3, 4];

/// Needed by the runtime under every thread, and allowed in part.
const RUNTIME_LIMITED: &[Call] = &[
    limited(libc::SYS_mmap, Only::Without(2, EXECUTABLE), "memory allocator, BARs of functions"),
    limited(libc::SYS_mprotect, Only::Without(2, EXECUTABLE), "memory allocator"),
    limited(libc::SYS_fcntl, Only::OneOf(1, FLAGS), "file descriptors' flags"),
    limited(libc::SYS_tgkill, Only::OwnThreads(&[ABORT]), "abort path"),
];

/// Needed by the runtime under every thread.
const RUNTIME: &[(c_long, &str)] = &[
    (libc::SYS_futex, "locks"),
    (libc::SYS_read, "eventfds, files, sockets"),
    (libc::SYS_write, "eventfds, log lines, sockets"),
    (libc::SYS_sendto, "log lines, sockets"),
    (libc::SYS_close, "clients and file descriptors that are done with"),
    (libc::SYS_munmap, "memory allocator, end of a thread's stack"),
    (libc::SYS_mremap, "memory allocator"),
    (libc::SYS_madvise, "memory allocator, end of a thread's stack"),
    (libc::SYS_brk, "memory allocator"),
    (libc::SYS_rt_sigreturn, "end of a signal handler"),
    (libc::SYS_rt_sigprocmask, "end of a thread"),
    (libc::SYS_sigaltstack, "end of a thread"),
    (libc::SYS_clock_gettime, "log time stamps where the vDSO does not answer"),
    (libc::SYS_gettimeofday, "log time stamps where the vDSO does not answer"),
    (libc::SYS_sched_yield, "contended locks"),
    (libc::SYS_gettid, "abort path"),
    (libc::SYS_getpid, "abort path, status"),
    (libc::SYS_exit, "end of a thread"),
    (libc::SYS_exit_group, "end of the VMM"),
    (libc::SYS_restart_syscall, "a call resumed after a stop signal"),
    (libc::SYS_rseq, "end of a thread"),
    (libc::SYS_poll, "whether a log line can be written"),
];

const BLOCK: &[(c_long, &str)] = &[
    (libc::SYS_epoll_wait, "event loop"),
    (libc::SYS_epoll_pwait, "event loop"),
    (libc::SYS_epoll_ctl, "event loop"),
    (libc::SYS_preadv, "disk reads"),
    (libc::SYS_preadv2, "disk reads"),
    (libc::SYS_pwritev, "disk writes"),
    (libc::SYS_pwritev2, "disk writes"),
    (libc::SYS_pread64, "disk reads"),
    (libc::SYS_pwrite64, "disk writes"),
    (libc::SYS_readv, "disk reads"),
    (libc::SYS_fdatasync, "flush"),
    (libc::SYS_fsync, "flush"),
    (libc::SYS_fallocate, "discard and write zeroes"),
    (libc::SYS_lseek, "disk size"),
];

const SCREEN: &[(c_long, &str)] = &[
    (libc::SYS_epoll_wait, "event loop"),
    (libc::SYS_epoll_pwait, "event loop"),
    (libc::SYS_epoll_ctl, "event loop"),
];

const LOG: &[(c_long, &str)] = &[
    (libc::SYS_epoll_wait, "event loop"),
    (libc::SYS_epoll_pwait, "event loop"),
    (libc::SYS_epoll_ctl, "event loop"),
];

const VCPU: &[(c_long, &str)] = &[
    (libc::SYS_pread64, "configuration space and BARs of passed-through functions"),
    (libc::SYS_pwrite64, "configuration space and BARs of passed-through functions"),
    (libc::SYS_timerfd_settime, "devices' timers"),
    (libc::SYS_eventfd2, "a vector that is first used"),
];

const MAIN: &[(c_long, &str)] = &[
    (libc::SYS_epoll_wait, "event loop"),
    (libc::SYS_epoll_pwait, "event loop"),
    (libc::SYS_epoll_ctl, "event loop"),
    (libc::SYS_readv, "taps and sockets to guest memory"),
    (libc::SYS_writev, "taps and sockets from guest memory"),
    (libc::SYS_preadv, "loading the kernel again at a reset"),
    (libc::SYS_pread64, "loading the kernel again, passed-through functions' reset"),
    (libc::SYS_pwrite64, "passed-through functions' reset"),
    (libc::SYS_lseek, "loading the kernel again at a reset"),
    (libc::SYS_accept4, "clients of the control socket and of console ports"),
    (libc::SYS_recvfrom, "clients"),
    (libc::SYS_recvmsg, "clients"),
    (libc::SYS_sendmsg, "clients"),
    (libc::SYS_shutdown, "clients"),
    (libc::SYS_getsockopt, "clients"),
    (libc::SYS_getrandom, "the entropy device"),
    (libc::SYS_timerfd_settime, "a USB device that does not answer"),
    (libc::SYS_nanosleep, "waiting for a full serial port"),
    (libc::SYS_clock_nanosleep, "waiting for a full serial port and for a device's reset"),
    (libc::SYS_statx, "end of a memory map"),
    (libc::SYS_eventfd2, "a vector that is first used"),
];

const MAIN_LIMITED: &[Call] =
    &[limited(libc::SYS_tgkill, Only::OwnThreads(&[KICK]), "kicking a vCPU")];

/// ioctls of a thread that answers exits: what a device's registers can lead to.
const IOCTL_DEVICES: &[(c_ulong, &str)] = &[
    (0x4020_ae76, "KVM_IRQFD: a vector masked or unmasked"),
    (0x4040_ae79, "KVM_IOEVENTFD: a BAR moved"),
    (0x4008_ae6a, "KVM_SET_GSI_ROUTING: a vector's message changed"),
    (0x4020_ae46, "KVM_SET_USER_MEMORY_REGION: a passed-through BAR moved"),
    (0x3b6d, "VFIO_DEVICE_GET_IRQ_INFO"),
    (0x3b6e, "VFIO_DEVICE_SET_IRQS"),
    (0x3b6f, "VFIO_DEVICE_RESET"),
    (0x3b70, "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO"),
    (0x3b71, "VFIO_DEVICE_PCI_HOT_RESET"),
    (0x4004_54d0, "TUNSETOFFLOAD: the driver chose its offloads"),
];

const IOCTL_VCPU: &[(c_ulong, &str)] = &[
    (0xae80, "KVM_RUN"),
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
    /// Every role.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 5] =
        [Self::Main, Self::Vcpu, Self::Block, Self::Screen, Self::Log];

    /// System calls allowed, except ioctls. Of several entries for one call each allows its part.
    pub(super) fn calls(self) -> impl Iterator<Item = Call> {
        let (own, limited): (&[_], &[_]) = match self {
            Self::Main => (MAIN, MAIN_LIMITED),
            Self::Vcpu => (VCPU, crate::serial::SYSTEM_CALLS),
            Self::Log => (LOG, crate::serial::LOG_SYSTEM_CALLS),
            Self::Block => (BLOCK, &[]),
            Self::Screen => (SCREEN, &[]),
        };
        let whole = RUNTIME.iter().chain(own).map(|(number, why)| Call::any(*number, why));
        whole.chain(RUNTIME_LIMITED.iter().chain(limited).copied())
    }

    /// ioctl requests allowed.
    pub(super) fn ioctls(self) -> impl Iterator<Item = c_ulong> {
        let (first, second): (&[_], &[_]) = match self {
            Self::Main => (IOCTL_DEVICES, IOCTL_MAIN),
            Self::Vcpu => (IOCTL_DEVICES, IOCTL_VCPU),
            // They serve queues; registers are answered by the vCPUs.
            Self::Block | Self::Screen | Self::Log => (&[], &[]),
        };
        first.iter().chain(second).map(|(request, _)| *request)
    }
}
