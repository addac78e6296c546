//! What the filters of the roles let through, tried under each alone: no other layer is closed.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use sandboxing::{Call, libc};

/// What to do under the filter, with what a worker has, and whether a worker may.
pub(crate) type Deed<T> = (&'static str, fn(&T), bool);

/// Asks for the processor time of the first process, which is a clock.
pub(crate) fn time_of_another() -> nix::Result<TimeSpec> {
    // As the kernel writes it: the number's complement, and CPUCLOCK_SCHED.
    clock_gettime(ClockId::from_raw(!1 << 3 | 2))
}

/// Does each deed in a child, with the filter and without it. `name` is the test that calls this, which runs itself, because a filter cannot be taken off
/// again; `has` makes what a worker has, and `start` what it is started with.
pub(crate) fn does_what_it_may<T>(
    name: &str,
    calls: &[Call],
    deeds: &[Deed<T>],
    has: impl FnOnce() -> T,
    start: impl Fn(&mut Command),
) {
    const CHILD: &str = "BULKHEAD_TEST_FILTERED_WORKER";
    if let Ok(which) = std::env::var(CHILD) {
        let (filtered, deed) = which.split_once('/').unwrap();
        let deed = deeds.iter().find(|(name, ..)| *name == deed).unwrap().1;
        let has = has();
        if filtered == "filtered" {
            sandboxing::load(calls.iter().copied(), std::iter::empty()).unwrap();
        }
        deed(&has);
        std::process::exit(0);
    }
    for (deed, _, may) in deeds {
        for filtered in ["filtered", "free"] {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args([name, "--exact", "--nocapture"]).env(CHILD, format!("{filtered}/{deed}"));
            child.stdout(Stdio::null());
            start(&mut child);
            let status = child.status().unwrap();
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

/// Beyond the last call that a kernel of today has, and one with the bit of the x32 numbers.
const NUMBERS: std::ops::Range<i64> = 0..480;
const X32: i64 = 0x4000_0000;
/// `uretprobe` and `uprobe`, which the kernel lets past every filter: it refuses them by itself where no probe of its own is (Linux 6.11 and 6.18).
const PROBES: [i64; 2] = [335, 336];

/// Tries every other call in a child. `name` is the test that calls this, which runs itself; `with_nothing` are the calls that the worker may make with nothing
/// in their arguments.
pub(crate) fn dies_of_every_other_call(name: &str, calls: &[Call], with_nothing: &[i64]) {
    const CHILD: &str = "BULKHEAD_TEST_CALL_OF_A_WORKER";
    if let Ok(number) = std::env::var(CHILD) {
        sandboxing::load(calls.iter().copied(), std::iter::empty()).unwrap();
        let _ = sandboxing::attempt(number.parse().unwrap());
        std::process::exit(0);
    }
    for (what, number) in WANTED {
        assert!(!with_nothing.contains(&number), "{what}");
    }
    let mut forbidden: Vec<i64> = NUMBERS
        .filter(|number| !with_nothing.contains(number) && !PROBES.contains(number))
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
