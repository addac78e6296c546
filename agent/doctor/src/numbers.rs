//! Whether the numbers that VMMs run under are nobody else's on this PC, neither alone nor as part of a range that somebody may take numbers from.

use std::io;
use std::ops::RangeInclusive;

use domains::spec::{SANDBOX_ID_BASE, SANDBOX_IDS};
use worker_link::USER;

use super::{Finding, SystemPaths};
use base::accounts::{Accounts, SubordinateRange};

const CHECK: &str = "vmm-users";
/// What VMMs run under.
const VMMS: RangeInclusive<u32> = SANDBOX_ID_BASE..=SANDBOX_ID_BASE + SANDBOX_IDS - 1;
/// The same, and the worker's, of which `worker-user` says who has it.
const ALL: RangeInclusive<u32> = USER..=SANDBOX_ID_BASE + SANDBOX_IDS - 1;
/// Where accounts get ranges that setup and the distribution leave free.
const ELSEWHERE: u32 = 100_000;

/// Examines them.
pub(super) fn examine(system: &SystemPaths) -> Vec<Finding> {
    let accounts = Accounts::in_directory(&system.root.join("etc"));
    look(&accounts).unwrap_or_else(|error| {
        vec![Finding::warn(
            CHECK,
            format!("not looked at: {error}"),
            "see that /etc/passwd, /etc/group, /etc/subuid and /etc/subgid can be read",
        )]
    })
}

fn look(accounts: &Accounts) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut holders = Vec::new();
    for number in VMMS {
        let [users, groups] = accounts.holders(number)?;
        holders.extend(users.into_iter().map(|name| format!("user {name} ({number})")));
        holders.extend(groups.into_iter().map(|name| format!("group {name} ({number})")));
    }
    if !holders.is_empty() {
        findings.push(Finding::warn(
            CHECK,
            format!(
                "{}, which VMMs run under, are also these: {}",
                between(&VMMS),
                holders.join(", ")
            ),
            "give them another number (`usermod -u`, `groupmod -g`), and restart the PC",
        ));
    }
    findings.extend(accounts.ranges_over(&ALL)?.iter().map(overlap));
    if findings.is_empty() {
        let message =
            format!("{}, which VMMs and the worker run under, are nobody's to take", between(&ALL));
        findings.push(Finding::ok(CHECK, message));
    }
    Ok(findings)
}

/// Makes the finding that somebody may take numbers of ours.
fn overlap(range: &SubordinateRange) -> Finding {
    let SubordinateRange { owner, of_groups, numbers } = range;
    let (file, delete, add) = match of_groups {
        false => ("/etc/subuid", "--del-subuids", "--add-subuids"),
        true => ("/etc/subgid", "--del-subgids", "--add-subgids"),
    };
    let (first, last) = (numbers.start(), numbers.end());
    let elsewhere = ELSEWHERE.saturating_add(last.saturating_sub(*first));
    Finding::warn(
        CHECK,
        format!(
            "{owner} may take {} by {file}, and so some of {}, which VMMs and the worker run under",
            between(numbers),
            between(&ALL)
        ),
        format!(
            "`usermod {delete} {first}-{last} {owner}`; if {owner} needs numbers, others that nobody has (`usermod {add} {ELSEWHERE}-{elsewhere} {owner}`); then restart the PC"
        ),
    )
}

fn between(numbers: &RangeInclusive<u32>) -> String {
    format!("{} to {}", numbers.start(), numbers.end())
}
