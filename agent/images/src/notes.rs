//! What was done by command, until the agent has it in the audit log, which it alone writes: `.notes.json` in the directory of what it was done with.
//!
//! A change is noted before it is made: without its note it is not made.

use std::io;
use std::path::{Path, PathBuf};

use audit::AuditEvent;
use base::durable;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::lock;

/// Most notes that wait for the agent: months of updates on a PC that is in use.
const NOTES_MAX: usize = 256;
/// So many of them are kept for what is done: refusals, which somebody may try again and again, leave those.
const NOTES_OF_CHANGES: usize = 64;
/// Bytes of the longest text of a note.
const TEXT_MAX: usize = 512;

/// A note of something that was done by command, or refused.
pub trait CommandNote: Clone + PartialEq + Serialize + DeserializeOwned {
    /// Returns whether it only says that something was refused. Those leave room for what is done.
    fn is_refusal(&self) -> bool;

    /// Returns why it was done or refused, which may be long.
    fn why(&mut self) -> &mut Option<String>;

    /// Returns its entry in the audit log.
    fn event(self) -> AuditEvent;
}

/// Something that was done with a guest image, or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageNote {
    /// When, by the PC's clock.
    pub at: String,
    /// The user who did it, or tried.
    pub uid: u32,
    /// What was done, or that it was refused.
    pub what: ImageAction,
    /// The image, if it is known.
    pub image: Option<String>,
    /// The serial of the image, if it is known.
    pub serial: Option<u64>,
    /// The digest of its manifest, with an installation.
    pub manifest: Option<Digest>,
    /// The lowest serial that may come into force from then on, with an installation.
    pub floor: Option<u64>,
    /// Who had signed it.
    pub signers: Vec<String>,
    /// The serial of the trust store by which their signatures counted, if it has one.
    pub trust: Option<u64>,
    /// Why it was refused.
    pub why: Option<String>,
}

/// What was done with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageAction {
    /// A version was installed.
    Installed,
    /// It was installed again, as it was damaged or its signatures were others.
    Repaired,
    /// It is to come into force at the next start.
    Activated,
    /// It is to come into force again, in the place of a newer one.
    RolledBack,
    /// It is to be removed.
    Removed,
    /// One of these was refused.
    Refused,
}

fn file(folder: &Path) -> PathBuf {
    folder.join(".notes.json")
}

/// Reads the notes, if there are any.
fn read<N: CommandNote>(folder: &Path) -> io::Result<Option<Vec<N>>> {
    let path = file(folder);
    durable::read::<Vec<N>>(&path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => {
            let why = format!("{} is damaged ({error}): move it away", path.display());
            io::Error::new(io::ErrorKind::InvalidData, why)
        }
        _ => error,
    })
}

fn lock(folder: &Path, tries: u32) -> io::Result<impl Drop> {
    lock::take(&folder.join(".notes"), tries)
}

/// Adds a note. When this returns, it is on the disk.
///
/// # Errors
/// It cannot be written, or too many wait for the agent.
pub fn add<N: CommandNote>(folder: &Path, mut note: N) -> io::Result<()> {
    let _lock = lock(folder, lock::PATIENCE)?;
    let mut notes = read(folder)?.unwrap_or_default();
    let kept = if note.is_refusal() { NOTES_OF_CHANGES } else { 0 };
    if notes.len() >= NOTES_MAX.saturating_sub(kept) {
        return Err(io::Error::other(format!(
            "{NOTES_MAX} notes wait for the audit log: start bulkhead-agent, which takes them"
        )));
    }
    let why = note.why();
    *why = why.take().map(cut);
    notes.push(note);
    durable::write(&file(folder), &notes)
}

/// Cuts a text that may be long.
#[must_use]
pub fn cut(text: String) -> String {
    let end = (0..=TEXT_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

/// Returns a text of a note as an entry of the audit log has it.
#[must_use]
pub fn line(text: &str) -> String {
    audit::events::cut(&printable::line(text).to_string())
}

/// Returns the time by the PC's clock, as the audit log has it.
#[must_use]
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Gives the notes that wait to `record`, and removes them if that says that they are on record. One that cannot be read is left, and is an
/// error each time.
///
/// # Errors
/// They cannot be read or removed; `WouldBlock` if a command writes one just now.
pub fn take<N: CommandNote>(folder: &Path, record: impl FnOnce(Vec<N>) -> bool) -> io::Result<()> {
    let path = file(folder);
    // Most of the time there are none, and then nothing is locked.
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let _lock = lock(folder, 1)?;
    let Some(notes) = read(folder)? else { return Ok(()) };
    if record(notes) { durable::remove(&path) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn note(why: &str) -> ImageNote {
        ImageNote {
            at: "2026-11-29T08:00:00Z".to_owned(),
            uid: 0,
            what: ImageAction::Refused,
            image: Some("clinical".to_owned()),
            serial: Some(7),
            manifest: None,
            floor: None,
            signers: Vec::new(),
            trust: None,
            why: Some(why.to_owned()),
        }
    }

    #[test]
    fn notes_wait_until_they_are_on_record_and_are_cut_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        take::<ImageNote>(dir.path(), |_| panic!("there are none")).unwrap();
        add(dir.path(), note(&"가".repeat(1000))).unwrap();
        add(dir.path(), note("b")).unwrap();
        take::<ImageNote>(dir.path(), |notes| {
            assert_eq!(notes.len(), 2);
            assert_eq!(notes[0].why.as_ref().unwrap().len(), 510);
            false
        })
        .unwrap();
        let mut seen = 0;
        take::<ImageNote>(dir.path(), |notes| {
            seen = notes.len();
            true
        })
        .unwrap();
        assert_eq!(seen, 2);
        take::<ImageNote>(dir.path(), |_| panic!("they were taken")).unwrap();
        let is_full =
            |note| add(dir.path(), note).unwrap_err().to_string().contains("start bulkhead-agent");
        for _ in 0..NOTES_MAX - NOTES_OF_CHANGES {
            add(dir.path(), note("")).unwrap();
        }
        assert!(is_full(note("")));
        // However often something was refused, there is room for what is done.
        let done = || ImageNote { what: ImageAction::Installed, ..note("") };
        for _ in 0..NOTES_OF_CHANGES {
            add(dir.path(), done()).unwrap();
        }
        assert!(is_full(done()));
        fs::write(file(dir.path()), "{").unwrap();
        let damaged = add(dir.path(), done()).unwrap_err().to_string();
        assert!(damaged.contains(".notes.json") && damaged.contains("move it away"), "{damaged}");
    }
}
