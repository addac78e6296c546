//! The policy and the machine file in force.
//!
//! To read a policy of the largest size takes longer than the event loop may be away from the seat and the guests. So a thread looks at
//! one that is to come into force, one at a time, while everything else goes on; what it finds is put in force by the event loop.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use audit::AuditEvent;
use clock::Moment;

use base::mailbox::Liveness;
use claims::ClaimedFunction;
use control::roles::Caller;
use control::server::Ticket;
use monitor::{MediatorId, Monitor};
use policy::Policy;
use printable::explain;

use config::domain_policies::{self, DomainPolicy};
use config::machine::{Disk, Kind, Machine};
use config::trust::TrustReport;

use crate::configuration::{self, Configuration};
use crate::entries;
use crate::policy_store::{Candidate, PolicyStore, TrustFound};

/// What the monitor knows it by: which policy is in force.
pub const POLICY: MediatorId = MediatorId::new("policy");

/// The configuration in force, where it came from, and the policy that is to follow it.
pub struct ActiveConfiguration {
    pub current: Configuration,
    store: PolicyStore,
    machine: PathBuf,
    images: PathBuf,
    remember_at: Moment,
    /// What of the trust store's report is not in the audit log yet.
    unrecorded_trust: TrustReport,
    examined: Option<Submission>,
}

/// A policy that a thread examines.
struct Submission {
    caller: Caller,
    ticket: Ticket,
    liveness: Liveness,
    found: mpsc::Receiver<CheckOutcome>,
}

/// What a thread found: the trust store that counts, if one can be told, and whether the policy may come into force.
pub struct CheckOutcome {
    trust: Option<TrustFound>,
    policy: Result<CheckedPolicy, String>,
}

/// A policy that may come into force, and what goes with it.
pub struct CheckedPolicy {
    candidate: Candidate,
    domain_policies: Vec<DomainPolicy>,
    machine: Machine,
}

/// How long after a failure the policy in force is written down again.
const RETRY: Duration = Duration::from_secs(10);

impl ActiveConfiguration {
    /// Goes by what was read from this store, this machine file and these images.
    #[must_use]
    pub fn new(
        current: Configuration,
        store: PolicyStore,
        machine: PathBuf,
        images: PathBuf,
    ) -> Self {
        let unrecorded_trust = current.trust.clone();
        let remember_at = Moment::since_start(Duration::ZERO);
        Self { current, store, machine, images, remember_at, unrecorded_trust, examined: None }
    }

    /// Returns a descriptor that becomes readable when a policy was examined; `None` while none is.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.examined.as_ref().map(|submission| submission.liveness.fd())
    }

    /// Writes down which policy is in force, if it is not yet. Until it is, an older one could take its place at the next start, so that nothing
    /// crosses; the desktops run all the same.
    pub fn remember(&mut self, monitor: &mut Monitor, now: Moment) {
        if self.current.unsaved.is_empty() || now < self.remember_at {
            return;
        }
        self.remember_at = now + RETRY;
        match self.store.remember(&mut self.current.unsaved) {
            Ok(()) => {
                monitor.withhold(None);
            }
            Err(refusal) => {
                let why =
                    format!("the policy in force cannot be remembered: {}", explain(&refusal));
                if monitor.withhold(Some(why.clone())) {
                    tracing::error!("nothing may cross: {why}");
                }
            }
        }
    }

    /// Returns what is to be noted of the trust store, once. That another counts is not said before it is remembered: until then the next start may find
    /// the one of before.
    pub fn trust_events(&mut self) -> Vec<AuditEvent> {
        let changed = match self.current.unsaved.trust_is_saved() {
            true => self.unrecorded_trust.changed.take(),
            false => None,
        };
        entries::trust(&TrustReport { changed, refused: self.unrecorded_trust.refused.take() })
    }

    /// Takes the trust store that was found with a policy into force, whatever becomes of the policy; what is new of it is for [`Self::trust_events`].
    fn take_trust(&mut self, found: &TrustFound) -> Result<(), String> {
        self.store.remember_trust(found).map_err(|refusal| explain(&refusal))?;
        let report = found.report();
        if report.refused != self.current.trust.refused {
            self.unrecorded_trust.refused.clone_from(&report.refused);
        }
        if report.changed.is_some() {
            self.unrecorded_trust.changed.clone_from(&report.changed);
            self.current.unsaved.supersede_trust(found);
        }
        if let Some(refused) = &self.unrecorded_trust.refused {
            tracing::error!("the trust store is refused, the one before counts: {}", refused.why);
        }
        self.current.trust = report.clone();
        Ok(())
    }

    /// Starts a thread that examines another policy. [`Self::found`] has the outcome later.
    ///
    /// # Errors
    /// Another one is being looked at, or it cannot be.
    pub fn submit(
        &mut self,
        caller: &Caller,
        policy: String,
        signatures: Option<String>,
    ) -> Result<Ticket, String> {
        if self.examined.is_some() {
            return Err("another policy is being looked at: try again when that is done".to_owned());
        }
        let (store, machine, images) =
            (self.store.clone(), self.machine.clone(), self.images.clone());
        let no_thread = |error| format!("no thread can be started to look at it: {error}");
        let (liveness, heartbeat) = Liveness::new().map_err(no_thread)?;
        let (outcome, found) = mpsc::channel();
        let look = move || {
            // Wakes the event loop at its end, also if this fails.
            let _heartbeat = heartbeat;
            let (trust, candidate) = store.consider(policy, signatures);
            let policy = candidate
                .map_err(|refusal| explain(&refusal))
                .and_then(|candidate| considered(&machine, &images, candidate));
            let _ = outcome.send(CheckOutcome { trust, policy });
        };
        thread::Builder::new().name("policy".to_owned()).spawn(look).map_err(no_thread)?;
        let ticket = Ticket::new();
        self.examined = Some(Submission { caller: caller.clone(), ticket, liveness, found });
        Ok(ticket)
    }

    /// Returns the outcome for the policy that was examined, and who asked for it; once.
    pub fn found(&mut self) -> Option<(Caller, Ticket, CheckOutcome)> {
        let submission = self.examined.as_ref()?;
        // Asked before what it found: a thread that has ended finds nothing more.
        let ended = submission.liveness.has_ended();
        let found = match submission.found.try_recv() {
            Ok(found) => found,
            Err(_) if ended => {
                let why = "the agent failed while it looked at it, which is a fault of Bulkhead's: report it with the log".to_owned();
                CheckOutcome { trust: None, policy: Err(why) }
            }
            Err(_) => return None,
        };
        let Submission { caller, ticket, .. } = self.examined.take()?;
        Some((caller, ticket, found))
    }

    /// Returns whether a policy may follow the one that is in force now: the last good one on the disk, against which it was looked at, may be older.
    fn follows(&self, next: &Policy) -> Result<(), String> {
        let (now, signed) = (&self.current.policy, self.current.policy_report.signed);
        let (before, after) = (now.source().text(), next.source().text());
        self.store
            .follows((now.serial(), before), (next.serial(), after), signed)
            .map_err(|refusal| explain(&refusal))
    }

    /// Returns who asked for the policy that is still being examined.
    #[must_use]
    pub fn asked_by(&self) -> Option<&Caller> {
        self.examined.as_ref().map(|submission| &submission.caller)
    }

    /// Takes what a thread found: the trust store, and the policy if it may come into force. The caller tells domains, seat and mediators.
    ///
    /// # Errors
    /// Why it does not come into force, and what to do instead.
    pub fn take(
        &mut self,
        monitor: &mut Monitor,
        caller: &Caller,
        CheckOutcome { trust, policy }: CheckOutcome,
    ) -> Result<(), String> {
        // By whom a policy is approved counts before it does, and whether or not it comes into force.
        let taken = trust.map_or(Ok(()), |trust| self.take_trust(&trust));
        let news = self.trust_events();
        if !news.is_empty() {
            monitor.note(&news);
        }
        // Why the policy is refused says more than that a trust store could not be written.
        let considered = policy?;
        taken?;
        self.apply(monitor, caller, considered)
    }

    /// Puts another policy in force without touching a guest.
    fn apply(
        &mut self,
        monitor: &mut Monitor,
        caller: &Caller,
        considered: CheckedPolicy,
    ) -> Result<(), String> {
        let CheckedPolicy { candidate, domain_policies, machine } = considered;
        let names = |machine: &Machine| -> Vec<String> {
            machine.domains.iter().map(|domain| domain.name.clone()).collect()
        };
        if names(&machine) != names(&self.current.machine) {
            return Err(format!(
                "this PC runs the domains {}, and the machine file now has {}: restart the agent first, then apply the policy",
                names(&self.current.machine).join(", "),
                names(&machine).join(", "),
            ));
        }
        if checked_against(&machine) != checked_against(&self.current.machine) {
            return Err("the machine file was changed since the agent started, and the policy was held against what nothing runs by yet: restart the agent first, then apply the policy; or put both files in place and restart it".to_owned());
        }
        self.follows(&candidate.policy)?;
        // A wider policy that nobody can be held to account for does not come into force.
        let event = entries::policy_applied(caller, &candidate);
        let permit = monitor
            .authorize_own(POLICY, None, event, candidate)
            .map_err(|refused| format!("it does not come into force: {refused}"))?;
        let in_force = self.store.commit(permit).map_err(|refusal| explain(&refusal))?;
        self.current.domain_policies = domain_policies;
        self.current.policy_report = configuration::report(&self.store, &in_force);
        self.current.policy = Arc::new(in_force.policy);
        self.current.trust = in_force.trust;
        self.current.unsaved = in_force.unsaved;
        tracing::info!(
            serial = self.current.policy_report.serial,
            signers = self.current.policy_report.signers.join(", "),
            "another policy is in force"
        );
        Ok(())
    }
}

/// Returns what a policy is checked against in a machine file: of each domain who runs it, its NIC and its disks.
fn checked_against(machine: &Machine) -> Vec<Option<(Option<&ClaimedFunction>, &[Disk])>> {
    let mut all = Vec::new();
    for domain in &machine.domains {
        all.push(match &domain.kind {
            Kind::External => None,
            Kind::Vm(hardware) => Some((hardware.nic.as_ref(), hardware.disks.as_slice())),
        });
    }
    all
}

fn considered(
    machine: &Path,
    images: &Path,
    candidate: Candidate,
) -> Result<CheckedPolicy, String> {
    let domain_policies = domain_policies::of(&candidate.policy);
    let machine =
        configuration::read_machine(machine, images, &domain_policies).map_err(|error| {
            format!("this PC's machine file does not go with it: {}", explain(&error))
        })?;
    Ok(CheckedPolicy { candidate, domain_policies, machine })
}

#[cfg(test)]
mod tests;
