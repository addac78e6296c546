//! `docs/design/sandbox.md`, which says what each thread of a VMM may do and why, and what was tried: made from the
//! lists of the filters and of the attempts, so that neither can change unseen.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::attempts::{Attempt, CLASSES, IOCTLS};
use super::{FORBIDDEN, Role, Verdict, function};
use sandboxing::Call;
use sandboxing::document::{Part, hold};

const HEAD: &str = "# The sandboxes, call by call

First the VMM's, then [the workers'](#the-workers-sandboxes-call-by-call).

Made by `BULKHEAD_WRITE=1 cargo test -p bulkhead-vmm --lib sandbox` from `vmm/src/sandbox/filter.rs` and, in `vmm/src/machine/escape`, `attempts.rs`
and `function.rs`; do not edit it by hand. Without `BULKHEAD_WRITE` the same test holds it against them. What surrounds the filters (user, namespaces, Landlock, limits) is in
`vmm/src/sandbox/mod.rs`; why there is neither a user namespace nor io_uring, in [decision 29](decisions/0029-the-vmms-sandbox.md); why a VMM is the first process of
a PID namespace, in [decision 63](decisions/0063-first-process-of-its-namespace.md); why a disk's threads may start a thread, in
[decision 77](decisions/0077-a-disks-helpers.md).

The threads of a VMM share its memory: whoever takes one over has, in the end, what all of them may do together. The roles narrow what a fault in one device
can do by itself, and what the guest's vCPUs can do at once.
";

const CALLS: &str = "
## System calls

A call that is not here, or is asked for something else than it says here, is the end of the VMM (`SIGSYS`), which the agent reports. The kernel lets two numbers
pass by every filter, `uretprobe` (335) and `uprobe` (336), and refuses them to whoever does not come back from a probe of its own.

| call | roles | only with | for |
| --- | --- | --- | --- |
";

const REQUESTS: &str = "
## ioctl requests

Roles that are not here have none.

| request | roles | for |
| --- | --- | --- |
";

const ATTEMPTS: &str = "
## What the escape tool tries

Test `whoever_takes_over_a_thread_of_a_vmm_finds_no_way_out_in_any_role`: a machine with every device, in its closed sandbox; each attempt in a process of its own with all
of the machine's descriptors, under the filter of each role, and under none. \"The end\" is `SIGSYS` in every role. What holds without the filter is the kernel's answer; \"-\"
is nothing, or the kernel's configuration: there the filter is the only layer. Besides these it makes every system call number from 0 to 519 in every role, every argument
that differs from an allowed one in one bit, and widens each filter at each of its limits to see that it notices.

The same test runs in the simulated ward PC with a NIC passed through (`whoever_takes_over_a_thread_of_a_vmm_with_a_passed_through_card_finds_no_way_out`), without the walk over
numbers and arguments. The last class of the list needs that NIC; elsewhere it is seen of it only which role's filter ends what, on descriptors that are not there.

Files: the limit on their length is one for the whole process, the length of the longest file that it writes: a disk that is a file and not read-only, or a serial log's
16 MiB. No file grows beyond that; a shorter one can grow up to it. Known gaps: decisions [46](decisions/0046-what-the-sandbox-leaves-open.md) and
[83](decisions/0083-the-escape-tool-with-a-function.md).
";

fn pages() -> String {
    let mut text = HEAD.to_owned() + CALLS;
    let mut calls: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for role in Role::ALL {
        for Call { name, only, why, .. } in role.calls() {
            calls.entry((name, only.to_string(), why)).or_default().push(role);
        }
    }
    for ((name, only, why), roles) in calls {
        let name = name.trim_start_matches("SYS_");
        writeln!(text, "| `{name}` | {} | {only} | {why} |", all(&roles)).unwrap();
    }
    text += REQUESTS;
    let mut requests: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for role in Role::ALL {
        for request in role.ioctls() {
            requests.entry(request).or_default().push(role);
        }
    }
    for ((request, what), roles) in requests {
        let (name, why) = what.split_once(": ").expect("a name and a reason");
        writeln!(text, "| `{name}` ({request:#x}) | {} | {why} |", all(&roles)).unwrap();
    }
    let others: Vec<_> = IOCTLS.iter().map(|(name, _)| format!("`{name}`")).collect();
    writeln!(text, "\nTried in every role, each the end: {}.", others.join(", ")).unwrap();
    text += ATTEMPTS;
    for (class, attempts) in CLASSES.iter().chain([&(function::CLASS, function::ATTEMPTS)]) {
        writeln!(
            text,
            "\n### {class}\n\n| tried | with the filter | without |\n| --- | --- | --- |"
        )
        .unwrap();
        for it in *attempts {
            writeln!(text, "| {} | {} | {} |", it.what, filtered(it), several(it.bare)).unwrap();
        }
    }
    text
}

fn all(roles: &[Role]) -> String {
    if roles.len() == Role::ALL.len() {
        return "all".to_owned();
    }
    let names: Vec<_> = roles.iter().map(|role| format!("{role:?}").to_lowercase()).collect();
    names.join(", ")
}

fn filtered(it: &Attempt) -> String {
    let Some((_, verdicts)) = it.allowed.first() else { return "the end".to_owned() };
    let roles: Vec<_> = it.allowed.iter().map(|(role, _)| *role).collect();
    match roles.len() == Role::ALL.len() {
        true => several(verdicts),
        false => format!("{}: {}; others the end", all(&roles), several(verdicts)),
    }
}

fn several(verdicts: &[Verdict]) -> String {
    if verdicts.contains(&Verdict::Out) {
        return "-".to_owned();
    }
    assert!(!verdicts.contains(&FORBIDDEN), "without a filter nothing ends so");
    verdicts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

#[test]
fn the_sandboxs_document_says_what_the_filters_allow_and_what_was_tried() {
    hold(Part::Vmm, &pages(), "cargo test -p bulkhead-vmm --lib sandbox");
}
