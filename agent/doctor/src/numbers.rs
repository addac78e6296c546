//! Whether the numbers that VMMs and workers run under are nobody else's on this PC, neither alone nor as part of a range that somebody may take numbers from.

use std::io;
use std::ops::RangeInclusive;

use domains::spec::{SANDBOX_ID_BASE, SANDBOX_IDS};
use worker_link::{USER, USER_FIRST};

use super::{Finding, SystemPaths};
use base::accounts::{Accounts, RESERVED, SubordinateRange};

const CHECK: &str = "vmm-users";
/// Of all reserved numbers those of VMMs, and of workers of one domain; of the last one, any other worker's, `worker-user` says who has it.
const OURS: [RangeInclusive<u32>; 2] =
    [USER_FIRST..=USER - 1, SANDBOX_ID_BASE..=SANDBOX_ID_BASE + SANDBOX_IDS - 1];
const _: () = {
    assert!(*RESERVED.start() == USER_FIRST && USER + 1 == SANDBOX_ID_BASE);
    assert!(*RESERVED.end() == SANDBOX_ID_BASE + SANDBOX_IDS - 1);
};

/// Returns a finding for each user number that both Bulkhead and an account of the PC have.
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
    for numbers in &OURS {
        holders.extend(accounts.holders_within(numbers)?);
    }
    if !holders.is_empty() {
        findings.push(Finding::warn(
            CHECK,
            format!(
                "{}, which VMMs and workers run under, are also these: {}",
                between(&RESERVED),
                holders.join(", ")
            ),
            "give them another number (`usermod -u`, `groupmod -g`), and restart the PC",
        ));
    }
    findings.extend(accounts.ranges_over(&RESERVED)?.iter().map(overlap));
    if findings.is_empty() {
        let message = format!(
            "{}, which VMMs and workers run under, are nobody's to take",
            between(&RESERVED)
        );
        findings.push(Finding::ok(CHECK, message));
    }
    Ok(findings)
}

/// Makes the finding that somebody may take numbers of ours.
fn overlap(range: &SubordinateRange) -> Finding {
    let (why, remedy) = range.explained();
    Finding::warn(CHECK, why, remedy)
}

fn between(numbers: &RangeInclusive<u32>) -> String {
    format!("{} to {}", numbers.start(), numbers.end())
}
