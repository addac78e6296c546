//! What is to be said of groups that setup cannot make, and of numbers that somebody else may take.

use base::accounts::{Accounts, RESERVED};
use base::sockets::without_group;
use config::machine::{Kind, Machine};

/// Returns what is to be said of domains of others that can have no group of their own.
pub(crate) fn missing(machine: &Machine) -> Vec<String> {
    let external = machine.domains.iter().filter(|domain| domain.kind == Kind::External);
    let said = external.filter_map(|domain| {
        let (why, remedy) = without_group(&domain.name)?;
        Some(format!("{}: {why}; {remedy}", domain.name))
    });
    said.collect()
}

/// Returns what is to be said of accounts that may take the number of a VMM's user.
pub(crate) fn overlaps(accounts: &Accounts) -> Vec<String> {
    // What cannot be read the doctor says.
    let ranges = accounts.ranges_over(&RESERVED).unwrap_or_default();
    let said = ranges.iter().map(|range| {
        let (why, remedy) = range.explained();
        format!("{why}: {remedy}")
    });
    said.collect()
}
