//! Which policy is in force: the file, if it is without mistakes, signed by enough officers and not older than what was in force
//! before; otherwise the last good one.
//!
//! | file | what | who writes |
//! | --- | --- | --- |
//! | `policy.toml`, `policy.toml.sig` | the policy and its signatures | the security office, by `bulkhead policy apply` or IT's roll-out |
//! | `trust.toml`, `trust.toml.sig` beside the machine file | who may sign what, how many must, and the signatures of a change; without it policies are taken unsigned | IT |
//! | `<state>/trust.json` | the trust store whose changes have to be signed, see [`config::trust`] | the agent |
//! | `<state>/policy.json` | the last good one, whole, so that a refused or missing file stops no desktop | the agent |
//!
//! The last good one is written first, in one piece: a PC that loses power in the middle of a roll-out comes back with the new policy
//! or the old one, never with neither.

use std::io;
use std::path::{Path, PathBuf};

use audit::events::PolicyApplied;
use monitor::{Grant, NoRule, Permit};
use policy::Policy;
use policy::signature::{PolicyText, Signatures, TrustStore};
use serde::{Deserialize, Serialize};

use base::durable;
use base::layout;
pub use config::files::Refusal;
use config::files::{self, FilesError, HigherSerial, read_small, signature_file};
use config::trust::{RememberedTrust, TrustFiles, TrustInForce, TrustReport};
use printable::explain;

/// The files that the policy in force comes from: the policy, the trust store, and the last good policy.
#[derive(Debug, Clone)]
pub struct PolicyStore {
    file: PathBuf,
    trust: TrustFiles,
    last_good: Option<PathBuf>,
}

/// The policy in force.
#[derive(Debug)]
pub struct InForce {
    pub policy: Policy,
    /// The officers who signed it; none if it was taken unsigned.
    pub signers: Vec<String>,
    /// Why this is the last good one and not the file.
    pub refused: Option<String>,
    /// What there is to say of the trust store that counts.
    pub trust: TrustReport,
    /// What [`PolicyStore::remember`] has to write.
    pub unsaved: UnsavedState,
}

/// What of the policy in force is not written down yet.
#[derive(Debug, Default)]
pub struct UnsavedState {
    good: Option<LastGoodPolicy>,
    trust: Option<RememberedTrust>,
}

impl UnsavedState {
    /// Returns whether all of it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.good.is_none() && self.trust.is_none()
    }

    /// Lets another trust store count: it takes the place of one that is still to be written, which would undo it.
    pub fn supersede_trust(&mut self, found: &TrustFound) {
        if self.trust.is_some() && found.unsaved.is_some() {
            self.trust.clone_from(&found.unsaved);
        }
    }

    /// Returns whether the trust store that counts is.
    #[must_use]
    pub fn trust_is_saved(&self) -> bool {
        self.trust.is_none()
    }
}

/// Which trust store counts, as it was found when a policy was considered, whatever became of that.
#[derive(Debug)]
pub struct TrustFound {
    report: TrustReport,
    unsaved: Option<RememberedTrust>,
}

impl TrustFound {
    /// Returns what there is to say of the policy.
    #[must_use]
    pub fn report(&self) -> &TrustReport {
        &self.report
    }
}

/// A policy that may come into force. Only a [`PolicyStore`] makes one.
#[derive(Debug)]
pub struct Candidate {
    pub policy: Policy,
    good: LastGoodPolicy,
    trust: TrustReport,
    /// The trust store to be remembered.
    unsaved: Option<RememberedTrust>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LastGoodPolicy {
    serial: u64,
    text: String,
    signatures: Option<String>,
    signers: Vec<String>,
}

impl Grant for Candidate {
    type Event = PolicyApplied;
    type Owed = NoRule;
}

impl Candidate {
    /// Returns the officers who signed it; none if it is taken unsigned.
    #[must_use]
    pub fn signers(&self) -> &[String] {
        &self.good.signers
    }
}

impl PolicyStore {
    /// Makes the store of the policy `file` on the PC that `machine` describes. `state` is the agent's directory; without it
    /// nothing is remembered, which is for looking only.
    #[must_use]
    pub fn new(file: &Path, machine: &Path, state: Option<&Path>) -> Self {
        Self {
            file: file.to_owned(),
            trust: TrustFiles::new(machine, state),
            last_good: state.map(|state| state.join("policy.json")),
        }
    }

    /// Makes the same store to look at the file only: no last good policy stands in for it, and a trust store that root remembers counts for
    /// those who may read it.
    #[must_use]
    pub fn for_looking(file: &Path, machine: &Path, state: &Path) -> Self {
        Self { trust: TrustFiles::for_looking(machine, state), ..Self::new(file, machine, None) }
    }

    /// Returns the policy's file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the trust store that counts, and what there is to say of it; no store where policies are taken unsigned.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn trust(&self) -> Result<(Option<TrustStore>, TrustReport), Refusal> {
        self.trust.in_force().map(|trust| (trust.store, trust.report))
    }

    /// Returns the trust store that the PC remembers, or may remember, if whoever looks may not read it: it is not known then whether the file counts.
    #[must_use]
    pub fn hidden_trust(&self) -> Option<&Path> {
        self.trust.hidden()
    }

    /// Reads the policy to be put in force at start: the file, or the last good one. Nothing is written until [`Self::remember`].
    ///
    /// # Errors
    /// The file is refused, and there is no last good one.
    pub fn load(&self) -> Result<InForce, FilesError> {
        let good = self.last_good();
        let trust = self.trust.in_force();
        let (report, memory) = match &trust {
            Ok(trust) => (trust.report.clone(), trust.unsaved.clone()),
            Err(_) => (TrustReport::default(), None),
        };
        let candidate = match trust {
            Ok(trust) => self.candidate_in_file(good.as_ref(), trust),
            Err(refusal) => Err(FilesError::Refused(refusal)),
        };
        let refused = match candidate {
            Ok(Candidate { policy, good: new, .. }) => {
                let signers = new.signers.clone();
                let new = Some(new).filter(|new| good.as_ref() != Some(new));
                let unsaved = UnsavedState { good: new, trust: memory };
                return Ok(InForce { policy, signers, refused: None, trust: report, unsaved });
            }
            Err(error) => error,
        };
        let Some(good) = good else { return Err(refused) };
        match Policy::parse("the last good policy", &good.text) {
            Ok(policy) => {
                let refused = Some(explain(&refused));
                // Who may sign changes, also if what they signed last is not in force.
                let unsaved = UnsavedState { good: None, trust: memory };
                Ok(InForce { policy, signers: good.signers, refused, trust: report, unsaved })
            }
            Err(_) => Err(refused),
        }
    }

    fn candidate_in_file(
        &self,
        good: Option<&LastGoodPolicy>,
        trust: TrustInForce,
    ) -> Result<Candidate, FilesError> {
        let text = files::read_policy_in_force(&self.file)?;
        let beside = signature_file(&self.file);
        let signatures = read_small(&beside)
            .map_err(|source| FilesError::Refused(Refusal::Read { path: beside, source }))?;
        self.check(&self.file.display().to_string(), text, signatures, good, trust).map_err(
            |refusal| match refusal {
                Refusal::Mistakes(found) => FilesError::Policy(found),
                other => FilesError::Refused(other),
            },
        )
    }

    /// Returns whether a policy may come into force here and now, and which trust store counts, by which it may or may not. That one
    /// is to be remembered with [`Self::remember_trust`] in both cases; there is none if it cannot be read. Nothing is changed.
    pub fn consider(
        &self,
        text: String,
        signatures: Option<String>,
    ) -> (Option<TrustFound>, Result<Candidate, Refusal>) {
        let trust = match self.trust.in_force() {
            Ok(trust) => trust,
            Err(refusal) => return (None, Err(refusal)),
        };
        let found = TrustFound { report: trust.report.clone(), unsaved: trust.unsaved.clone() };
        let candidate =
            self.check("the policy", text, signatures, self.last_good().as_ref(), trust);
        (Some(found), candidate)
    }

    /// Stores the trust store that was found, which is in force from here on, also if no policy comes into force by it.
    ///
    /// # Errors
    /// It could not be written; the one of before counts at the next look, if it still may.
    pub fn remember_trust(&self, found: &TrustFound) -> Result<(), Refusal> {
        self.trust.remember(found.unsaved.as_ref())
    }

    fn check(
        &self,
        name: &str,
        text: String,
        signatures: Option<String>,
        good: Option<&LastGoodPolicy>,
        trust: TrustInForce,
    ) -> Result<Candidate, Refusal> {
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > files::FILE_MAX {
            return Err(Refusal::TooLarge);
        }
        // Who stands behind a text is known before anything is done with it but to hash it: what nobody signed is not
        // even read.
        let TrustInForce { store: trust, report, unsaved } = trust;
        let signers = match &trust {
            None => Vec::new(),
            Some(trust) => {
                let written = signatures.as_deref().unwrap_or_default();
                let parsed: Signatures<PolicyText> = if written.is_empty() {
                    Signatures::default()
                } else {
                    Signatures::parse("its signatures", written).map_err(Refusal::Signatures)?
                };
                let approval = trust.approve(&text, &parsed).map_err(Refusal::NotApproved)?;
                approval.signers().to_vec()
            }
        };
        let policy = Policy::parse(name, &text).map_err(Refusal::Mistakes)?;
        let serial = policy.serial();
        if let Some(good) = good {
            self.follows((good.serial, &good.text), (serial, &text), trust.is_some())?;
        }
        let good = LastGoodPolicy { serial, text, signatures, signers };
        Ok(Candidate { policy, good, trust: report, unsaved })
    }

    /// Returns whether a policy may follow another, of each of which its serial and its text are given.
    ///
    /// # Errors
    /// It is older, or another with the same serial.
    pub fn follows(
        &self,
        (newest, text): (u64, &str),
        (serial, next): (u64, &str),
        signed: bool,
    ) -> Result<(), Refusal> {
        let remedy = || HigherSerial { signed, last_good: self.last_good.clone() };
        if serial < newest {
            return Err(Refusal::Older { serial, newest, remedy: remedy() });
        }
        // Signed or not: the audit log names a policy by its serial, and two of one serial could not be told apart in it.
        if serial == newest && next != text {
            return Err(Refusal::SerialTaken { serial, remedy: remedy() });
        }
        Ok(())
    }

    /// Puts a candidate in force: it survives a restart from here on, and the file says the same.
    ///
    /// # Errors
    /// It could not be written; what was in force still is.
    pub fn commit(&self, permit: Permit<Candidate>) -> Result<InForce, Refusal> {
        let Candidate { policy, good, trust, unsaved } = permit.into_grant();
        // By whom it is approved counts before it does, and whether or not it can be written.
        self.trust.remember(unsaved.as_ref())?;
        let before = self.last_good();
        let written = self.write_last_good(&good).and_then(|()| self.write_file(&good));
        if let Err(refusal) = written {
            let restored = match &before {
                Some(before) => self.write_last_good(before),
                None => self.forget_last_good(),
            };
            if let Err(error) = restored {
                tracing::error!("{}", explain(&error));
            }
            return Err(refusal);
        }
        let unsaved = UnsavedState::default();
        Ok(InForce { policy, signers: good.signers, refused: None, trust, unsaved })
    }

    fn write_file(&self, good: &LastGoodPolicy) -> Result<(), Refusal> {
        let beside = signature_file(&self.file);
        let written = match &good.signatures {
            Some(signatures) => durable::replace(&beside, signatures.as_bytes(), 0o644),
            None => durable::remove(&beside),
        };
        written.map_err(|source| Refusal::Write { path: beside, source })?;
        durable::replace(&self.file, good.text.as_bytes(), 0o644)
            .map_err(|source| Refusal::Write { path: self.file.clone(), source })
    }

    /// Makes what was loaded the last good one. What was written is unsaved no more, also if the rest could not be.
    ///
    /// # Errors
    /// It could not be written.
    pub fn remember(&self, unsaved: &mut UnsavedState) -> Result<(), Refusal> {
        self.trust.remember(unsaved.trust.as_ref())?;
        unsaved.trust = None;
        unsaved.good.as_ref().map_or(Ok(()), |good| self.write_last_good(good))?;
        unsaved.good = None;
        Ok(())
    }

    fn write_last_good(&self, good: &LastGoodPolicy) -> Result<(), Refusal> {
        let Some(path) = &self.last_good else { return Ok(()) };
        let write = || {
            layout::state_directory(durable::directory(path)).map_err(io::Error::other)?;
            durable::write(path, good)
        };
        write().map_err(|source| Refusal::Write { path: path.clone(), source })
    }

    /// Forgets the last good policy, as if there never had been one.
    fn forget_last_good(&self) -> Result<(), Refusal> {
        let Some(path) = &self.last_good else { return Ok(()) };
        durable::remove(path).map_err(|source| Refusal::Write { path: path.clone(), source })
    }

    /// Reads the last good policy. A read error is tolerated: the file is only a fallback.
    fn last_good(&self) -> Option<LastGoodPolicy> {
        let path = self.last_good.as_ref()?;
        durable::read(path).unwrap_or_else(|error| {
            tracing::error!("the last good policy {} cannot be read: {error}", path.display());
            None
        })
    }
}

#[cfg(test)]
mod tests;
