//! Ways out, by class: what each tries, and how it ends.

use libc::{c_long, c_ulong};
use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::Verdict::{Died, Out, Refused};
use super::deeds as d;
use super::function;
use super::limits::Allowlist;
use super::{FORBIDDEN, Role, Verdict, World, attempt};
use Errno::*;
use Role::*;

/// A way out of the sandbox, and how it ends in each role.
pub(super) struct Attempt {
    pub(super) what: &'static str,
    deed: fn(&World) -> Result<(), Errno>,
    /// Roles whose filter lets the call through, for they have a use for it, and how it ends there.
    /// Everywhere else it is [`FORBIDDEN`].
    pub(super) allowed: &'static [(Role, &'static [Verdict])],
    /// What stops it without any filter; more than one where it is the kernel's configuration.
    /// [`Out`] alone: nothing does.
    pub(super) bare: &'static [Verdict],
}

pub(super) const fn dies(
    what: &'static str,
    deed: fn(&World) -> Result<(), Errno>,
    bare: &'static [Verdict],
) -> Attempt {
    Attempt { what, deed, allowed: &[], bare }
}

pub(super) const fn ends(
    what: &'static str,
    deed: fn(&World) -> Result<(), Errno>,
    allowed: &'static [(Role, &'static [Verdict])],
    bare: &'static [Verdict],
) -> Attempt {
    Attempt { what, deed, allowed, bare }
}

const NO: &[Verdict] = &[Refused(EPERM)];
/// Not for it, and on some kernels for nobody.
const NEVER: &[Verdict] = &[Refused(EPERM), Refused(ENOSYS)];
pub(super) const NOT_THERE: &[Verdict] = &[Refused(ENOENT)];
/// Nothing but the filter.
pub(super) const OPEN: &[Verdict] = &[Out];
/// The kernel's configuration, or nothing but the filter.
const SITE: &[Verdict] = &[Out, Refused(EPERM), Refused(EACCES), Refused(ENOSYS), Refused(EINVAL)];
const CRASH: &[Verdict] = &[Died(Signal::SIGSEGV)];
const TOO_LONG: &[Verdict] = &[Refused(EFBIG)];

/// Every attempt, by the class that `docs/design/sandbox.md` lists it under.
pub(super) const CLASSES: &[(&str, &[Attempt])] = &[
    (
        "Files by name",
        &[
            dies(
                "reading `/etc/hostname`",
                |_| d::open("/etc/hostname", libc::O_RDONLY),
                NOT_THERE,
            ),
            dies(
                "reading the root directory",
                |_| d::open("/", libc::O_RDONLY),
                &[Refused(EACCES)],
            ),
            dies(
                "making a file",
                |_| d::open("/x", libc::O_RDWR | libc::O_CREAT),
                &[Refused(EROFS)],
            ),
            dies("making a device", |_| d::device("/x"), &[Refused(EROFS), Refused(EPERM)]),
            dies("opening by file handle", |_| d::open_by_handle(), NO),
            dies("another root directory", |_| d::with_path(libc::SYS_chroot, "/"), NO),
            dies(
                "the host's processes: `/proc/1/environ`",
                |_| d::open("/proc/1/environ", 0),
                NOT_THERE,
            ),
            dies("own memory: `/proc/self/mem`", |_| d::open("/proc/self/mem", 2), NOT_THERE),
            dies("the kernel's settings: `/sys/kernel`", |_| d::open("/sys/kernel", 0), NOT_THERE),
            dies("its cgroup", |_| d::open("/sys/fs/cgroup/cgroup.procs", 1), NOT_THERE),
            dies("the PC's memory: `/dev/mem`", |_| d::open("/dev/mem", 2), NOT_THERE),
            dies("another VM: `/dev/kvm`", |_| d::open("/dev/kvm", 2), NOT_THERE),
            dies("watching files", |_| d::plain(libc::SYS_fanotify_init, &[]), NO),
        ],
    ),
    (
        "Files by descriptor",
        &[
            dies("`..` of each open descriptor", d::parent_of_each, &[Refused(ENOTDIR)]),
            dies("entering each open descriptor", d::enter_each, &[Refused(ENOTDIR)]),
            dies("opening each anew in `/proc/self/fd`", d::anew, NOT_THERE),
            dies(
                "a file in a directory that was passed in",
                d::in_a_given_directory,
                &[Refused(EACCES)],
            ),
            dies("listing a directory that was passed in", d::list_a_given_directory, OPEN),
            ends(
                "making its disk's file longer by writing",
                d::write_beyond,
                &[(Main, TOO_LONG), (Vcpu, TOO_LONG), (Block, TOO_LONG), (Log, TOO_LONG)],
                &[Refused(EFBIG)],
            ),
            dies("making its disk's file longer at once", d::longer, &[Refused(EFBIG)]),
            dies("taking the host's blocks beyond its disk's end", d::allocate_beyond, OPEN),
            ends(
                "zeroing beyond its disk's end",
                d::zero_beyond,
                &[(Block, &[Refused(EFBIG), Refused(EOPNOTSUPP)])],
                &[Refused(EFBIG), Refused(EOPNOTSUPP)],
            ),
            dies("overwriting a log opened for appending", |_| d::change_flags(), OPEN),
            dies("signals to others by a descriptor's owner", d::own_signals, OPEN),
            dies(
                "another descriptor of the same",
                |w| d::plain(libc::SYS_dup, &[w.disk as u64]),
                OPEN,
            ),
            dies("copying from one to another past the VMM", d::send_file, &[Refused(EINVAL), Out]),
        ],
    ),
    (
        "Programs and executable memory",
        &[
            dies("a shell", |_| d::execute("/bin/sh"), NOT_THERE),
            dies("a program made in memory", |_| d::execute_memory(), OPEN),
            dies("mapping executable memory", |_| d::map_executable(), OPEN),
            dies("making memory executable", |_| d::make_executable(libc::SYS_mprotect), OPEN),
            dies(
                "the same by protection key",
                |_| d::make_executable(libc::SYS_pkey_mprotect),
                OPEN,
            ),
            dies(
                "executable wherever readable (`personality`)",
                |_| d::plain(libc::SYS_personality, &[0x0040_0000]),
                OPEN,
            ),
            ends(
                "jumping to data",
                |_| d::run_data(),
                &[(Main, CRASH), (Vcpu, CRASH), (Block, CRASH), (Screen, CRASH), (Log, CRASH)],
                CRASH,
            ),
            dies("16-bit segments (`modify_ldt`)", |_| d::plain(libc::SYS_modify_ldt, &[0]), SITE),
            dies("another ABI: `int 0x80`", |_| d::by_interrupt(), SITE),
        ],
    ),
    (
        "Sockets",
        &[
            // Landlock knows TCP from Linux 6.7 on; there is no network either.
            dies("a TCP connection", |_| d::tcp(), &[Refused(EACCES), Refused(ENETUNREACH)]),
            dies(
                "an abstract name outside of the VMM",
                |_| d::abstract_name(),
                &[Refused(ECONNREFUSED)],
            ),
            dies("the network's settings (netlink)", |_| d::socket(libc::AF_NETLINK), OPEN),
            dies("packets past the network stack", |_| d::socket(libc::AF_PACKET), NO),
            dies(
                "a channel to hosts of VMs (vsock)",
                |_| d::socket(libc::AF_VSOCK),
                &[Out, Refused(EAFNOSUPPORT)],
            ),
            dies(
                "the kernel's cryptography (`AF_ALG`)",
                |_| d::socket(libc::AF_ALG),
                &[Out, Refused(EAFNOSUPPORT)],
            ),
            dies("two connected sockets", |_| d::socket_pair(), OPEN),
            dies(
                "another address for a socket it has",
                |w| d::bind_abstract(w.listener),
                &[Refused(EINVAL)],
            ),
            dies("a packet to an address", |w| d::send_to_name(w.given), &[Refused(ECONNREFUSED)]),
            dies(
                "a handle on the other end's process",
                |w| d::peer(w.given),
                &[Out, Refused(ENODATA), Refused(ENOPROTOOPT)],
            ),
            dies("a socket's options", |w| d::options(w.listener), OPEN),
            dies("handing a descriptor out", |w| d::hand_out(w.given, w.disk), OPEN),
        ],
    ),
    (
        "Other processes",
        &[
            dies("tracing one", |w| d::plain(libc::SYS_ptrace, &[16, w.victim as u64]), NO),
            dies("being traced", |_| d::plain(libc::SYS_ptrace, &[0]), OPEN),
            dies("reading one's memory", |w| d::remote(libc::SYS_process_vm_readv, w.victim), NO),
            dies("writing one's memory", |w| d::remote(libc::SYS_process_vm_writev, w.victim), NO),
            dies("signalling one", |w| d::plain(libc::SYS_kill, &[w.victim as u64, 0]), NO),
            dies(
                "signalling one's thread",
                |w| d::plain(libc::SYS_tgkill, &[w.victim as u64, w.victim as u64, 0]),
                NO,
            ),
            dies("a signal with a message", d::queue_signal, NO),
            dies(
                "a handle on one",
                |w| d::plain(libc::SYS_pidfd_open, &[w.victim as u64, 0]),
                OPEN,
            ),
            dies("one's descriptors", d::take_descriptor, NO),
            dies("one's limits", d::limits, NO),
            dies("one's processors", d::processors, NO),
            dies("one's secrets compared (`kcmp`)", d::compare, NO),
            dies(
                "a process of its own",
                |_| d::plain(libc::SYS_clone, &[libc::SIGCHLD as u64]),
                OPEN,
            ),
            ends("a process by `clone3`", |_| d::clone3(), &[(Block, &[Refused(ENOSYS)])], OPEN),
            ends("a thread more", |_| d::thread(|| Ok(())), &[(Block, OPEN)], OPEN),
            dies(
                "what the filter forbids, on a thread more",
                |_| d::thread(|| d::open("/etc/hostname", libc::O_RDONLY)),
                NOT_THERE,
            ),
            dies("real-time priority", |_| d::real_time(), NO),
            dies("being root", |_| d::plain(libc::SYS_setuid, &[0]), NO),
            dies("capabilities", |_| d::capabilities(), NO),
            dies("being dumped and traced (`prctl`)", |_| d::plain(libc::SYS_prctl, &[4, 1]), OPEN),
        ],
    ),
    (
        "Namespaces and mounts",
        &[
            dies("a user namespace", |_| d::plain(libc::SYS_unshare, &[0x1000_0000]), OPEN),
            dies("a mount namespace", |_| d::plain(libc::SYS_unshare, &[0x0002_0000]), NO),
            dies("a process in a user namespace", |_| d::clone_into_user_namespace(), OPEN),
            dies("another's namespaces", d::join, NO),
            dies("mounting `/proc`", |_| d::mount("proc"), NO),
            dies("mounting cgroups", |_| d::mount("cgroup2"), NO),
            dies("mounting by descriptor", |_| d::with_path(libc::SYS_fsopen, "proc"), NO),
            dies("unmounting", |_| d::with_path(libc::SYS_umount2, "/"), NO),
            dies("the host's name", |_| d::with_path(libc::SYS_sethostname, "x"), NO),
        ],
    ),
    (
        "Keys and IPC",
        &[
            dies("the session's keys", |_| d::plain(libc::SYS_keyctl, &[0, u64::MAX - 2, 0]), SITE),
            dies("a key for others", |_| d::add_key(), SITE),
            dies("shared memory", |_| d::plain(libc::SYS_shmget, &[0, 4096, 0o1600]), OPEN),
            dies("message queues", |_| d::plain(libc::SYS_msgget, &[0, 0o1600]), OPEN),
            dies("semaphores", |_| d::plain(libc::SYS_semget, &[0, 1, 0o1600]), OPEN),
            dies("POSIX message queues", |_| d::message_queue(), SITE),
        ],
    ),
    (
        "The kernel",
        &[
            dies("io_uring", |_| d::io_uring(), SITE),
            dies("BPF", |_| d::bpf(), NEVER),
            dies("performance counters", |_| d::performance(), SITE),
            dies(
                "page faults handled in user space",
                |_| d::plain(libc::SYS_userfaultfd, &[1]),
                SITE,
            ),
            dies("its log", |_| d::plain(libc::SYS_syslog, &[10, 0, 0]), SITE),
            dies("a module", |_| d::plain(libc::SYS_init_module, &[0, 0, 0]), NEVER),
            dies(
                "a module from a file",
                |w| d::plain(libc::SYS_finit_module, &[w.disk as u64, 0, 0]),
                NEVER,
            ),
            dies(
                "another kernel (`kexec`)",
                |_| d::plain(libc::SYS_kexec_load, &[0, 0, 0, 0]),
                NEVER,
            ),
            dies("switching the PC off", |_| d::reboot(), NO),
            dies("setting the clock", |_| d::set_clock(), NO),
            dies("adjusting the clock", |_| d::adjust_clock(), NO),
            dies("swap", |_| d::with_path(libc::SYS_swapoff, "/x"), NEVER),
            dies("I/O ports", |_| d::plain(libc::SYS_iopl, &[3]), NEVER),
            dies(
                "merging its memory with others' (KSM)",
                |_| d::advise(libc::MADV_MERGEABLE),
                SITE,
            ),
            dies(
                "poisoning memory",
                |_| d::advise(libc::MADV_HWPOISON),
                &[Refused(EPERM), Refused(EINVAL)],
            ),
            dies("the host's huge pages", |_| d::huge_pages(), &[Refused(ENOMEM), Out]),
            dies("futexes that lend priority", |_| d::priority_futex(), OPEN),
        ],
    ),
    (
        "Devices it has",
        &[
            dies(
                "another interface for its tap",
                |w| d::ioctl(w.tap, 0x4004_54ca),
                &[Refused(EFAULT), Refused(EINVAL), Refused(EPERM)],
            ),
            dies("its tap for good (`TUNSETPERSIST`)", |w| d::ioctl(w.tap, 0x4004_54cb), OPEN),
            dies(
                "sharing its disk's blocks (`FICLONE`)",
                |w| d::ioctl(w.disk, 0x4004_9409),
                &[Refused(EBADF), Refused(EXDEV), Refused(EOPNOTSUPP)],
            ),
        ],
    ),
];

/// ioctl requests that no thread has a use for: of KVM, VFIO, tap, terminals, disks, processes.
pub(super) const IOCTLS: &[(&str, c_ulong)] = &[
    ("KVM_CREATE_VM", 0xae01),
    ("KVM_CREATE_VCPU", 0xae41),
    ("KVM_CREATE_DEVICE", 0xc00c_aee0),
    ("KVM_SET_NESTED_STATE", 0x4080_aebf),
    ("KVM_MEMORY_ENCRYPT_OP", 0xc008_aeba),
    ("KVM_SET_GUEST_DEBUG", 0x4048_ae9b),
    ("VFIO_SET_IOMMU", 0x3b66),
    ("VFIO_GROUP_SET_CONTAINER", 0x3b68),
    ("VFIO_GROUP_UNSET_CONTAINER", 0x3b69),
    ("VFIO_GROUP_GET_DEVICE_FD", 0x3b6a),
    ("VFIO_DEVICE_GET_REGION_INFO", 0x3b6c),
    ("VFIO_IOMMU_UNMAP_DMA", 0x3b72),
    ("VFIO_DEVICE_IOEVENTFD", 0x3b74),
    ("VFIO_DEVICE_FEATURE", 0x3b75),
    ("VFIO_DEVICE_BIND_IOMMUFD", 0x3b76),
    ("TUNSETIFF", 0x4004_54ca),
    ("TUNATTACHFILTER", 0x4010_54d5),
    ("TIOCSTI", 0x5412),
    ("TIOCLINUX", 0x541c),
    ("FICLONE", 0x4004_9409),
    ("BLKDISCARD", 0x1277),
    ("SG_IO", 0x2285),
    ("SIOCGIFCONF", 0x8912),
    ("FIOASYNC", 0x5452),
];

/// Calls that a filter must not allow, each of which some attempt finds.
pub(super) const PLANTED: &[(&str, c_long)] = &[
    ("openat", libc::SYS_openat),
    ("socket", libc::SYS_socket),
    ("execve", libc::SYS_execve),
    ("kill", libc::SYS_kill),
    ("ptrace", libc::SYS_ptrace),
    ("unshare", libc::SYS_unshare),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("mprotect", libc::SYS_mprotect),
    ("sendmsg", libc::SYS_sendmsg),
];

/// Families of sockets that a kernel can have (`AF_MAX`).
const FAMILIES: i32 = 46;

/// Finds the class, the attempt and the end of each that does not end as it must under a role's filter.
pub(super) fn findings<'a>(
    world: &'a World,
    role: Role,
    lists: &'a Allowlist,
) -> impl Iterator<Item = String> + 'a {
    let function = (function::CLASS, function::ATTEMPTS);
    let ways = CLASSES.iter().copied().chain([function]);
    let ways =
        ways.flat_map(move |(class, attempts)| findings_in(class, attempts, world, role, lists));
    let families = (0..FAMILIES).filter_map(move |family| {
        let verdict = attempt(|| lists.load(), || d::socket(family));
        let what = format!("{role:?}: a socket of family {family}: {verdict}");
        (verdict != FORBIDDEN).then_some(what)
    });
    ways.chain(families)
}

/// Finds the same of one class.
pub(super) fn findings_in<'a>(
    class: &'static str,
    attempts: &'static [Attempt],
    world: &'a World,
    role: Role,
    lists: &'a Allowlist,
) -> impl Iterator<Item = String> + 'a {
    attempts.iter().filter_map(move |it| {
        let verdict = attempt(|| lists.load(), || (it.deed)(world));
        let here = it.allowed.iter().find(|(which, _)| *which == role);
        let expected = here.map_or(&[FORBIDDEN][..], |(_, verdicts)| verdicts);
        let what = format!("{role:?}: {class}: {}: {verdict}", it.what);
        let as_said = if class == function::CLASS && world.function.stands_in {
            expected.contains(&FORBIDDEN) == (verdict == FORBIDDEN)
        } else {
            expected.contains(&verdict)
        };
        (!as_said).then_some(what)
    })
}

/// Finds what ends otherwise than it says where there is no filter.
pub(super) fn findings_without_filter(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    let function = (!world.function.stands_in).then_some((function::CLASS, function::ATTEMPTS));
    for (class, attempts) in CLASSES.iter().copied().chain(function) {
        for it in attempts {
            let verdict = attempt(|| (), || (it.deed)(world));
            if !it.bare.contains(&verdict) {
                found.push(format!("without a filter: {class}: {}: {verdict}", it.what));
            }
        }
    }
    found
}
