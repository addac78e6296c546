//! The policy and the machine file in force.

use std::path::PathBuf;
use std::sync::Arc;

use super::record;
use crate::control::roles::Caller;
use crate::files::{self, Files};
use crate::machine::Machine;
use crate::policy_store::PolicyStore;
use crate::recorder::Recorder;
use crate::roster;
use crate::supervisor::Supervisor;
use crate::supervisor::devices::explain;

/// What is in force, and where it came from.
pub(super) struct Papers {
    pub(super) files: Files,
    pub(super) store: PolicyStore,
    pub(super) machine: PathBuf,
    pub(super) images: PathBuf,
}

impl Papers {
    /// Puts another policy in force without touching a guest. The seat and the mediators are told by the caller.
    pub(super) fn apply(
        &mut self,
        supervisor: &mut Supervisor,
        recorder: &mut Recorder,
        caller: &Caller,
        policy: String,
        signatures: Option<String>,
    ) -> Result<(), String> {
        let candidate =
            self.store.consider(policy, signatures).map_err(|refusal| explain(&refusal))?;
        let roster = roster::of(&candidate.policy);
        let machine =
            files::read_machine(&self.machine, &self.images, &roster).map_err(|error| {
                format!("this PC's machine file does not go with it: {}", explain(&error))
            })?;
        let names = |machine: &Machine| -> Vec<String> {
            machine.domains.iter().map(|domain| domain.name.clone()).collect()
        };
        if names(&machine) != names(&self.files.machine) {
            return Err(format!(
                "this PC runs the domains {}, and the machine file now has {}: restart the agent first, then apply the policy",
                names(&self.files.machine).join(", "),
                names(&machine).join(", "),
            ));
        }
        // A wider policy that nobody can be held to account for does not come into force.
        recorder.record(&[record::policy_applied(caller, &candidate)]).map_err(|problem| {
            format!("it cannot be recorded that it comes into force: {problem}")
        })?;
        let in_force = self.store.commit(candidate).map_err(|refusal| explain(&refusal))?;
        supervisor.take_roster(&roster);
        self.files.roster = roster;
        self.files.policy = files::report(&self.store, &in_force);
        self.files.rules = Arc::new(in_force.policy);
        tracing::info!(
            serial = self.files.policy.serial,
            signers = ?self.files.policy.signers,
            "another policy is in force"
        );
        Ok(())
    }
}
