//! What a process may not be and not see, as the kernel says it of it.

use crate::{Outcome, WardPc, ensure};

/// Asserts of a process, named by its folder in `/proc`, that the status of each of its threads has these lines, that its root directory is empty, and that it is in
/// no namespace of the host's.
pub fn is_nobody_nowhere(pc: &WardPc, proc: &str, lines: &[&str]) -> Outcome {
    let tasks = pc.sh(&format!("ls {proc}/task"))?;
    for task in tasks.split_whitespace() {
        let status = pc.sh(&format!("cat {proc}/task/{task}/status"))?;
        for line in lines {
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
