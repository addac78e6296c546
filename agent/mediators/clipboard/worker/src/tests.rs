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
    let name = "tests::a_worker_computes_and_answers_and_dies_of_anything_else";
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
