//! What the filters of the roles let through, tried under each alone: no other layer is closed; and what the document says of them.

use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use sandboxing::document::{Part, hold};
use sandboxing::{Call, libc};

use vm_memory::mmap::MmapRegion;

use crate::{clipboard, picture, standard, usb};

/// What to do under the filter, with what a worker has, and whether a worker may.
pub(crate) type Deed<T> = (&'static str, fn(T), bool);

/// Asks for the processor time of the first process, which is a clock.
pub(crate) fn time_of_another() -> nix::Result<TimeSpec> {
    // As the kernel writes it: the number's complement, and CPUCLOCK_SCHED.
    clock_gettime(ClockId::from_raw(!1 << 3 | 2))
}

/// Whether it fails is another question.
pub(crate) fn tried<T>(_: T) {}

/// Maps a page with this protection, as these flags have it.
pub(crate) fn map(protection: i32, flags: i32) {
    drop(MmapRegion::<()>::build(None, 4096, protection, flags));
}

/// Loads the filter of a role that asks for these calls, and for no `ioctl`.
pub(crate) fn load(calls: &[Call]) {
    sandboxing::load(calls.iter().copied(), std::iter::empty()).unwrap();
}

/// Returns a child that runs the test of this name, which finds `value` in `variable`.
pub(crate) fn child(name: &str, variable: &str, value: &str) -> Command {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([name, "--exact", "--nocapture"]).env(variable, value).stdout(Stdio::null());
    child.envs(worker_link::ENVIRONMENT);
    child
}

/// Does each deed in a child, with the filter that `load` loads and without one. `name` is the test that calls this, which runs itself, because a filter cannot be
/// taken off again; `has` makes what a worker has, and `start` what it is started with.
pub(crate) fn does_what_it_may<T>(
    name: &str,
    load: impl FnOnce(),
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
            load();
        }
        deed(has);
        std::process::exit(0);
    }
    for (deed, _, may) in deeds {
        for filtered in ["filtered", "free"] {
            let mut child = child(name, CHILD, &format!("{filtered}/{deed}"));
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

/// Calls of every worker's standard library that it may make with nothing in their arguments.
const STANDARD_WITH_NOTHING: [i64; 13] = [
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

/// Tries every other call in a child, under the filter that `load` loads. `name` is the test that calls this, which runs itself; `with_nothing` are the calls of its own
/// that the worker may make with nothing in their arguments, or that are answered as if there were none.
pub(crate) fn dies_of_every_other_call(name: &str, load: impl FnOnce(), with_nothing: &[i64]) {
    const CHILD: &str = "BULKHEAD_TEST_CALL_OF_A_WORKER";
    if let Ok(number) = std::env::var(CHILD) {
        load();
        let _ = sandboxing::attempt(number.parse().unwrap());
        std::process::exit(0);
    }
    let may = [with_nothing, &STANDARD_WITH_NOTHING].concat();
    for (what, number) in WANTED {
        // What is answered as by a kernel that has no such call is no way out either.
        assert!(!may.contains(&number) || number == libc::SYS_clone3, "{what}");
    }
    let mut forbidden: Vec<i64> =
        NUMBERS.filter(|number| !may.contains(number) && !PROBES.contains(number)).collect();
    forbidden.extend([X32 + libc::SYS_read, X32 + libc::SYS_ptrace]);
    // Several at a time: each is a process.
    let start = |number: &i64| {
        child(name, CHILD, &number.to_string()).stderr(Stdio::null()).spawn().unwrap()
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

const HEAD: &str = "
Made by `BULKHEAD_WRITE=1 cargo test -p bulkhead-worker --lib sandbox` from `agent/worker/src/standard.rs` and the `calls.rs` of each role; do not edit it by hand.
Without `BULKHEAD_WRITE` the same test holds it against them. What surrounds the filters is in `agent/worker/src/enclosure.rs`; what a worker that was taken over can
do, in the [threat model](threat-model.md); why there are workers, in decisions [41](decisions/0041-content-worker.md), [79](decisions/0079-a-reader-for-each-guest.md) and
[81](decisions/0081-a-worker-for-each-usb-device.md).

A call that is not here, or is asked for something else than it says here, is the end of the worker (`SIGSYS`), which costs what it was doing. Of several lines on one
call each allows its part. Only the worker of a USB device makes threads, and asks by `ioctl`. Tests try every number from 0 to 479 in each role.
";

/// Writes the table of these calls, in their order.
fn table(text: &mut String, calls: &[Call]) {
    *text += "\n| call | only with | for |\n| --- | --- | --- |\n";
    for Call { name, only, why, .. } in calls {
        let name = name.trim_start_matches("SYS_");
        writeln!(text, "| `{name}` | {only} | {why} |").unwrap();
    }
}

fn part() -> String {
    let mut text = HEAD.to_owned() + "\n### Every worker's\n";
    table(&mut text, standard::STANDARD);
    for (role, calls) in [
        ("`picture`: decodes one picture", picture::calls::OWN),
        ("`clipboard`: reads what one guest says of its clipboard", clipboard::calls::OWN),
        ("`usb`: serves one USB device", usb::calls::OWN),
    ] {
        writeln!(text, "\n### {role}\n\nBesides what is every worker's:").unwrap();
        table(&mut text, calls);
    }
    text += "\nRequests of `ioctl`, which are to the device's node. One that serves a part of a device, of which somebody else has the rest, makes those of both:\n";
    text += "\n| request | who serves | for |\n| --- | --- | --- |\n";
    for (request, what) in usb::calls::IOCTLS_OF_A_WHOLE {
        let (name, why) = what.split_once(": ").unwrap();
        let of_a_part = usb::calls::IOCTLS_OF_A_PART.iter().any(|(own, _)| own == request);
        let whose = if of_a_part { "both" } else { "a whole device" };
        writeln!(text, "| `{name}` ({request:#x}) | {whose} | {why} |").unwrap();
    }
    text
}

#[test]
fn the_sandboxs_document_says_what_each_worker_may_ask_for_and_why() {
    hold(Part::Workers, &part(), "cargo test -p bulkhead-worker --lib sandbox");
}
