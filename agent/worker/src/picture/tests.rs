//! What the filter lets through, tried under it alone: no other layer is closed.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::{prctl, signal};
use nix::unistd::{Pid, Whence, lseek};
use sandboxing::libc;
use vm_memory::mmap::MmapRegion;

use super::CALLS;

const PAGE: usize = 4096;
const DATA: i32 = libc::PROT_READ | libc::PROT_WRITE;
const OWN: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

fn map(protection: i32, flags: i32) {
    drop(MmapRegion::<()>::build(None, PAGE, protection, flags));
}

fn allocate() {
    let mut large = vec![1u8; 8 << 20];
    large.resize(16 << 20, 2);
    assert_eq!(large.last(), Some(&2));
}

/// Whether it fails is another question.
fn tried<T>(_: T) {}

/// What to do under the filter, with the answer's file, and whether a worker may.
type Deed = (&'static str, fn(&File), bool);
const DEEDS: &[Deed] = &[
    ("nothing", |_| {}, true),
    ("allocate memory", |_| allocate(), true),
    ("map memory of its own", |_| map(DATA, OWN), true),
    ("write the answer", |answer| answer.write_all_at(b"PNG", 3).unwrap(), true),
    ("map shared memory", |_| map(DATA, libc::MAP_SHARED | libc::MAP_ANONYMOUS), false),
    ("map a file, whichever", |_| map(DATA, libc::MAP_SHARED), false),
    ("map a file for itself, whichever", |_| map(DATA, libc::MAP_PRIVATE), false),
    ("map a file as checked flags", |_| map(DATA, libc::MAP_SHARED_VALIDATE), false),
    ("lock memory as it is mapped", |_| map(DATA, OWN | libc::MAP_LOCKED), false),
    ("fill memory as it is mapped", |_| map(DATA, OWN | libc::MAP_POPULATE), false),
    ("map huge pages", |_| map(DATA, OWN | libc::MAP_HUGETLB), false),
    ("map a stack that grows", |_| map(DATA, OWN | libc::MAP_GROWSDOWN), false),
    ("map a program", |_| map(libc::PROT_READ | libc::PROT_EXEC, OWN), false),
    ("lock all memory", |_| tried(mlockall(MlockAllFlags::MCL_FUTURE)), false),
    ("raise a limit", |_| tried(setrlimit(Resource::RLIMIT_CORE, 0, 0)), false),
    ("make its answer longer", |answer| tried(answer.set_len(1 << 30)), false),
    ("look for the end of its answer", |answer| tried(lseek(answer, 0, Whence::SeekEnd)), false),
    ("copy a descriptor", |answer| tried(answer.try_clone()), false),
    ("open a file", |_| tried(File::open("/etc/hostname")), false),
    ("make a socket", |_| tried(UnixStream::pair()), false),
    ("start a thread", |_| tried(std::thread::Builder::new().spawn(|| ())), false),
    ("start a process", |_| tried(Command::new("/bin/true").status()), false),
    ("ask for a process", |_| tried(signal::kill(Pid::this(), None)), false),
    ("signal the first process", |_| tried(signal::kill(Pid::from_raw(1), None)), false),
    ("be dumped", |_| tried(prctl::set_dumpable(true)), false),
    ("take its death signal back", |_| tried(prctl::set_pdeathsig(None)), false),
    ("sleep", |_| std::thread::sleep(std::time::Duration::from_millis(1)), false),
];

/// Runs itself in children, because a filter cannot be taken off again.
#[test]
fn a_worker_computes_and_answers_and_dies_of_anything_else() {
    const CHILD: &str = "BULKHEAD_TEST_FILTERED_WORKER";
    if let Ok(which) = std::env::var(CHILD) {
        let (filtered, deed) = which.split_once('/').unwrap();
        let deed = DEEDS.iter().find(|(name, ..)| *name == deed).unwrap().1;
        let answer = tempfile::tempfile().unwrap();
        if filtered == "filtered" {
            sandboxing::load(CALLS.iter().copied(), std::iter::empty()).unwrap();
        }
        deed(&answer);
        std::process::exit(0);
    }
    let name = "picture::tests::a_worker_computes_and_answers_and_dies_of_anything_else";
    for (deed, _, may) in DEEDS {
        for filtered in ["filtered", "free"] {
            let status = Command::new(std::env::current_exe().unwrap())
                .args([name, "--exact", "--nocapture"])
                .env(CHILD, format!("{filtered}/{deed}"))
                .stdout(Stdio::null())
                .status()
                .unwrap();
            let dies = filtered == "filtered" && !may;
            assert_eq!(status.signal(), dies.then_some(libc::SIGSYS), "{deed}, {filtered}");
            assert!(dies || status.success(), "{deed}, {filtered}: {status}");
        }
    }
}

/// What somebody who has taken a worker over may want of the kernel, and there is no safe call for.
const WANTED: [(&str, i64); 34] = [
    ("trace a process", libc::SYS_ptrace),
    ("read another's memory", libc::SYS_process_vm_readv),
    ("write into another's memory", libc::SYS_process_vm_writev),
    ("compare itself with another", libc::SYS_kcmp),
    ("have a handle of another", libc::SYS_pidfd_open),
    ("take another's descriptor", libc::SYS_pidfd_getfd),
    ("signal by a handle", libc::SYS_pidfd_send_signal),
    ("signal a thread", libc::SYS_tkill),
    ("signal another's thread", libc::SYS_tgkill),
    ("advise another's memory", libc::SYS_process_madvise),
    ("serve its own page faults", libc::SYS_userfaultfd),
    ("set up io_uring", libc::SYS_io_uring_setup),
    ("enter io_uring", libc::SYS_io_uring_enter),
    ("register with io_uring", libc::SYS_io_uring_register),
    ("load a program into the kernel", libc::SYS_bpf),
    ("count events", libc::SYS_perf_event_open),
    ("take another filter", libc::SYS_seccomp),
    ("make a namespace", libc::SYS_unshare),
    ("enter a namespace", libc::SYS_setns),
    ("mount", libc::SYS_mount),
    ("mount by handle", libc::SYS_fsopen),
    ("change its root", libc::SYS_chroot),
    ("open by handle", libc::SYS_open_by_handle_at),
    ("open with flags", libc::SYS_openat2),
    ("make a file in memory", libc::SYS_memfd_create),
    ("send a descriptor", libc::SYS_sendmsg),
    ("receive a descriptor", libc::SYS_recvmsg),
    ("use keys", libc::SYS_keyctl),
    ("share memory by a number", libc::SYS_shmget),
    ("be run as a program", libc::SYS_execveat),
    ("clone with a cgroup", libc::SYS_clone3),
    ("load a module", libc::SYS_init_module),
    ("set the clock", libc::SYS_clock_settime),
    ("write several pieces", libc::SYS_pwritev),
];

/// Calls that it may make with nothing in their arguments.
const WITH_NOTHING: [i64; 15] = [
    libc::SYS_read,
    libc::SYS_pwrite64,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_getrandom,
    libc::SYS_futex,
    libc::SYS_close,
    libc::SYS_rt_sigprocmask,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit_group,
];
/// Beyond the last call that a kernel of today has, and one with the bit of the x32 numbers.
const NUMBERS: std::ops::Range<i64> = 0..480;
const X32: i64 = 0x4000_0000;
/// `uretprobe` and `uprobe`, which the kernel lets past every filter: it refuses them by itself where no probe of its own is (Linux 6.11 and 6.18).
const PROBES: [i64; 2] = [335, 336];

#[test]
fn a_worker_dies_of_every_system_call_that_is_not_on_its_list() {
    const CHILD: &str = "BULKHEAD_TEST_CALL_OF_A_WORKER";
    if let Ok(number) = std::env::var(CHILD) {
        sandboxing::load(CALLS.iter().copied(), std::iter::empty()).unwrap();
        let _ = sandboxing::attempt(number.parse().unwrap());
        std::process::exit(0);
    }
    let name = "picture::tests::a_worker_dies_of_every_system_call_that_is_not_on_its_list";
    for (what, number) in WANTED {
        assert!(!WITH_NOTHING.contains(&number), "{what}");
    }
    let mut forbidden: Vec<i64> = NUMBERS
        .filter(|number| !WITH_NOTHING.contains(number) && !PROBES.contains(number))
        .collect();
    forbidden.extend([X32 + libc::SYS_read, X32 + libc::SYS_ptrace]);
    assert!(WANTED.iter().all(|(_, number)| forbidden.contains(number)));
    // Several at a time: each is a process.
    let start = |number: &i64| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([name, "--exact", "--nocapture"]).env(CHILD, number.to_string());
        child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    for numbers in forbidden.chunks(8) {
        let children: Vec<_> = numbers.iter().map(start).collect();
        for (number, mut child) in numbers.iter().zip(children) {
            let what = WANTED.iter().find(|(_, wanted)| wanted == number);
            let what = what.map_or("no name here", |(what, _)| what);
            let status = child.wait().unwrap();
            assert_eq!(status.signal(), Some(libc::SIGSYS), "call {number} ({what}): {status}");
        }
    }
}
