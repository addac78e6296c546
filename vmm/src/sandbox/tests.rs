//! What the filters of the roles let through.

use std::os::unix::process::ExitStatusExt;

use sandboxing::Only;

use super::filter::Role;
use super::load;

#[test]
fn no_role_opens_files_or_runs_programs() {
    for role in Role::ALL {
        for forbidden in [
            libc::SYS_open,
            libc::SYS_openat,
            libc::SYS_execve,
            libc::SYS_socket,
            libc::SYS_ptrace,
            libc::SYS_pkey_mprotect,
            libc::SYS_kill,
        ] {
            assert!(role.calls().all(|call| call.number != forbidden));
        }
    }
}

#[test]
fn a_vcpu_is_kicked_by_the_signal_that_the_filter_names() {
    let allowed = |role: Role| {
        role.calls()
            .filter_map(|call| match call.only {
                Only::OwnThreads(signals) => Some(signals.to_vec()),
                _ => None,
            })
            .flatten()
            .collect::<Vec<_>>()
    };
    let kick = u64::try_from(vmm_sys_util::signal::SIGRTMIN()).unwrap();
    assert!(allowed(Role::Main).contains(&kick));
    for role in [Role::Vcpu, Role::Block, Role::Screen, Role::Log] {
        assert_eq!(allowed(role), [libc::SIGABRT as u64]);
    }
}

fn protect(protection: libc::c_int) {
    // SAFETY: memory of nobody's, of which nothing is read or executed.
    unsafe {
        let at = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        libc::mprotect(at, 4096, protection);
    }
}

fn map_executable() {
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: memory of nobody's, of which nothing is read or executed.
    unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
}

fn signal(process: u32, number: libc::c_int) {
    // SAFETY: sends a signal at most; a thread of that number there is not, if it gets there.
    unsafe { libc::syscall(libc::SYS_tgkill, process, i32::MAX, number) };
}

fn seek() {
    let _ = nix::unistd::lseek(std::io::stdin(), 0, nix::unistd::Whence::SeekEnd);
}

fn thread(deed: fn()) {
    let started = std::thread::Builder::new().stack_size(256 << 10).spawn(deed);
    started.unwrap().join().unwrap();
}

fn process() {
    // SAFETY: the child does nothing but end.
    unsafe {
        if libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) == 0 {
            libc::_exit(0);
        }
    }
}

/// What to do under a filter, and the roles that may.
type Deed = (&'static str, fn(), &'static [Role]);
const DEEDS: &[Deed] = &[
    ("nothing", || {}, &Role::ALL),
    ("open a file", || drop(std::fs::File::open("/etc/hostname")), &[]),
    ("map memory for data", || protect(libc::PROT_READ), &Role::ALL),
    ("map executable memory", map_executable, &[]),
    ("make memory executable", || protect(libc::PROT_READ | libc::PROT_EXEC), &[]),
    ("kick a vCPU", || signal(std::process::id(), 34), &[Role::Main]),
    ("end a thread", || signal(std::process::id(), libc::SIGKILL), &[]),
    ("signal another process", || signal(1, libc::SIGABRT), &[]),
    ("look for the end of a file", seek, &[Role::Main]),
    ("start a thread", || thread(|| drop(vec![1; 100_000])), &[Role::Block]),
    ("open a file from another thread", || thread(|| drop(std::fs::File::open("/x"))), &[]),
    ("start a process", process, &[]),
];

/// The role and the deed of a child.
const CHILD: &str = "BULKHEAD_TEST_FILTERED_CHILD";

/// As root, which CI is: the agent starts a VMM so.
#[test]
fn who_aborts_as_the_first_process_of_a_namespace_ends_by_a_fault_in_every_role() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not tested: it takes root");
        return;
    }
    let name = "sandbox::tests::a_role_does_what_it_may_and_dies_of_anything_else";
    for number in 0..Role::ALL.len() {
        let ended = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID).unwrap();
            std::process::Command::new(std::env::current_exe().unwrap())
                .args([name, "--exact", "--nocapture"])
                .env(CHILD, format!("{number}/abort"))
                .stdout(std::process::Stdio::null())
                .status()
                .unwrap()
        });
        assert_eq!(ended.join().unwrap().signal(), Some(libc::SIGSEGV), "{number}");
    }
}

/// Runs itself in children, because a filter cannot be taken off again.
#[test]
fn a_role_does_what_it_may_and_dies_of_anything_else() {
    if let Ok(which) = std::env::var(CHILD) {
        let (role, deed) = which.split_once('/').unwrap();
        let known = DEEDS.iter().find(|(name, ..)| *name == deed).map(|(_, deed, _)| *deed);
        let deed = known.unwrap_or(|| std::process::abort());
        load(Role::ALL[role.parse::<usize>().unwrap()]).unwrap();
        deed();
        std::process::exit(0);
    }
    let name = "sandbox::tests::a_role_does_what_it_may_and_dies_of_anything_else";
    for (number, role) in Role::ALL.iter().enumerate() {
        for (deed, _, who_may) in DEEDS {
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args([name, "--exact", "--nocapture"])
                .env(CHILD, format!("{number}/{deed}"))
                .stdout(std::process::Stdio::null())
                .status()
                .unwrap();
            let expected = (!who_may.contains(role)).then_some(libc::SIGSYS);
            assert_eq!(status.signal(), expected, "{role:?}: {deed}");
        }
    }
}
