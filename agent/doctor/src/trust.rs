//! Who may sign what on this PC: whether `trust.toml` counts, and which of its settings are weak.

use std::path::Path;

use policy::signature::{Purpose, TrustStore};

use super::Finding;
use config::trust::TrustRefused;
use inforce::policy_store::PolicyStore;

const CHECK: &str = "trust-store";

/// Examines the trust store. It finds nothing where there is none, or none that can be read: the policy's own findings say so. Who may not read what
/// the PC remembers is told so, as the file may not count.
pub(super) fn examine(store: &PolicyStore, machine: &Path) -> Vec<Finding> {
    let hidden = store.hidden_trust().map(|remembered| {
        Finding::warn(
            CHECK,
            format!(
                "not looked at: the trust store that this PC remembers cannot be read ({}), so that it is not known whether {} counts",
                remembered.display(),
                machine.with_file_name("trust.toml").display()
            ),
            "run `bulkhead doctor` as root",
        )
    });
    let mut findings = Vec::from_iter(hidden);
    let Ok((Some(trust), report)) = store.trust() else { return findings };
    if let Some(TrustRefused { serial, why }) = report.refused {
        findings.push(Finding::fail(
            CHECK,
            format!("the trust store is refused, and the one before (serial {serial}) counts: {why}"),
            format!(
                "lay down what the security office signed: {0} and {0}.sig (\"The trust store\" in the policy handbook)",
                machine.with_file_name("trust.toml").display()
            ),
        ));
    }
    let weak = trust.weaknesses().into_iter();
    findings.extend(weak.map(|found| Finding::warn(CHECK, found.what, found.remedy)));
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, said(&trust)));
    }
    findings
}

fn said(trust: &TrustStore) -> String {
    let needed = Purpose::ALL.into_iter().filter_map(|purpose| {
        let threshold = trust.threshold(purpose)?;
        Some(format!("{purpose} {threshold} of {}", trust.officers_for(purpose).count()))
    });
    let needed = needed.collect::<Vec<_>>().join(", ");
    match trust.serial() {
        Some(serial) => format!("serial {serial}; {needed}"),
        None => format!("format 1, for policies only; {needed}"),
    }
}
