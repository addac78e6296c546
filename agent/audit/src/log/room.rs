//! Room: what goes when the log has reached its size.

use std::fs;

use super::{Log, LogError};
use crate::events::OldestDropped;
use crate::files::{self, LogFile};
use crate::recover::LogEnd;
use crate::settings::WhenFull;

impl Log {
    /// Lets the oldest files go if they may, until `more` bytes fit.
    pub(super) fn make_room(&mut self, more: usize) -> Result<(), LogError> {
        while let Some((oldest, end)) = self.to_drop(more)? {
            self.drop_file(&oldest, &end)?;
        }
        Ok(())
    }

    /// Returns the oldest file, if `more` bytes do not fit and it may go; an error if it may not.
    pub(super) fn to_drop(&self, more: usize) -> Result<Option<(LogFile, LogEnd)>, LogError> {
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        let (dir, limits) = (&self.settings.dir, self.settings.limits);
        if self.others.saturating_add(self.bytes).saturating_add(more) <= limits.total_bytes {
            return Ok(None);
        }
        let failed = |source| LogError::Write { path: dir.clone(), source };
        let mut files = files::list(dir).map_err(failed)?;
        // The file that is written to stays.
        if files.len() < 2 {
            return Err(LogError::Full(limits.total_bytes));
        }
        let oldest = files.swap_remove(0);
        let end = LogEnd::of(&oldest).map_err(failed)?;
        let age = self.clock.highest((self.settings.clock)()).after(end.highest);
        if age < limits.keep_for && limits.when_full == WhenFull::Stop {
            return Err(LogError::Full(limits.total_bytes));
        }
        Ok(Some((oldest, end)))
    }

    /// Records and signs that a file goes, then removes it. Without the signature, whoever took files away could say the same of them.
    fn drop_file(&mut self, file: &LogFile, last: &LogEnd) -> Result<(), LogError> {
        let failed = |source| LogError::Write { path: file.path.clone(), source };
        let bytes = fs::metadata(&file.path).map_err(failed)?.len();
        let mut batch = self.batch();
        let (first, last_hash) = (file.first, last.hash.to_string());
        batch.push(&OldestDropped { first, last: last.seq, last_hash }.into())?;
        batch.sign(&self.key);
        self.commit(batch)?;
        fs::remove_file(&file.path)
            .and_then(|()| files::sync(&self.settings.dir))
            .map_err(failed)?;
        self.others = self.others.saturating_sub(bytes);
        Ok(())
    }
}
