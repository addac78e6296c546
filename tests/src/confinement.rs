//! What a process may not be and not see, as the kernel says it of it.

use crate::{Outcome, WardPc, ensure};

/// The lines that the kernel's status of a thread has which has no capability, gets none by a program that it starts, and may make the system calls of a filter only.
pub const CONFINED: [&str; 6] = [
    "CapInh:\t0000000000000000",
    "CapPrm:\t0000000000000000",
    "CapEff:\t0000000000000000",
    "CapBnd:\t0000000000000000",
    "NoNewPrivs:\t1",
    "Seccomp:\t2",
];

/// Asserts of a process, named by its folder in `/proc`, that each of its threads is [`CONFINED`] and this user's, whose group has the same number, that its root directory
/// is empty, and that it is in no namespace of the host's.
pub fn is_nobody_nowhere(pc: &WardPc, proc: &str, user: u32) -> Outcome {
    let owners = ["Uid", "Gid"].map(|id| format!("{id}:\t{user}\t{user}\t{user}\t{user}"));
    let lines: Vec<&str> = owners.iter().map(String::as_str).chain(CONFINED).collect();
    let tasks = pc.sh(&format!("ls {proc}/task"))?;
    for task in tasks.split_whitespace() {
        let status = pc.sh(&format!("cat {proc}/task/{task}/status"))?;
        for line in &lines {
            ensure!(
                status.lines().any(|found| found.trim_end() == *line),
                "{line} is not in:\n{status}"
            );
        }
    }
    let root = pc.sh(&format!("ls -A {proc}/root/"))?;
    ensure!(root.trim().is_empty(), "its root directory holds {root}");
    for kind in ["net", "mnt", "ipc", "uts", "cgroup"] {
        let of = |who: &str| pc.sh(&format!("readlink {who}/ns/{kind}"));
        ensure!(of(proc)? != of("/proc/1")?, "it is in the host's {kind} namespace");
    }
    Ok(())
}
