//! Turns a [`Role`] into a BPF program and loads it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use libc::c_ulong;
use seccompiler::{
    BackendError, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use super::filter::Role;
use crate::system_call::{Call, Only};

/// What a forbidden call does: a SIGSYS that ends the process with a core-less death the
/// supervisor reports. A domain that is restarted is better than one that is owned.
const FORBIDDEN: SeccompAction = SeccompAction::KillProcess;

pub(super) fn load(role: Role) -> Result<(), seccompiler::Error> {
    load_lists(role.calls(), role.ioctls().map(|(request, _)| request))
}

/// Loads what allows these calls and ioctl requests, and nothing else.
pub(super) fn load_lists(
    calls: impl Iterator<Item = Call>,
    ioctls: impl Iterator<Item = c_ulong>,
) -> Result<(), seccompiler::Error> {
    let program: seccompiler::BpfProgram = filter(calls, ioctls)?.try_into()?;
    apply_filter(&program)
}

fn filter(
    calls: impl Iterator<Item = Call>,
    ioctls: impl Iterator<Item = c_ulong>,
) -> Result<SeccompFilter, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in calls {
        let allowed = match call.only {
            Only::Any => vec![],
            Only::Exactly(index, value) => {
                let whole = SeccompCmpArgLen::Qword;
                let equal = SeccompCondition::new(index, whole, SeccompCmpOp::Eq, value)?;
                vec![SeccompRule::new(vec![equal])?]
            }
            Only::OneOf(index, values) => one_of(index, values.iter().copied(), None)?,
            Only::Without(bits) => {
                let clear =
                    |(index, bits): &(u8, u64)| argument(*index, SeccompCmpOp::MaskedEq(*bits), 0);
                vec![SeccompRule::new(bits.iter().map(clear).collect::<Result<_, _>>()?)?]
            }
            Only::OwnThreads(signals) => {
                let process = argument(0, SeccompCmpOp::Eq, std::process::id().into())?;
                one_of(2, signals.iter().copied(), Some(process))?
            }
        };
        match (rules.entry(call.number), allowed.is_empty()) {
            // No condition at all: whatever else says more allows no more.
            (entry, true) => *entry.or_default() = vec![],
            (Entry::Vacant(entry), false) => {
                entry.insert(allowed);
            }
            (Entry::Occupied(mut entry), false) if !entry.get().is_empty() => {
                entry.get_mut().extend(allowed);
            }
            (Entry::Occupied(_), false) => {}
        }
    }
    // Without any all of them are forbidden.
    let ioctls = one_of(1, ioctls, None)?;
    if !ioctls.is_empty() {
        rules.insert(libc::SYS_ioctl, ioctls);
    }
    SeccompFilter::new(rules, FORBIDDEN, SeccompAction::Allow, TargetArch::x86_64)
}

/// About the lower half of an argument: an `int`, or flags.
fn argument(index: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value & 0xffff_ffff)
}

fn one_of(
    index: u8,
    values: impl Iterator<Item = u64>,
    and: Option<SeccompCondition>,
) -> Result<Vec<SeccompRule>, BackendError> {
    values
        .map(|value| {
            let equal = argument(index, SeccompCmpOp::Eq, value)?;
            SeccompRule::new([equal].into_iter().chain(and.clone()).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn every_role_has_a_filter_that_compiles_and_forbids_opening_files() {
        for role in Role::ALL {
            let ioctls = role.ioctls().map(|(request, _)| request);
            let program: seccompiler::BpfProgram =
                filter(role.calls(), ioctls).unwrap().try_into().unwrap();
            assert!(!program.is_empty());
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
    ];

    /// Runs itself in children, because a filter cannot be taken off again.
    #[test]
    fn a_role_does_what_it_may_and_dies_of_anything_else() {
        const CHILD: &str = "BULKHEAD_TEST_FILTERED_CHILD";
        if let Ok(which) = std::env::var(CHILD) {
            let (role, deed) = which.split_once('/').unwrap();
            let deed = DEEDS.iter().find(|(name, ..)| *name == deed).unwrap().1;
            load(Role::ALL[role.parse::<usize>().unwrap()]).unwrap();
            deed();
            std::process::exit(0);
        }
        let name = "sandbox::seccomp::tests::a_role_does_what_it_may_and_dies_of_anything_else";
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
}
