//! What the filter lets through, tried under it alone: no other layer is closed.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::{prctl, signal};
use nix::unistd::{Pid, Whence, lseek};
use sandboxing::libc;

use super::calls;
use crate::filter_tests::{self, Deed, load, map, tried};

const DATA: i32 = libc::PROT_READ | libc::PROT_WRITE;
const OWN: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

fn allocate() {
    let mut large = vec![1u8; 8 << 20];
    large.resize(16 << 20, 2);
    assert_eq!(large.last(), Some(&2));
}

/// With the answer's file.
const DEEDS: &[Deed<File>] = &[
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
    ("look for the end of its answer", |answer| tried(lseek(&answer, 0, Whence::SeekEnd)), false),
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

#[test]
fn a_worker_computes_and_answers_and_dies_of_anything_else() {
    let name = "picture::tests::a_worker_computes_and_answers_and_dies_of_anything_else";
    let answer = || tempfile::tempfile().unwrap();
    filter_tests::does_what_it_may(name, || load(&calls()), DEEDS, answer, |_| {});
}

/// Calls of its own that it may make with nothing in their arguments.
const WITH_NOTHING: [i64; 2] = [libc::SYS_read, libc::SYS_pwrite64];

#[test]
fn a_worker_dies_of_every_system_call_that_is_not_on_its_list() {
    let name = "picture::tests::a_worker_dies_of_every_system_call_that_is_not_on_its_list";
    filter_tests::dies_of_every_other_call(name, || load(&calls()), &WITH_NOTHING);
}
