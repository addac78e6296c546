//! The policy and the machine file in force.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clock::Moment;

use super::record;
use crate::control::roles::Caller;
use crate::files::{self, Files};
use crate::machine::Machine;
use crate::policy_store::{PolicyStore, Unsaved};
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
    remember_at: Moment,
}

/// How long after a failure the policy in force is written down again.
const RETRY: Duration = Duration::from_secs(10);

impl Papers {
    pub(super) fn new(files: Files, store: PolicyStore, machine: PathBuf, images: PathBuf) -> Self {
        Self { files, store, machine, images, remember_at: Moment::now() }
    }

    /// Writes down which policy is in force, if it is not yet. Until it is, an older one could take its place at the next start, so that nothing
    /// crosses; the desktops run all the same.
    pub(super) fn remember(&mut self, recorder: &mut Recorder) {
        if self.files.unsaved.is_empty() || Moment::now() < self.remember_at {
            return;
        }
        self.remember_at = Moment::now() + RETRY;
        match self.store.remember(&self.files.unsaved) {
            Ok(()) => {
                self.files.unsaved = Unsaved::default();
                recorder.withhold(None);
            }
            Err(refusal) => {
                let why =
                    format!("the policy in force cannot be remembered: {}", explain(&refusal));
                if recorder.withhold(Some(why.clone())) {
                    tracing::error!("nothing may cross: {why}");
                }
            }
        }
    }

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
        self.files.unsaved = Unsaved::default();
        tracing::info!(
            serial = self.files.policy.serial,
            signers = self.files.policy.signers.join(", "),
            "another policy is in force"
        );
        Ok(())
    }
}
