//! The two files that say what runs on this PC, checked against each other.

use std::path::Path;
use std::sync::Arc;

use policy::Policy;
use policy::enforcement::{self, GapOccurrence};

use config::domain_policies::{self, DomainPolicy};
use config::files::{FilesError, read_machine_text};
use config::machine::{Context, Kind, Machine};
use config::trust::TrustReport;
use control::protocol::PolicyReport;

use crate::policy_store::{InForce, PolicyStore, UnsavedState};

/// The machine file and the policy in force, checked against each other.
pub struct Configuration {
    /// The machine file: this PC's hardware, and which of it each domain has.
    pub machine: Machine,
    /// The domains of the policy, in its order.
    pub domain_policies: Vec<DomainPolicy>,
    /// The policy in force.
    pub policy: Arc<Policy>,
    /// What `status` says of it.
    pub policy_report: PolicyReport,
    /// What there is to say of the trust store that counts.
    pub trust: TrustReport,
    /// What the policy store has not remembered of it yet.
    pub unsaved: UnsavedState,
}

impl Configuration {
    /// Reads both. Every problem of a file is reported at once, and nothing is written.
    pub fn read(machine: &Path, store: &PolicyStore, images: &Path) -> Result<Self, FilesError> {
        let in_force = store.load()?;
        let domain_policies = domain_policies::of(&in_force.policy);
        let machine = read_machine(machine, images, &domain_policies)?;
        let policy_report = report(store, &in_force);
        let InForce { policy, trust, unsaved, .. } = in_force;
        Ok(Self {
            machine,
            domain_policies,
            policy: Arc::new(policy),
            policy_report,
            trust,
            unsaved,
        })
    }
}

/// Something that the policy in force says and nothing on this PC enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnenforcedSetting {
    /// What, and what is so instead.
    pub what: String,
    /// What to do about it, for whoever wrote the policy.
    pub remedy: String,
}

impl Configuration {
    /// Returns what `status` says of what is in force, besides what that is.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(why) = &self.policy_report.refused {
            notes.push(format!(
                "THE POLICY FILE IS REFUSED, the last good policy (serial {}) is in force: {why}",
                self.policy_report.serial
            ));
        }
        if let Some(refused) = &self.trust.refused {
            notes.push(format!(
                "THE TRUST STORE IS REFUSED, the one before (serial {}) counts: {}",
                refused.serial, refused.why
            ));
        }
        if !self.policy_report.signed {
            notes.push("the policy is unsigned: this machine has no trust store (trust.toml beside machine.toml), so nothing proves who wrote it".to_owned());
        }
        notes.extend(self.unenforced().into_iter().map(|found| {
            let UnenforcedSetting { what, remedy } = found;
            format!("{what}; {remedy}")
        }));
        let keeping_nothing = self.machine.keeping_nothing(&self.domain_policies);
        notes.extend(
            keeping_nothing.iter().map(|found| format!("{}; {}", found.what(), found.remedy())),
        );
        notes
    }

    /// Returns what the policy says and nothing on this PC enforces: because this version does not, or because a domain's VMM is somebody else's.
    #[must_use]
    pub fn unenforced(&self) -> Vec<UnenforcedSetting> {
        let unenforced = |said: GapOccurrence| UnenforcedSetting {
            what: format!("the policy's {said}"),
            remedy: said.gap.remedy.to_owned(),
        };
        let external =
            self.machine.domains.iter().filter(|domain| matches!(domain.kind, Kind::External));
        let keys = enforcement::of_the_vmm().collect::<Vec<_>>().join(", ");
        let elsewhere = external.map(|domain| UnenforcedSetting {
            what: format!(
                "{} is external: what the policy says of its {keys} is not enforced by Bulkhead",
                domain.name
            ),
            remedy: "see that whoever runs its VMM gives it the network, disks and share that the policy says".to_owned(),
        });
        self.policy.unenforced().into_iter().map(unenforced).chain(elsewhere).collect()
    }
}

/// Reads the machine file and checks it against the policy's domains.
pub fn read_machine(
    machine: &Path,
    images: &Path,
    domain_policies: &[DomainPolicy],
) -> Result<Machine, FilesError> {
    let text = read_machine_text(machine)?;
    let context = Context { images, domain_policies: Some(domain_policies) };
    Machine::parse(&machine.display().to_string(), &text, context).map_err(FilesError::Machine)
}

/// Returns what `status` says of the policy in force.
#[must_use]
pub fn report(store: &PolicyStore, in_force: &InForce) -> PolicyReport {
    PolicyReport {
        file: store.file().display().to_string(),
        serial: in_force.policy.serial(),
        issuer: in_force.policy.issuer().to_owned(),
        signed: !in_force.signers.is_empty(),
        signers: in_force.signers.clone(),
        refused: in_force.refused.clone(),
    }
}
