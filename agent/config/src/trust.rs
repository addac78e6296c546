//! Which trust store counts: `trust.toml`, if it may follow the one that counted before.
//!
//! | remembered | `trust.toml` | counts |
//! | --- | --- | --- |
//! | none, or one whose changes nobody signs | any, or none | `trust.toml`, as IT laid it down; without it policies are taken unsigned |
//! | one whose changes are signed | the same text | it |
//! | | another, signed by enough officers of both, with a higher serial | the new one, remembered from then on |
//! | | anything else, or none | the remembered one, and it is said why |
//!
//! What is remembered is the text, in `<state>/trust.json`. One that is there and cannot be read approves nothing: it may forbid what `trust.toml` allows.

use std::io;
use std::path::{Path, PathBuf};

use policy::signature::{Officer, Signatures, TrustStore, TrustText};
use serde::{Deserialize, Serialize};

use crate::files::{Refusal, read_small, signature_file};
use base::{durable, layout};
use printable::explain;

/// The files of trust stores: the one that was laid down, and the one that the PC remembers.
#[derive(Debug, Clone)]
pub struct TrustFiles {
    file: PathBuf,
    /// `None` where nothing is remembered.
    remembered: Option<PathBuf>,
    /// What is remembered, or may be, where whoever looks may not read it.
    hidden: Option<PathBuf>,
}

/// The trust store that counts.
#[derive(Debug)]
pub struct TrustInForce {
    /// `None` if policies are taken unsigned.
    pub store: Option<TrustStore>,
    pub report: TrustReport,
    /// What is to be remembered.
    pub unsaved: Option<RememberedTrust>,
}

/// What there is to say of the trust store that counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustReport {
    /// That it counts for the first time.
    pub changed: Option<TrustChange>,
    /// Why the one in the file does not count.
    pub refused: Option<TrustRefused>,
}

/// Another trust store counts from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustChange {
    pub serial: u64,
    /// The officers who signed the change; none if it is the first one whose changes are signed.
    pub signers: Vec<String>,
    /// Who may sign from now on.
    pub officers: Vec<String>,
}

/// A trust store does not count; another does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustRefused {
    /// The serial of the one that counts.
    pub serial: u64,
    /// Why, and what to do.
    pub why: String,
}

/// What is remembered of a trust store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RememberedTrust {
    text: String,
}

impl TrustFiles {
    /// Makes the store beside the machine file, and in the agent's state.
    pub fn new(machine: &Path, state: Option<&Path>) -> Self {
        Self {
            file: machine.with_file_name("trust.toml"),
            remembered: state.map(|state| state.join("trust.json")),
            hidden: None,
        }
    }

    /// Makes the same for somebody who may perhaps not read what root remembers, and decides nothing.
    pub fn for_looking(machine: &Path, state: &Path) -> Self {
        let this = Self::new(machine, Some(state));
        let read = this.remembered.as_ref().map(|path| fileopen::regular(path));
        match read {
            Some(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                Self { file: this.file, remembered: None, hidden: this.remembered }
            }
            _ => this,
        }
    }

    /// Returns what is remembered, if whoever looks may not read it: then nothing says that the file counts.
    pub fn hidden(&self) -> Option<&Path> {
        self.hidden.as_deref()
    }

    /// Finds the trust store that counts here and now. Nothing is changed.
    pub fn in_force(&self) -> Result<TrustInForce, Refusal> {
        let text = self.read(&self.file)?;
        match self.remembered()? {
            None => self.laid_down(text),
            Some((before, memory)) if text.as_ref() == Some(&memory.text) => {
                Ok(TrustInForce::unchanged(before, None))
            }
            Some((before, _)) => Ok(match self.followed_by(&before, text) {
                Ok(next) => next,
                Err(why) => TrustInForce::unchanged(before, Some(why)),
            }),
        }
    }

    /// Writes down which trust store counts, for the next start.
    pub fn remember(&self, memory: Option<&RememberedTrust>) -> Result<(), Refusal> {
        let (Some(memory), Some(path)) = (memory, &self.remembered) else { return Ok(()) };
        let write = || {
            layout::state_directory(durable::directory(path)).map_err(io::Error::other)?;
            durable::write(path, memory)
        };
        write().map_err(|source| Refusal::Write { path: path.clone(), source })
    }

    /// Reads the file, where there is nothing that it has to follow.
    fn laid_down(&self, text: Option<String>) -> Result<TrustInForce, Refusal> {
        let Some(text) = text else {
            return Ok(TrustInForce { store: None, report: TrustReport::default(), unsaved: None });
        };
        let name = self.file.display().to_string();
        let store = TrustStore::parse(&name, &text).map_err(Refusal::Trust)?;
        if !store.signs_changes() {
            return Ok(TrustInForce::unchanged(store, None));
        }
        Ok(TrustInForce::changed(store, text, Vec::new()))
    }

    /// Returns the file's store, if it may follow the store that counted before; why not, otherwise.
    fn followed_by(
        &self,
        before: &TrustStore,
        text: Option<String>,
    ) -> Result<TrustInForce, String> {
        let name = self.file.display().to_string();
        let Some(text) = text else {
            return Err(format!(
                "{name} is not there, and nobody signed that policies are taken unsigned: put it back"
            ));
        };
        let beside = signature_file(&self.file);
        let signatures = match self.read(&beside).map_err(|refusal| explain(&refusal))? {
            None => Signatures::<TrustText>::default(),
            Some(text) => Signatures::parse(&beside.display().to_string(), &text)
                .map_err(|found| format!("{name}: its signatures cannot be read: {found}"))?,
        };
        let (next, approval) = before.succeed(&name, &text, &signatures).map_err(|why| {
            format!("{name} is not what was signed: {why}; or put the former one back")
        })?;
        Ok(TrustInForce::changed(next, text, approval.signers().to_vec()))
    }

    /// Returns the store whose changes have to be signed, if there is one.
    fn remembered(&self) -> Result<Option<(TrustStore, RememberedTrust)>, Refusal> {
        let Some(path) = &self.remembered else { return Ok(None) };
        let fail = |why: String| Refusal::TrustMemory { path: path.clone(), why };
        let Some(memory) =
            durable::read::<RememberedTrust>(path).map_err(|error| fail(error.to_string()))?
        else {
            return Ok(None);
        };
        let store = TrustStore::parse("the remembered trust store", &memory.text)
            .map_err(|found| fail(found.to_string()))?;
        Ok(store.signs_changes().then_some((store, memory)))
    }

    fn read(&self, path: &Path) -> Result<Option<String>, Refusal> {
        read_small(path).map_err(|source| Refusal::Read { path: path.to_owned(), source })
    }
}

impl TrustInForce {
    fn unchanged(store: TrustStore, refused: Option<String>) -> Self {
        let serial = store.serial().unwrap_or(0);
        let refused = refused.map(|why| TrustRefused { serial, why });
        Self { store: Some(store), report: TrustReport { changed: None, refused }, unsaved: None }
    }

    fn changed(store: TrustStore, text: String, signers: Vec<String>) -> Self {
        let name = |officer: &Officer| officer.name.clone();
        let change = TrustChange {
            serial: store.serial().unwrap_or(0),
            signers,
            officers: store.officers().iter().map(name).collect(),
        };
        Self {
            store: Some(store),
            report: TrustReport { changed: Some(change), refused: None },
            unsaved: Some(RememberedTrust { text }),
        }
    }
}
