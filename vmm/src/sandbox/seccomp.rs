//! Turns a [`Role`] into a BPF program and loads it.

use std::collections::BTreeMap;

use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

use super::filter::{FCNTL, Role};

/// What a forbidden call does: a SIGSYS that ends the process with a core-less death the
/// supervisor reports. A domain that is restarted is better than one that is owned.
const FORBIDDEN: SeccompAction = SeccompAction::KillProcess;

pub(super) fn load(role: Role) -> Result<(), seccompiler::Error> {
    let program: seccompiler::BpfProgram = filter(role)?.try_into()?;
    apply_filter(&program)
}

fn filter(role: Role) -> Result<SeccompFilter, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        role.calls().filter(|call| *call != libc::SYS_fcntl).map(|call| (call, vec![])).collect();
    rules.insert(libc::SYS_ioctl, second_argument_in(role.ioctls())?);
    rules.insert(libc::SYS_fcntl, second_argument_in(FCNTL.iter().copied())?);
    SeccompFilter::new(rules, FORBIDDEN, SeccompAction::Allow, TargetArch::x86_64)
}

fn second_argument_in(
    values: impl Iterator<Item = libc::c_ulong>,
) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    values
        .map(|value| {
            let equal = SeccompCondition::new(
                1,
                SeccompCmpArgLen::Dword,
                SeccompCmpOp::Eq,
                value & 0xffff_ffff,
            )?;
            SeccompRule::new(vec![equal])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_a_filter_that_compiles_and_forbids_opening_files() {
        for role in [Role::Main, Role::Vcpu, Role::Block, Role::Screen] {
            let program: seccompiler::BpfProgram = filter(role).unwrap().try_into().unwrap();
            assert!(!program.is_empty());
            for forbidden in [
                libc::SYS_open,
                libc::SYS_openat,
                libc::SYS_execve,
                libc::SYS_socket,
                libc::SYS_ptrace,
            ] {
                assert!(role.calls().all(|call| call != forbidden));
            }
        }
    }

    /// Runs in a child, because a filter cannot be taken off again.
    #[test]
    fn a_filtered_thread_that_opens_a_file_dies() {
        const CHILD: &str = "BULKHEAD_TEST_FILTERED_CHILD";
        if std::env::var_os(CHILD).is_some() {
            load(Role::Main).unwrap();
            let _ = std::fs::File::open("/etc/hostname");
            std::process::exit(0);
        }
        let name = "sandbox::seccomp::tests::a_filtered_thread_that_opens_a_file_dies";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(status.signal(), Some(libc::SIGSYS));
    }
}
