//! What the doctor mends by itself: [`Repair`] says what, each finding whether.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use control::findings::{Diagnosis, Finding, Repair, RepairOutcome};
use printable::explain;

/// The package's list of its groups and accounts, and where it is; IT may put another of that name over it, as sysusers.d(5) says.
const ACCOUNTS: &str = "bulkhead.conf";
const LIST: &str = "usr/lib/sysusers.d/bulkhead.conf";

/// Runs programs of the distribution; a test stands in for it.
pub type Run<'a> = dyn FnMut(&str, &[&str]) -> io::Result<()> + 'a;

/// Examines a PC, mends what it finds and can mend, and examines it again.
pub fn mend(examine: impl Fn() -> Vec<Finding>, run: &mut Run<'_>) -> Diagnosis {
    let findings = examine();
    // One repair may be what several findings ask for.
    let repairs: BTreeSet<Repair> = findings.iter().filter_map(|it| it.repair.clone()).collect();
    if repairs.is_empty() {
        return Diagnosis { findings, repairs: Vec::new() };
    }
    let repairs = repairs.into_iter().map(|what| {
        let problem = make(&what, run).err().map(|error| explain(&error));
        RepairOutcome { what, problem }
    });
    let repairs = repairs.collect();
    Diagnosis { findings: examine(), repairs }
}

fn make(repair: &Repair, run: &mut Run<'_>) -> io::Result<()> {
    match repair {
        Repair::LoadModule(name) => run("modprobe", &[name]),
        Repair::CreateAccounts => run("systemd-sysusers", &[ACCOUNTS]),
        Repair::CreateGroup(name) => run("groupadd", &["--system", name]),
    }
}

/// Returns what makes the package's groups and accounts, if its list is there.
pub(super) fn accounts(root: &Path) -> Option<Repair> {
    root.join(LIST).exists().then_some(Repair::CreateAccounts)
}

/// Returns what makes a group.
pub(super) fn group(name: &str) -> Repair {
    Repair::CreateGroup(name.to_owned())
}
