//! What is done with packages, for the audit log. The agent alone writes that, and takes these notes when it runs.

use audit::AuditEvent;
use audit::events::{ProgramInForce, ProgramInstalled, ProgramRefused, ProgramReturned, cut};
use images::digest::Digest;
use images::notes::{self, Noted};
use images::recording::PendingNotes;
use serde::{Deserialize, Serialize};

use crate::record::Kept;

/// What became of the notes about packages so far.
pub type ProgramNotes = PendingNotes<ProgramNote>;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A bundle was taken into the store.
    Installed,
    /// What it brings works.
    InForce,
    /// It did not.
    Returned,
    /// Something was refused.
    Refused,
}

/// Something that was done with a package, or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramNote {
    /// When, by the PC's clock.
    pub at: String,
    /// The user who wanted it.
    pub uid: u32,
    /// What was done.
    pub what: What,
    /// The serial of the bundle, if it is known.
    pub serial: Option<u64>,
    /// The version of the package, if it is known.
    pub version: Option<String>,
    /// The digest of the manifest, if it is known.
    pub manifest: Option<Digest>,
    /// The floor that it brings.
    pub floor: Option<u64>,
    /// Who had signed it.
    pub signers: Vec<String>,
    /// The serial of the trust store by which their signatures counted, if it has one.
    pub trust: Option<u64>,
    /// Whether it was the one before, which somebody wanted back.
    pub rollback: Option<bool>,
    /// The serial that the PC went back to.
    pub back: Option<u64>,
    /// Why.
    pub why: Option<String>,
}

impl ProgramNote {
    /// Begins a note, now.
    #[must_use]
    pub fn of(what: What, kept: Option<&Kept>, uid: u32) -> Self {
        Self {
            at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
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
            why: None,
        }
    }
}

impl Noted for ProgramNote {
    fn is_refusal(&self) -> bool {
        self.what == What::Refused
    }

    fn shorten(&mut self) {
        self.why = self.why.take().map(notes::cut);
    }

    fn event(self) -> AuditEvent {
        let line = |text: &str| cut(&printable::line(text).to_string());
        let Self { uid, what, manifest, floor, signers, trust, rollback, back, .. } = self;
        let at = line(&self.at);
        let (named, numbered) = (self.version.as_deref().map(line), self.serial);
        let (version, serial) = (named.clone().unwrap_or_default(), numbered.unwrap_or_default());
        let manifest = manifest.map(String::from);
        let why = self.why.as_deref().map(line);
        match what {
            What::Installed => ProgramInstalled {
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
            What::InForce => {
                ProgramInForce { at, manifest, rollback, serial, uid, version, why }.into()
            }
            What::Returned => {
                ProgramReturned { at, back, serial, version, why: why.unwrap_or_default() }.into()
            }
            What::Refused => ProgramRefused {
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
