//! What setup changed, on the disk before it is changed: so that everything can be taken back, also after a crash half-way.
//!
//! ```text
//!  for each change:   journal with the change, synced  -->  the change  -->  the next
//!  undo, from the last: the change is taken back  -->  journal without it, synced  -->  the one before
//! ```
//!
//! A change that stands in the journal was made, or not begun, or is half made where it is more than one step; taking it back looks what of it
//! is there. So a crash at any moment leaves a journal by which everything can be taken back, and taking back can crash too.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use base::durable;
use serde::{Deserialize, Serialize};

use crate::Pc;
use crate::change::{Change, FileChange, FileError, current, unified};
use crate::effects::{Attributes, Effects};

/// The only format there is.
const FORMAT: u32 = 1;
/// Changes that one journal holds: a run makes about ten, and hundreds where many people get roles.
const CHANGES_MAX: usize = 4000;

/// What was changed and not taken back, the oldest first.
#[derive(Debug)]
pub(crate) struct Journal {
    file: PathBuf,
    changes: Vec<Change>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<C> {
    format: u32,
    changes: C,
}

/// Why something was not changed, or not taken back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error(
        "cannot read {path}, by which setup takes back what it changed: {source}. Somebody damaged it, or a newer Bulkhead wrote it: install that one, or put the files that it names back by hand and remove it",
        path = file.display()
    )]
    Unreadable { file: PathBuf, source: io::Error },
    #[error(
        "{path} holds more changes than are kept ({CHANGES_MAX}): take them back with `bulkhead setup --undo`, and run this again",
        path = .0.display()
    )]
    Full(PathBuf),
    #[error("cannot {what}: {source}{}", advice(source))]
    Failed { what: String, source: io::Error },
    #[error(
        "{path} was changed by somebody since setup wrote it, so nothing was taken back. See what was changed, move it away (`mv {path} {path}.mine`), and run this again; the former one comes back then\n{diff}",
        path = path.display()
    )]
    ChangedSince { path: PathBuf, diff: String },
    #[error(transparent)]
    File(#[from] FileError),
}

/// Returns what to do about an error of the disk's.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; the disk is full: make room (`df -h`, `journalctl --vacuum-size=100M`), and run this again"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; the file system is read-only: `dmesg` says why, and `mount -o remount,rw /` may do"
        }
        io::ErrorKind::PermissionDenied => "; run this as root",
        _ => "",
    }
}

impl Journal {
    /// Reads the journal; an empty one where there is none.
    pub(crate) fn read(file: &Path) -> Result<Self, JournalError> {
        let unreadable = |source| JournalError::Unreadable { file: file.to_owned(), source };
        let read: Option<Document<Vec<Change>>> = durable::read(file).map_err(unreadable)?;
        let changes = match read {
            None => Vec::new(),
            Some(Document { format: FORMAT, changes }) => changes,
            Some(Document { format, .. }) => {
                return Err(unreadable(io::Error::other(format!("it is in format {format}"))));
            }
        };
        Ok(Self { file: file.to_owned(), changes })
    }

    /// Returns the changes, the oldest first.
    pub(crate) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Makes changes, each after it is on record. Where one fails, those of this call are taken back; the second error is why that failed too.
    pub(crate) fn make(
        &mut self,
        pc: &Pc,
        changes: &[Change],
        effects: &mut dyn Effects,
    ) -> Result<(), (JournalError, Option<JournalError>)> {
        let before = self.changes.len();
        if before.saturating_add(changes.len()) > CHANGES_MAX {
            return Err((JournalError::Full(self.file.clone()), None));
        }
        for change in changes {
            let made = self.record(change, effects).and_then(|()| {
                let failed = |source| JournalError::Failed { what: change.shown().what, source };
                change.make(pc, effects).map_err(failed)
            });
            if let Err(error) = made {
                return Err((error, self.revert_to(before, pc, effects).err()));
            }
        }
        Ok(())
    }

    fn record(&mut self, change: &Change, effects: &mut dyn Effects) -> Result<(), JournalError> {
        self.changes.push(change.clone());
        // What could not be recorded was not begun.
        self.write(effects).inspect_err(|_| drop(self.changes.pop()))
    }

    fn write(&self, effects: &mut dyn Effects) -> Result<(), JournalError> {
        let failed = |source| JournalError::Failed {
            what: format!("record in {} what is changed", self.file.display()),
            source,
        };
        if self.changes.is_empty() {
            let gone = effects.remove(&self.file).and_then(|()| self.sweep(effects));
            return gone.map_err(failed);
        }
        let document = Document { format: FORMAT, changes: &self.changes };
        let text = serde_json::to_vec_pretty(&document).map_err(|error| failed(error.into()))?;
        effects.replace(&self.file, &text, Attributes::new(0o600)).map_err(failed)
    }

    /// Removes what a crash left of a journal that was being written.
    pub(crate) fn sweep(&self, effects: &mut dyn Effects) -> io::Result<()> {
        let left = durable::fresh(&self.file);
        if left.exists() { effects.remove(&left) } else { Ok(()) }
    }

    /// Reverts every change, the newest first, unless somebody changed one of the files since.
    pub(crate) fn revert(
        &mut self,
        pc: &Pc,
        effects: &mut dyn Effects,
    ) -> Result<(), JournalError> {
        self.unchanged_since()?;
        self.revert_to(0, pc, effects)
    }

    /// Reverts changes until so many are left.
    fn revert_to(
        &mut self,
        count: usize,
        pc: &Pc,
        effects: &mut dyn Effects,
    ) -> Result<(), JournalError> {
        let mut unwritten = None;
        while self.changes.len() > count {
            let Some(change) = self.changes.pop() else { break };
            let taken = change
                .revert(pc, effects)
                .map_err(|source| JournalError::Failed { what: change.shown_back().what, source });
            if let Err(error) = taken {
                // It is still to be taken back.
                self.changes.push(change);
                return Err(error);
            }
            // On a full disk what is left is taken back all the same: taking back twice does no harm.
            unwritten = self.write(effects).err();
        }
        unwritten.map_or(Ok(()), Err)
    }

    /// Returns whether each file is as setup left it last, or as it was before that: a person's work is not thrown away. What a person changed
    /// before setup changed it again is put back by the newer change, and left alone by the older one.
    pub(crate) fn unchanged_since(&self) -> Result<(), JournalError> {
        let mut seen: BTreeSet<&Path> = BTreeSet::new();
        for change in self.changes.iter().rev() {
            let Change::File(FileChange { path, former, content, .. }) = change else { continue };
            if !seen.insert(path) {
                continue;
            }
            // Nothing of anybody's is lost where nothing is there.
            let Some(now) = current(path)? else { continue };
            let before = former.as_ref().map(|former| &former.content);
            if now.content != *content && Some(&now.content) != before {
                let name = path.display().to_string();
                let diff = unified(content, &now.content, &name, &name);
                return Err(JournalError::ChangedSince { path: path.clone(), diff });
            }
        }
        Ok(())
    }
}
