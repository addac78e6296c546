//! What the attempts do: raw system calls, as somebody who runs code of theirs would make them.

use std::ffi::CString;

use libc::c_long;
use nix::errno::Errno;

use super::limits::call;
use super::{ABSTRACT, World};

pub(super) const PAGE: u64 = 4096;
/// Far beyond any disk: 1 TiB.
const FAR: u64 = 1 << 40;
const HERE: u64 = libc::AT_FDCWD as u64;

/// Makes a system call of which it only counts whether it succeeds.
pub(super) fn plain(number: c_long, arguments: &[u64]) -> Result<(), Errno> {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    call(number, all).map(drop)
}

pub(super) fn at<T>(what: &T) -> u64 {
    std::ptr::from_ref(what) as u64
}

fn text(text: &str) -> CString {
    CString::new(text).unwrap()
}

/// Makes a call that takes a path first.
pub(super) fn with_path(number: c_long, path: &str) -> Result<(), Errno> {
    plain(number, &[text(path).as_ptr() as u64, 1])
}

pub(super) fn open(path: &str, flags: i32) -> Result<(), Errno> {
    plain(libc::SYS_openat, &[HERE, text(path).as_ptr() as u64, flags as u64, 0o600])
}

pub(super) fn device(path: &str) -> Result<(), Errno> {
    let first_disk = 0x0800;
    let mode = libc::S_IFBLK | 0o600;
    plain(libc::SYS_mknodat, &[HERE, text(path).as_ptr() as u64, mode.into(), first_disk])
}

pub(super) fn open_by_handle() -> Result<(), Errno> {
    let handle = [8u32, 1, 2, 0];
    plain(libc::SYS_open_by_handle_at, &[HERE, at(&handle), 0])
}

/// Returns the last refusal, if each is one.
fn none_of(descriptors: &[i32], deed: impl Fn(u64) -> Result<(), Errno>) -> Result<(), Errno> {
    descriptors
        .iter()
        .try_fold(Errno::EBADF, |_, fd| match deed(*fd as u64) {
            Ok(()) => Err(()),
            Err(errno) => Ok(errno),
        })
        .map_or(Ok(()), Err)
}

pub(super) fn parent_of_each(world: &World) -> Result<(), Errno> {
    none_of(&world.open, |fd| {
        plain(libc::SYS_openat, &[fd, text("../etc/hostname").as_ptr() as u64, 0, 0])
    })
}

pub(super) fn enter_each(world: &World) -> Result<(), Errno> {
    none_of(&world.open, |fd| plain(libc::SYS_fchdir, &[fd]))
}

pub(super) fn anew(world: &World) -> Result<(), Errno> {
    none_of(&world.open, |fd| open(&format!("/proc/self/fd/{fd}"), libc::O_RDWR))
}

/// Takes a descriptor of a directory that somebody passes in; it stays there for who comes next.
fn take_directory(world: &World) -> Result<u64, Errno> {
    let mut byte = 0u8;
    let mut control = [0u64; 4];
    // SAFETY: all zeroes is a valid, empty header.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    let mut vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    plain(libc::SYS_recvmsg, &[world.given as u64, at(&header), libc::MSG_PEEK as u64])?;
    // After the control message's header of 16 bytes.
    Ok(control[2] & 0xffff_ffff)
}

pub(super) fn in_a_given_directory(world: &World) -> Result<(), Errno> {
    let directory = take_directory(world)?;
    plain(libc::SYS_openat, &[directory, text("passwd").as_ptr() as u64, 0, 0])
}

pub(super) fn list_a_given_directory(world: &World) -> Result<(), Errno> {
    let directory = take_directory(world)?;
    let mut entries = [0u64; 512];
    plain(libc::SYS_getdents64, &[directory, entries.as_mut_ptr() as u64, PAGE])
}

pub(super) fn write_beyond(world: &World) -> Result<(), Errno> {
    plain(libc::SYS_pwrite64, &[world.disk as u64, at(&0u8), 1, FAR])
}

pub(super) fn longer(world: &World) -> Result<(), Errno> {
    plain(libc::SYS_ftruncate, &[world.disk as u64, FAR])
}

pub(super) fn allocate_beyond(world: &World) -> Result<(), Errno> {
    let keep_size = libc::FALLOC_FL_KEEP_SIZE as u64;
    plain(libc::SYS_fallocate, &[world.disk as u64, keep_size, 4 << 20, PAGE])
}

pub(super) fn zero_beyond(world: &World) -> Result<(), Errno> {
    let zero = libc::FALLOC_FL_ZERO_RANGE as u64;
    plain(libc::SYS_fallocate, &[world.disk as u64, zero, FAR, PAGE])
}

pub(super) fn change_flags() -> Result<(), Errno> {
    plain(libc::SYS_fcntl, &[2, libc::F_SETFL as u64, 0])
}

pub(super) fn own_signals(world: &World) -> Result<(), Errno> {
    plain(libc::SYS_fcntl, &[world.listener as u64, libc::F_SETOWN as u64, world.victim as u64])
}

pub(super) fn send_file(world: &World) -> Result<(), Errno> {
    plain(libc::SYS_sendfile, &[world.disk as u64, world.disk as u64, 0, PAGE])
}

pub(super) fn execute(path: &str) -> Result<(), Errno> {
    let path = text(path);
    plain(libc::SYS_execve, &[path.as_ptr() as u64, 0, 0])
}

/// Returns a program of one system call, `exit(0)`.
fn program() -> Vec<u8> {
    const ADDRESS: u64 = 0x40_0000;
    const CODE_AT: u64 = 64 + 56;
    let code = [0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]; // xor edi, edi; mov eax, 60; syscall
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    image.extend([2, 0, 62, 0, 1, 0, 0, 0]); // an executable for x86_64
    for field in [ADDRESS + CODE_AT, 64, 0] {
        image.extend(field.to_le_bytes());
    }
    image.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    image.extend([1, 0, 0, 0, 5, 0, 0, 0]); // to be loaded, readable and executable
    let length = CODE_AT + code.len() as u64;
    for field in [0, ADDRESS, ADDRESS, length, length, PAGE] {
        image.extend(field.to_le_bytes());
    }
    image.extend(code);
    image
}

pub(super) fn execute_memory() -> Result<(), Errno> {
    let fd = call(libc::SYS_memfd_create, [text("x").as_ptr() as u64, 0, 0, 0, 0, 0])?;
    let program = program();
    plain(libc::SYS_write, &[fd, program.as_ptr() as u64, program.len() as u64])?;
    let empty = text("");
    plain(libc::SYS_execveat, &[fd, empty.as_ptr() as u64, 0, 0, libc::AT_EMPTY_PATH as u64])
}

pub(super) fn map(protection: i32, flags: i32) -> Result<u64, Errno> {
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags) as u64;
    call(libc::SYS_mmap, [0, PAGE, protection as u64, flags, u64::MAX, 0])
}

pub(super) fn map_executable() -> Result<(), Errno> {
    map(libc::PROT_READ | libc::PROT_EXEC, 0).map(drop)
}

pub(super) fn make_executable(by: c_long) -> Result<(), Errno> {
    let page = map(libc::PROT_READ | libc::PROT_WRITE, 0)?;
    let executable = (libc::PROT_READ | libc::PROT_EXEC) as u64;
    // Without a key of its own: the default one.
    plain(by, &[page, PAGE, executable, u64::MAX])
}

pub(super) fn run_data() -> Result<(), Errno> {
    let page = map(libc::PROT_READ | libc::PROT_WRITE, 0)?;
    // SAFETY: the page is this function's; where it is executable after all, the function there returns at once.
    unsafe {
        *(page as *mut u8) = 0xc3; // ret
        std::mem::transmute::<u64, extern "C" fn()>(page)();
    }
    Ok(())
}

/// Calls `getpid` by the system call interface of 32-bit programs.
pub(super) fn by_interrupt() -> Result<(), Errno> {
    let result: u64;
    // SAFETY: the call takes no argument and touches no memory.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") 20u64 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    if (result as i32) < 0 { Err(Errno::from_raw(-(result as i32))) } else { Ok(()) }
}

pub(super) fn huge_pages() -> Result<(), Errno> {
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB) as u64;
    let all = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    plain(libc::SYS_mmap, &[0, 2 << 20, all, flags, u64::MAX, 0])
}

pub(super) fn advise(advice: i32) -> Result<(), Errno> {
    let page = map(libc::PROT_READ | libc::PROT_WRITE, 0)?;
    plain(libc::SYS_madvise, &[page, PAGE, advice as u64])
}

pub(super) fn socket(family: i32) -> Result<(), Errno> {
    let kind = match family {
        libc::AF_NETLINK | libc::AF_PACKET => libc::SOCK_RAW,
        libc::AF_ALG => libc::SOCK_SEQPACKET,
        _ => libc::SOCK_STREAM,
    };
    plain(libc::SYS_socket, &[family as u64, kind as u64, 0])
}

pub(super) fn socket_pair() -> Result<(), Errno> {
    let mut pair = [0i32; 2];
    plain(libc::SYS_socketpair, &[1, 1, 0, pair.as_mut_ptr() as u64])
}

pub(super) fn tcp() -> Result<(), Errno> {
    let socket = call(libc::SYS_socket, [libc::AF_INET as u64, 1, 0, 0, 0, 0])?;
    // 127.0.0.1, port 1.
    let address: [u8; 16] = [2, 0, 0, 1, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    plain(libc::SYS_connect, &[socket, at(&address), 16])
}

/// Returns an abstract name, as an address, with its length.
fn name(name: &[u8]) -> (Vec<u8>, u64) {
    let address = [&[1, 0, 0][..], name].concat();
    let length = address.len() as u64;
    (address, length)
}

pub(super) fn abstract_name() -> Result<(), Errno> {
    let socket = call(libc::SYS_socket, [libc::AF_UNIX as u64, 1, 0, 0, 0, 0])?;
    let (address, length) = name(ABSTRACT);
    plain(libc::SYS_connect, &[socket, address.as_ptr() as u64, length])
}

pub(super) fn bind_abstract(socket: i32) -> Result<(), Errno> {
    let (address, length) = name(b"another");
    plain(libc::SYS_bind, &[socket as u64, address.as_ptr() as u64, length])
}

pub(super) fn send_to_name(socket: i32) -> Result<(), Errno> {
    let (address, length) = name(ABSTRACT);
    plain(libc::SYS_sendto, &[socket as u64, at(&0u8), 1, 0, address.as_ptr() as u64, length])
}

pub(super) fn peer(socket: i32) -> Result<(), Errno> {
    const SO_PEERPIDFD: u64 = 77;
    let (mut handle, mut length) = (0i32, 4u32);
    let (handle, length) = ((&raw mut handle) as u64, (&raw mut length) as u64);
    plain(libc::SYS_getsockopt, &[socket as u64, 1, SO_PEERPIDFD, handle, length])
}

pub(super) fn options(socket: i32) -> Result<(), Errno> {
    plain(libc::SYS_setsockopt, &[socket as u64, 1, libc::SO_PASSCRED as u64, at(&1i32), 4])
}

pub(super) fn hand_out(socket: i32, what: i32) -> Result<(), Errno> {
    // A control message of 20 bytes at SOL_SOCKET: SCM_RIGHTS.
    let control = [20u64, 1 | 1 << 32, what as u64];
    let mut byte = 0u8;
    let mut vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: all zeroes is a valid, empty header.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_ptr().cast_mut().cast();
    header.msg_controllen = size_of_val(&control);
    plain(libc::SYS_sendmsg, &[socket as u64, at(&header), 0])
}

pub(super) fn remote(by: c_long, process: i32) -> Result<(), Errno> {
    let mut byte = 0u8;
    let vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    plain(by, &[process as u64, at(&vector), 1, at(&vector), 1, 0])
}

pub(super) fn queue_signal(world: &World) -> Result<(), Errno> {
    // siginfo_t: a number, no error, SI_QUEUE.
    let mut info = [0i32; 32];
    info[2] = -1;
    plain(libc::SYS_rt_sigqueueinfo, &[world.victim as u64, 0, at(&info)])
}

pub(super) fn take_descriptor(world: &World) -> Result<(), Errno> {
    let handle = call(libc::SYS_pidfd_open, [world.victim as u64, 0, 0, 0, 0, 0])?;
    plain(libc::SYS_pidfd_getfd, &[handle, 0, 0])
}

pub(super) fn join(world: &World) -> Result<(), Errno> {
    let handle = call(libc::SYS_pidfd_open, [world.victim as u64, 0, 0, 0, 0, 0])?;
    plain(libc::SYS_setns, &[handle, libc::CLONE_NEWNS as u64])
}

pub(super) fn limits(world: &World) -> Result<(), Errno> {
    let limit = [16u64, 16];
    plain(libc::SYS_prlimit64, &[world.victim as u64, libc::RLIMIT_NOFILE.into(), at(&limit), 0])
}

pub(super) fn processors(world: &World) -> Result<(), Errno> {
    plain(libc::SYS_sched_setaffinity, &[world.victim as u64, 8, at(&1u64)])
}

pub(super) fn compare(world: &World) -> Result<(), Errno> {
    plain(libc::SYS_kcmp, &[world.victim as u64, std::process::id().into(), 1])
}

pub(super) fn real_time() -> Result<(), Errno> {
    let fifo = libc::SCHED_FIFO as u64;
    plain(libc::SYS_sched_setscheduler, &[0, fifo, at(&1i32)])
}

pub(super) fn capabilities() -> Result<(), Errno> {
    let (header, all) = ([0x2008_0522u32, 0], [u32::MAX; 6]);
    plain(libc::SYS_capset, &[at(&header), at(&all)])
}

/// Starts a process as the C library starts threads. It ends at once.
pub(super) fn clone3() -> Result<(), Errno> {
    let mut arguments = [0u64; 11];
    arguments[4] = libc::SIGCHLD as u64;
    if call(libc::SYS_clone3, [at(&arguments), 88, 0, 0, 0, 0])? == 0 {
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) }
    }
    Ok(())
}

/// Does something on another thread.
pub(super) fn thread(deed: fn() -> Result<(), Errno>) -> Result<(), Errno> {
    let started = std::thread::Builder::new().stack_size(256 << 10).spawn(deed);
    started.map_err(|_| Errno::EAGAIN)?.join().unwrap()
}

pub(super) fn clone_into_user_namespace() -> Result<(), Errno> {
    plain(libc::SYS_clone, &[(libc::CLONE_NEWUSER | libc::SIGCHLD) as u64])
}

pub(super) fn mount(kind: &str) -> Result<(), Errno> {
    let (kind, root) = (text(kind), text("/"));
    plain(libc::SYS_mount, &[kind.as_ptr() as u64, root.as_ptr() as u64, kind.as_ptr() as u64])
}

pub(super) fn add_key() -> Result<(), Errno> {
    const SESSION: u64 = u64::MAX - 2;
    let (kind, name) = (text("user"), text("bulkhead-escape"));
    plain(libc::SYS_add_key, &[kind.as_ptr() as u64, name.as_ptr() as u64, at(&0u8), 1, SESSION])
}

pub(super) fn message_queue() -> Result<(), Errno> {
    let flags = (libc::O_CREAT | libc::O_RDWR) as u64;
    plain(libc::SYS_mq_open, &[text("x").as_ptr() as u64, flags, 0o600, 0])
}

pub(super) fn io_uring() -> Result<(), Errno> {
    let mut parameters = [0u64; 15];
    plain(libc::SYS_io_uring_setup, &[1, parameters.as_mut_ptr() as u64])
}

/// Makes a map of one byte.
pub(super) fn bpf() -> Result<(), Errno> {
    let attributes = [2u32, 4, 1, 1, 0, 0, 0, 0];
    plain(libc::SYS_bpf, &[0, at(&attributes), 32])
}

/// Opens a counter of this process's own time.
pub(super) fn performance() -> Result<(), Errno> {
    let mut attributes = [0u32; 32];
    (attributes[0], attributes[1]) = (1, 128);
    plain(libc::SYS_perf_event_open, &[at(&attributes), 0, u64::MAX, u64::MAX, 0])
}

pub(super) fn reboot() -> Result<(), Errno> {
    // RB_ENABLE_CAD: were it allowed, nothing would happen.
    plain(libc::SYS_reboot, &[0xfee1_dead, 672_274_793, 0x89ab_cdef, 0])
}

/// Sets the wall clock to the time that it shows.
pub(super) fn set_clock() -> Result<(), Errno> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    plain(libc::SYS_clock_gettime, &[0, (&raw mut now) as u64])?;
    plain(libc::SYS_clock_settime, &[0, at(&now)])
}

/// Sets ADJ_TICK to what it always is.
pub(super) fn adjust_clock() -> Result<(), Errno> {
    let mut change = [0u64; 26];
    change[0] = 0x4000;
    change[11] = 10_000;
    plain(libc::SYS_adjtimex, &[change.as_mut_ptr() as u64])
}

/// Takes a private futex that lends priority (`FUTEX_TRYLOCK_PI`).
pub(super) fn priority_futex() -> Result<(), Errno> {
    let mut lock = 0u32;
    plain(libc::SYS_futex, &[(&raw mut lock) as u64, 8 | 128])
}

pub(super) fn ioctl(fd: i32, request: u64) -> Result<(), Errno> {
    plain(libc::SYS_ioctl, &[fd as u64, request, 0])
}
