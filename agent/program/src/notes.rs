//! What is done with packages, for the audit log. The agent alone writes that, and takes these notes when it runs.

use audit::AuditEvent;
use audit::events::{
    ProgramCancelled, ProgramInForce, ProgramInstalled, ProgramNeitherWorks, ProgramNoted,
    ProgramRefused, ProgramRetried, ProgramReturned, ProgramRollback,
};
use images::digest::Digest;
use images::notes::{self, CommandNote, line};
use images::recording::PendingNotes;
use serde::{Deserialize, Serialize};

use crate::record::KeptPackage;

/// What became of the notes about packages so far.
pub type ProgramNotes = PendingNotes<ProgramNote>;

/// Something that was done with a package, or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProgramAction {
    /// A bundle was taken into the store.
    Installed,
    /// The agent that the package brought works.
    InForce,
    /// The agent that the package brought does not work: the package before is there again.
    Returned,
    /// The agent that the package brought does not work, nor does the one of the package before, which is there again.
    NeitherWorks,
    /// An installation did not come to its end, and is tried again.
    Retried,
    /// Somebody asked for the package before.
    Rollback,
    /// Somebody called off what waited.
    Cancelled,
    /// A bundle, or a step of an update, was refused.
    Refused,
    /// What a newer version of Bulkhead has a word for, which an older one has to take into the log after a return.
    #[serde(untagged)]
    Other(String),
}

/// A note for the audit log of something that was done with a package, or refused. After a return an older version reads what a newer one wrote: what it does not know it passes over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramNote {
    /// When, by the PC's clock.
    pub at: String,
    /// The user who wanted it.
    pub uid: u32,
    /// What was done, or refused.
    pub what: ProgramAction,
    /// The serial of the bundle, if it is known.
    pub serial: Option<u64>,
    /// The version of the package, if it is known.
    pub version: Option<String>,
    /// The digest of the manifest, if it is known.
    pub manifest: Option<Digest>,
    /// The floor that it brings.
    pub floor: Option<u64>,
    /// The names of the officers who had signed the bundle.
    pub signers: Vec<String>,
    /// The serial of the trust store by which their signatures counted, if it has one.
    pub trust: Option<u64>,
    /// Whether it was the one before, which somebody wanted back.
    pub rollback: Option<bool>,
    /// The serial that the PC went back to.
    pub back: Option<u64>,
    /// How often the installation was tried.
    #[serde(default)]
    pub tries: Option<u32>,
    /// Why it was refused, returned or tried again.
    pub why: Option<String>,
}

impl ProgramNote {
    /// Begins a note, now.
    #[must_use]
    pub fn of(what: ProgramAction, kept: Option<&KeptPackage>, uid: u32) -> Self {
        Self {
            at: notes::now(),
            uid,
            what,
            serial: kept.map(|kept| kept.serial),
            version: kept.map(|kept| kept.version.to_string()),
            manifest: kept.map(|kept| kept.manifest),
            floor: kept.map(|kept| kept.floor),
            signers: kept.map(|kept| kept.signers.clone()).unwrap_or_default(),
            trust: None,
            rollback: None,
            back: None,
            tries: None,
            why: None,
        }
    }
}

impl CommandNote for ProgramNote {
    fn is_refusal(&self) -> bool {
        self.what == ProgramAction::Refused
    }

    fn why(&mut self) -> &mut Option<String> {
        &mut self.why
    }

    fn event(self) -> AuditEvent {
        let Self { uid, what, manifest, floor, signers, trust, rollback, back, tries, .. } = self;
        let at = line(&self.at);
        let (named, numbered) = (self.version.as_deref().map(line), self.serial);
        let (version, serial) = (named.clone().unwrap_or_default(), numbered.unwrap_or_default());
        let manifest = manifest.map(String::from);
        let why = self.why.as_deref().map(line);
        match what {
            ProgramAction::Installed => ProgramInstalled {
                at,
                floor,
                manifest,
                serial,
                signers: signers.iter().map(|name| line(name)).collect(),
                trust,
                uid,
                version,
            }
            .into(),
            ProgramAction::InForce => {
                ProgramInForce { at, manifest, rollback, serial, uid, version, why }.into()
            }
            ProgramAction::Returned => {
                ProgramReturned { at, back, serial, version, why: why.unwrap_or_default() }.into()
            }
            ProgramAction::NeitherWorks => {
                ProgramNeitherWorks { at, back, serial, version, why: why.unwrap_or_default() }
                    .into()
            }
            ProgramAction::Retried => {
                let (tries, why) = (u64::from(tries.unwrap_or_default()), why.unwrap_or_default());
                ProgramRetried { at, serial, tries, version, why }.into()
            }
            ProgramAction::Rollback => {
                ProgramRollback { at, manifest, serial, uid, version }.into()
            }
            ProgramAction::Cancelled => {
                ProgramCancelled { at, manifest, serial, uid, version }.into()
            }
            ProgramAction::Other(what) => {
                let what = line(&what);
                ProgramNoted { at, serial: numbered, uid, version: named, what, why }.into()
            }
            ProgramAction::Refused => ProgramRefused {
                at,
                serial: numbered,
                uid,
                version: named,
                why: why.unwrap_or_default(),
            }
            .into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_of_a_newer_version_are_read_and_go_to_the_audit_log_whatever_they_say() {
        let dir = tempfile::tempdir().unwrap();
        notes::add(dir.path(), ProgramNote::of(ProgramAction::Rollback, None, 7)).unwrap();
        let file = dir.path().join(".notes.json");
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.replace("\"rollback\",", "\"a-newer-word\", \"more\": {},");
        let text = text.replace("\"tries\": null,", "");
        assert!(text.contains("a-newer-word") && !text.contains("tries"), "{text}");
        std::fs::write(&file, text).unwrap();
        let mut events = Vec::new();
        notes::take(dir.path(), |notes: Vec<ProgramNote>| {
            events.extend(notes.into_iter().map(CommandNote::event));
            true
        })
        .unwrap();
        let [AuditEvent::ProgramNoted(noted)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!((noted.what.as_str(), noted.uid), ("a-newer-word", 7));
    }
}
