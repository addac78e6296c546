//! Which policy is in force: the file, if it is without mistakes, signed by enough officers and not older than what was in force
//! before; otherwise the last good one.
//!
//! | file | what | who writes |
//! | --- | --- | --- |
//! | `policy.toml`, `policy.toml.sig` | the policy and its signatures | the security office, by `bulkhead policy apply` or IT's roll-out |
//! | `trust.toml` beside the machine file | who may sign, how many must; without it policies are taken unsigned | IT |
//! | `<state>/policy.json` | the last good one, whole, so that a refused or missing file stops no desktop | the agent |
//!
//! The last good one is written first, in one piece: a PC that loses power in the middle of a roll-out comes back with the new policy
//! or the old one, never with neither.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use policy::Policy;
use policy::diagnostic::Diagnostics;
use policy::signature::{self, Signatures, TrustStore};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::durable;
use crate::files::{self, FileFault, FilesError};
use crate::layout;
use crate::supervisor::devices::explain;

/// Largest signature file and trust store, in bytes.
const SMALL_MAX: u64 = 64 << 10;

/// Where the policy in force comes from.
#[derive(Debug, Clone)]
pub struct PolicyStore {
    file: PathBuf,
    trust: PathBuf,
    last_good: Option<PathBuf>,
}

/// The policy in force.
#[derive(Debug)]
pub struct InForce {
    /// Itself.
    pub policy: Policy,
    /// The officers who signed it; none if it was taken unsigned.
    pub signers: Vec<String>,
    /// Why this is the last good one and not the file.
    pub refused: Option<String>,
    /// What [`PolicyStore::remember`] has to write.
    pub unsaved: Unsaved,
}

/// What of the policy in force is not written down yet.
#[derive(Debug, Default)]
pub struct Unsaved(Option<Good>);

impl Unsaved {
    /// Whether all of it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// A policy that may come into force. Only a [`PolicyStore`] makes one.
#[derive(Debug)]
pub struct Candidate {
    /// Itself.
    pub policy: Policy,
    good: Good,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Good {
    serial: u64,
    text: String,
    signatures: Option<String>,
    signers: Vec<String>,
}

/// Why a policy does not come into force. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It has mistakes.
    #[error("the policy has mistakes: {0}")]
    Mistakes(Diagnostics),
    /// The signature file has mistakes.
    #[error("its signatures cannot be read: {0}")]
    Signatures(Diagnostics),
    /// The trust store has mistakes.
    #[error("the trust store has mistakes, so that no policy can be approved: {0}")]
    Trust(Diagnostics),
    /// Too few officers signed it.
    #[error("{0}")]
    NotApproved(signature::Refusal),
    /// It is older than one that was in force.
    #[error("it has serial {serial}, and {newest} was in force already: give it a serial above {newest}{}", once_more(*.signed))]
    Older {
        /// Its serial.
        serial: u64,
        /// The highest one so far.
        newest: u64,
        /// Whether officers have to sign it.
        signed: bool,
    },
    /// Its serial belongs to another.
    #[error(
        "another policy with serial {serial} was in force already: give this one a serial above {serial}{}", once_more(*.signed)
    )]
    SerialTaken {
        /// The serial of both.
        serial: u64,
        /// Whether officers have to sign it.
        signed: bool,
    },
    /// It could not be read back from its file.
    #[error("the policy is larger than {} MiB: split its rules by what they share", files::FILE_MAX >> 20)]
    TooLarge,
    /// A file cannot be written.
    #[error("cannot write {}: check that its disk has room and is not read-only", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}: check that it is there and its rights", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What ends with every change to a text.
const fn once_more(signed: bool) -> &'static str {
    if signed { " and have it signed" } else { "" }
}

impl Candidate {
    /// The officers who signed it; none if it is taken unsigned.
    #[must_use]
    pub fn signers(&self) -> &[String] {
        &self.good.signers
    }
}

impl PolicyStore {
    /// The policy `file` on the PC that `machine` describes. `state` is the agent's directory; without it nothing is remembered,
    /// which is for looking only.
    #[must_use]
    pub fn new(file: &Path, machine: &Path, state: Option<&Path>) -> Self {
        Self {
            file: file.to_owned(),
            trust: machine.with_file_name("trust.toml"),
            last_good: state.map(|state| state.join("policy.json")),
        }
    }

    /// The policy's file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The policy to be put in force at start: the file, or the last good one. Nothing is written until [`Self::remember`].
    ///
    /// # Errors
    /// The file is refused, and there is no last good one.
    pub fn load(&self) -> Result<InForce, FilesError> {
        let good = self.last_good();
        let refused = match self.candidate_in_file(good.as_ref()) {
            Ok(Candidate { policy, good: new }) => {
                let signers = new.signers.clone();
                let unsaved = Unsaved(Some(new).filter(|new| good.as_ref() != Some(new)));
                return Ok(InForce { policy, signers, refused: None, unsaved });
            }
            Err(error) => error,
        };
        let Some(good) = good else { return Err(refused) };
        match Policy::parse("the last good policy", &good.text) {
            Ok(policy) => {
                let refused = Some(explain(&refused));
                Ok(InForce { policy, signers: good.signers, refused, unsaved: Unsaved::default() })
            }
            Err(_) => Err(refused),
        }
    }

    fn candidate_in_file(&self, good: Option<&Good>) -> Result<Candidate, FilesError> {
        let text = files::read_policy_in_force(&self.file)?;
        let beside = signature_file(&self.file);
        let signatures = read_small(&beside)
            .map_err(|source| FilesError::Refused(Refusal::Read { path: beside, source }))?;
        self.check(&self.file.display().to_string(), text, signatures, good).map_err(|refusal| {
            match refusal {
                Refusal::Mistakes(found) => FilesError::Policy(found),
                other => FilesError::Refused(other),
            }
        })
    }

    /// Whether a policy may come into force here and now. Nothing is changed.
    ///
    /// # Errors
    /// Why it may not.
    pub fn consider(&self, text: String, signatures: Option<String>) -> Result<Candidate, Refusal> {
        self.check("the policy", text, signatures, self.last_good().as_ref())
    }

    fn check(
        &self,
        name: &str,
        text: String,
        signatures: Option<String>,
        good: Option<&Good>,
    ) -> Result<Candidate, Refusal> {
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > files::FILE_MAX {
            return Err(Refusal::TooLarge);
        }
        // Who stands behind a text is known before anything is done with it but to hash it: what nobody signed is not
        // even read.
        let trust = self.trust()?;
        let signers = match &trust {
            None => Vec::new(),
            Some(trust) => {
                let written = signatures.as_deref().unwrap_or_default();
                let parsed = if written.is_empty() {
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
            let signed = trust.is_some();
            if serial < good.serial {
                return Err(Refusal::Older { serial, newest: good.serial, signed });
            }
            // Signed or not: the audit log names a policy by its serial, and two of one serial could not be told apart in it.
            if serial == good.serial && text != good.text {
                return Err(Refusal::SerialTaken { serial, signed });
            }
        }
        Ok(Candidate { policy, good: Good { serial, text, signatures, signers } })
    }

    fn trust(&self) -> Result<Option<TrustStore>, Refusal> {
        let path = &self.trust;
        let text =
            read_small(path).map_err(|source| Refusal::Read { path: path.clone(), source })?;
        let parse = |text: String| TrustStore::parse(&path.display().to_string(), &text);
        text.map(parse).transpose().map_err(Refusal::Trust)
    }

    /// Puts a candidate in force: it survives a restart from here on, and the file says the same.
    ///
    /// # Errors
    /// It could not be written; what was in force still is.
    pub fn commit(&self, candidate: Candidate) -> Result<InForce, Refusal> {
        let Candidate { policy, good } = candidate;
        let before = self.last_good();
        let written = self.write_last_good(&good).and_then(|()| self.write_file(&good));
        if let Err(refusal) = written {
            if let Some(before) = before
                && let Err(error) = self.write_last_good(&before)
            {
                tracing::error!("{}", explain(&error));
            }
            return Err(refusal);
        }
        Ok(InForce { policy, signers: good.signers, refused: None, unsaved: Unsaved::default() })
    }

    fn write_file(&self, good: &Good) -> Result<(), Refusal> {
        let beside = signature_file(&self.file);
        let written = match &good.signatures {
            Some(signatures) => durable::replace(&beside, signatures.as_bytes(), 0o644),
            None => remove(&beside),
        };
        written.map_err(|source| Refusal::Write { path: beside, source })?;
        durable::replace(&self.file, good.text.as_bytes(), 0o644)
            .map_err(|source| Refusal::Write { path: self.file.clone(), source })
    }

    /// Makes what was loaded the last good one.
    ///
    /// # Errors
    /// It could not be written.
    pub fn remember(&self, unsaved: &Unsaved) -> Result<(), Refusal> {
        unsaved.0.as_ref().map_or(Ok(()), |good| self.write_last_good(good))
    }

    fn write_last_good(&self, good: &Good) -> Result<(), Refusal> {
        let Some(path) = &self.last_good else { return Ok(()) };
        let write = || {
            layout::state_directory(durable::directory(path)).map_err(io::Error::other)?;
            durable::write(path, good)
        };
        write().map_err(|source| Refusal::Write { path: path.clone(), source })
    }

    /// What cannot be read is put up with: it is a second copy.
    fn last_good(&self) -> Option<Good> {
        let path = self.last_good.as_ref()?;
        durable::read(path).unwrap_or_else(|error| {
            tracing::error!("the last good policy {} cannot be read: {error}", path.display());
            None
        })
    }
}

/// Where the signatures of a policy lie.
#[must_use]
pub fn signature_file(policy: &Path) -> PathBuf {
    let mut name = policy.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// A small file's text; `None` if there is no such file.
pub fn read_small(path: &Path) -> io::Result<Option<String>> {
    there(files::text_of(path, SMALL_MAX))
}

/// The same of a secret: no copy of it is left in memory.
pub fn read_secret(path: &Path) -> io::Result<Option<Zeroizing<String>>> {
    there(files::secret_in(path, SMALL_MAX))
}

fn there<T>(read: Result<T, FileFault>) -> io::Result<Option<T>> {
    match read {
        Ok(text) => Ok(Some(text)),
        Err(FileFault::Missing) => Ok(None),
        Err(FileFault::Other(error)) => Err(error),
        Err(fault) => Err(io::Error::other(fault)),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::signature::SecretKey;

    struct Pc {
        dir: tempfile::TempDir,
        store: PolicyStore,
    }

    fn policy(serial: u64, note: &str) -> String {
        let text = policy::officer::STARTER.replace("serial = 1", &format!("serial = {serial}"));
        assert!(text.contains(&format!("serial = {serial}")));
        format!("{text}\n# {note}\n")
    }

    fn key(number: u8) -> SecretKey {
        SecretKey::from_random(&Zeroizing::new([number; 32]))
    }

    fn signed(text: &str, keys: &[u8]) -> Option<String> {
        let mut signatures = Signatures::default();
        keys.iter().for_each(|number| signatures.sign(text, &key(*number)));
        Some(signatures.text())
    }

    impl Pc {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (file, machine) = (dir.path().join("policy.toml"), dir.path().join("machine.toml"));
            let store = PolicyStore::new(&file, &machine, Some(dir.path()));
            Self { dir, store }
        }

        fn trusting(threshold: usize) -> Self {
            let this = Self::new();
            let mut text = format!("format = 1\nthreshold = {threshold}\n");
            for number in 0..2 {
                text += &format!(
                    "[[officer]]\nname = \"officer {number}\"\nkey = \"{}\"\n",
                    key(number).public()
                );
            }
            fs::write(this.dir.path().join("trust.toml"), text).unwrap();
            this
        }

        fn lay(&self, text: &str, signatures: Option<String>) {
            fs::write(self.store.file(), text).unwrap();
            match signatures {
                Some(signatures) => {
                    fs::write(signature_file(self.store.file()), signatures).unwrap();
                }
                None => remove(&signature_file(self.store.file())).unwrap(),
            }
        }

        /// As at the agent's start.
        fn start(&self) -> Result<InForce, FilesError> {
            let in_force = self.store.load()?;
            self.store.remember(&in_force.unsaved).unwrap();
            Ok(in_force)
        }

        fn apply(&self, text: &str, signatures: Option<String>) -> Result<InForce, Refusal> {
            self.store.commit(self.store.consider(text.to_owned(), signatures)?)
        }
    }

    #[test]
    fn a_pc_without_a_trust_store_takes_a_policy_unsigned_and_says_so() {
        let pc = Pc::new();
        pc.lay(&policy(1, "a"), None);
        let in_force = pc.start().unwrap();
        assert!(in_force.signers.is_empty() && in_force.refused.is_none());
        pc.lay(&policy(2, "b"), None);
        assert!(pc.start().unwrap().refused.is_none());
    }

    #[test]
    fn two_policies_never_have_one_serial_whether_they_are_signed_or_not() {
        for trusting in [false, true] {
            let pc = if trusting { Pc::trusting(1) } else { Pc::new() };
            let laid = |text: &str| pc.lay(text, trusting.then(|| signed(text, &[0])).flatten());
            let (first, other) = (policy(3, "a"), policy(3, "b"));
            laid(&first);
            pc.start().unwrap();
            laid(&other);
            let why = pc.start().unwrap().refused.unwrap();
            assert!(why.contains("give this one a serial above 3"), "{why}");
            assert_eq!(why.contains("have it signed"), trusting, "{why}");
            let refused = pc.apply(&other, signed(&other, &[0]));
            assert!(matches!(refused, Err(Refusal::SerialTaken { serial: 3, .. })), "{refused:?}");
            // The same text is no other policy, whoever signs it once more.
            laid(&first);
            assert_eq!(pc.start().unwrap().refused, None);
            let again = pc.apply(&first, signed(&first, &[0, 1])).unwrap();
            assert_eq!(
                (again.policy.serial(), again.signers.len()),
                (3, if trusting { 2 } else { 0 })
            );
        }
    }

    // Shows: K-5.1.3.
    #[test]
    fn a_policy_needs_as_many_officers_as_the_trust_store_says() {
        let pc = Pc::trusting(2);
        let text = policy(1, "a");
        pc.lay(&text, signed(&text, &[0]));
        let error = pc.start().unwrap_err();
        assert!(explain(&error).contains("only officer 0 did"), "{}", explain(&error));
        pc.lay(&text, signed(&text, &[0, 1]));
        assert_eq!(pc.start().unwrap().signers, ["officer 0", "officer 1"]);
    }

    // Shows: K-5.1.4, K-5.2.1, K-5.2.3, I-3.
    #[test]
    fn a_refused_or_missing_file_leaves_the_last_good_policy_in_force_and_says_why() {
        let pc = Pc::trusting(1);
        let first = policy(5, "a");
        pc.lay(&first, signed(&first, &[0]));
        assert_eq!(pc.start().unwrap().policy.serial(), 5);
        let unsigned = policy(6, "b");
        let old = policy(4, "c");
        let same = policy(5, "d");
        let changed = first.replace("INTERNET", "OUTSIDE");
        assert_ne!(changed, first);
        for (text, signatures, says) in [
            (unsigned.as_str(), None, "no signature holds"),
            (&unsigned, signed("another text", &[0]), "changed after officer 0 signed it"),
            (&unsigned, signed(&unsigned, &[9]), "not in the trust store"),
            (&changed, signed(&first, &[0]), "changed after officer 0 signed it"),
            (&old, signed(&old, &[0]), "serial above 5"),
            (&same, signed(&same, &[0]), "a serial above 5 and have it signed"),
            ("format = 1\n", signed("format = 1\n", &[0]), "serial"),
            (&unsigned, Some("nonsense".to_owned()), "signatures cannot be read"),
        ] {
            pc.lay(text, signatures);
            let in_force = pc.start().unwrap();
            assert_eq!(in_force.policy.serial(), 5);
            let why = in_force.refused.unwrap();
            assert!(why.contains(says), "{why} does not say {says}");
        }
        fs::remove_file(pc.store.file()).unwrap();
        assert!(pc.start().unwrap().refused.unwrap().contains("policy.toml"));
    }

    #[test]
    fn a_broken_trust_store_approves_nothing_new() {
        let pc = Pc::trusting(1);
        let (first, second) = (policy(1, "a"), policy(2, "b"));
        pc.lay(&first, signed(&first, &[0]));
        pc.start().unwrap();
        fs::write(pc.dir.path().join("trust.toml"), "format = 1\nthreshold = 0\n").unwrap();
        pc.lay(&second, signed(&second, &[0]));
        let in_force = pc.start().unwrap();
        assert_eq!(in_force.policy.serial(), 1);
        assert!(in_force.refused.unwrap().contains("trust store"));
    }

    #[test]
    fn what_is_applied_survives_a_restart_and_what_is_refused_changes_nothing() {
        let pc = Pc::trusting(1);
        let (first, second, third) = (policy(1, "a"), policy(2, "b"), policy(3, "c"));
        pc.lay(&first, signed(&first, &[0]));
        pc.start().unwrap();
        pc.apply(&second, signed(&second, &[1])).unwrap();
        assert_eq!(fs::read_to_string(pc.store.file()).unwrap(), second);
        let in_force = pc.start().unwrap();
        assert_eq!(
            (in_force.policy.serial(), in_force.signers.as_slice()),
            (2, &["officer 1".to_owned()][..])
        );
        assert!(matches!(pc.apply(&third, signed(&second, &[0])), Err(Refusal::NotApproved(_))));
        assert!(matches!(pc.apply(&first, signed(&first, &[0])), Err(Refusal::Older { .. })));
        assert_eq!(fs::read_to_string(pc.store.file()).unwrap(), second);
        assert_eq!(pc.start().unwrap().policy.serial(), 2);
    }

    // Shows: K-5.1.3.
    #[test]
    fn what_nobody_trusted_signed_is_not_even_read() {
        let pc = Pc::trusting(1);
        let nonsense = "[".repeat(1000);
        for signatures in [None, signed("another text", &[0]), signed(&nonsense, &[9])] {
            let refused = pc.store.consider(nonsense.clone(), signatures);
            assert!(matches!(refused, Err(Refusal::NotApproved(_))), "{refused:?}");
        }
        let refused = pc.store.consider(nonsense.clone(), signed(&nonsense, &[0]));
        assert!(matches!(refused, Err(Refusal::Mistakes(_))), "{refused:?}");
    }

    #[test]
    fn a_policy_that_could_not_be_read_back_is_refused() {
        let pc = Pc::new();
        let text = policy(1, &"#".repeat(4 << 20));
        assert!(matches!(pc.apply(&text, None), Err(Refusal::TooLarge)));
        assert!(!pc.store.file().exists());
    }

    #[test]
    fn a_roll_out_that_cannot_be_written_leaves_what_was_in_force() {
        let pc = Pc::trusting(1);
        let (first, second) = (policy(1, "a"), policy(2, "b"));
        pc.lay(&first, signed(&first, &[0]));
        pc.start().unwrap();
        // A directory stands where the new file is to be made.
        fs::create_dir(pc.dir.path().join("policy.toml.new")).unwrap();
        assert!(matches!(pc.apply(&second, signed(&second, &[0])), Err(Refusal::Write { .. })));
        fs::write(signature_file(pc.store.file()), signed(&first, &[0]).unwrap()).unwrap();
        let in_force = pc.start().unwrap();
        assert_eq!((in_force.policy.serial(), in_force.refused), (1, None));
    }

    // Shows: K-5.2.3.
    #[test]
    fn power_lost_anywhere_in_a_roll_out_leaves_the_old_or_the_new_policy() {
        // The three writes of a roll-out, in order; the power goes after each.
        let (first, second) = (policy(1, "a"), policy(2, "b"));
        for done in 0..=3 {
            let pc = Pc::trusting(1);
            pc.lay(&first, signed(&first, &[0]));
            pc.start().unwrap();
            let after = Pc::trusting(1);
            after.lay(&first, signed(&first, &[0]));
            after.start().unwrap();
            after.apply(&second, signed(&second, &[0])).unwrap();
            for name in ["policy.json", "policy.toml.sig", "policy.toml"].iter().take(done) {
                fs::copy(after.dir.path().join(name), pc.dir.path().join(name)).unwrap();
            }
            let in_force = pc.start().unwrap();
            assert_eq!(
                in_force.policy.serial(),
                if done == 0 { 1 } else { 2 },
                "after {done} writes"
            );
        }
    }
}
