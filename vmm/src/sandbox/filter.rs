//! Which thread may make which system call, and why.

use libc::{c_long, c_ulong};

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
}

/// Needed by the runtime under every thread.
const RUNTIME: &[(c_long, &str)] = &[
    (libc::SYS_futex, "locks"),
    (libc::SYS_read, "eventfds, files, sockets"),
    (libc::SYS_write, "eventfds, log lines, sockets"),
    (libc::SYS_writev, "log lines"),
    (libc::SYS_close, "clients and file descriptors that are done with"),
    (libc::SYS_mmap, "memory allocator"),
    (libc::SYS_munmap, "memory allocator, end of a thread's stack"),
    (libc::SYS_mremap, "memory allocator"),
    (libc::SYS_mprotect, "memory allocator"),
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
    (libc::SYS_tgkill, "kicking a vCPU, abort path"),
    (libc::SYS_exit, "end of a thread"),
    (libc::SYS_exit_group, "end of the VMM"),
    (libc::SYS_restart_syscall, "a call resumed after a stop signal"),
    (libc::SYS_rseq, "end of a thread"),
    (libc::SYS_poll, "whether an interrupt is pending"),
    (libc::SYS_eventfd2, "a vector that is first used"),
    (libc::SYS_fcntl, "file descriptors' flags"),
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
    (libc::SYS_sendto, "the link"),
];

const VCPU: &[(c_long, &str)] = &[
    (libc::SYS_pread64, "configuration space and BARs of passed-through functions"),
    (libc::SYS_pwrite64, "configuration space and BARs of passed-through functions"),
    (libc::SYS_timerfd_settime, "devices' timers"),
];

const MAIN: &[(c_long, &str)] = &[
    (libc::SYS_epoll_wait, "event loop"),
    (libc::SYS_epoll_pwait, "event loop"),
    (libc::SYS_epoll_ctl, "event loop"),
    (libc::SYS_readv, "taps and sockets to guest memory"),
    (libc::SYS_preadv, "loading the kernel again at a reset"),
    (libc::SYS_pread64, "loading the kernel again, passed-through functions' reset"),
    (libc::SYS_pwrite64, "passed-through functions' reset"),
    (libc::SYS_lseek, "loading the kernel again at a reset"),
    (libc::SYS_ftruncate, "a serial log that starts over"),
    (libc::SYS_accept4, "clients of the control socket and of console ports"),
    (libc::SYS_recvfrom, "clients"),
    (libc::SYS_recvmsg, "clients"),
    (libc::SYS_sendto, "clients"),
    (libc::SYS_sendmsg, "clients"),
    (libc::SYS_shutdown, "clients"),
    (libc::SYS_getsockopt, "clients"),
    (libc::SYS_getrandom, "the entropy device"),
    (libc::SYS_timerfd_settime, "a USB device that does not answer"),
    (libc::SYS_nanosleep, "waiting for a full serial port"),
    (libc::SYS_clock_nanosleep, "waiting for a full serial port and for a device's reset"),
    (libc::SYS_statx, "end of a memory map"),
];

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

/// `fcntl` commands that change flags only: F_GETFD, F_SETFD, F_GETFL, F_SETFL.
pub(super) const FCNTL: &[c_ulong] = &[1, 2, 3, 4];

impl Role {
    /// System calls allowed whatever their arguments, each with its reason.
    pub(super) fn calls(self) -> impl Iterator<Item = c_long> {
        let own = match self {
            Self::Main => MAIN,
            Self::Vcpu => VCPU,
            Self::Block => BLOCK,
            Self::Screen => SCREEN,
        };
        RUNTIME.iter().chain(own).map(|(number, _)| *number)
    }

    /// ioctl requests allowed.
    pub(super) fn ioctls(self) -> impl Iterator<Item = c_ulong> {
        let (first, second): (&[_], &[_]) = match self {
            Self::Main => (IOCTL_DEVICES, IOCTL_MAIN),
            Self::Vcpu => (IOCTL_DEVICES, IOCTL_VCPU),
            Self::Block | Self::Screen => (IOCTL_DEVICES, &[]),
        };
        first.iter().chain(second).map(|(request, _)| *request)
    }
}
