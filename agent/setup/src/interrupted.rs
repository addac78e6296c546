//! Whether a setup, or taking one back, ended half-way: for somebody who only looks.

use std::path::Path;

use base::durable;
use base::layout::Layout;
use printable::explain;

use crate::change::{Change, FileChange, current};
use crate::journal::Journal;

/// Returns what of setup's changes is noted and not made, in words; `None` if all that can be told is. A setup that runs at this moment has such a change
/// too.
///
/// # Errors
/// The journal cannot be read: why, and what to do.
pub fn interrupted(state: &Path) -> Result<Option<String>, String> {
    let file = Layout::setup_journal(state);
    let journal = Journal::read(&file).map_err(|error| explain(&error))?;
    if durable::fresh(&file).exists() {
        return Ok(Some(format!("write down in {} what is changed", file.display())));
    }
    // A change is made before the next one is noted, and taken back before its note goes: only the last can be half made.
    let last = journal.changes().last().filter(|last| is_half_made(last));
    Ok(last.map(|last| last.shown().what))
}

/// Returns whether a change that is the last is certainly not whole.
fn is_half_made(last: &Change) -> bool {
    match last {
        Change::Folder { path } => !path.is_dir(),
        Change::File(FileChange { path, former, content, .. }) => {
            let before = former.as_ref().map(|former| &former.content);
            let is_as_before = || {
                let now = current(path).map(|now| now.map(|now| now.content));
                now.is_ok_and(|now| now.as_ref() == before)
            };
            durable::fresh(path).exists() || before != Some(content) && is_as_before()
        }
        // Others follow it in every run that comes to its end.
        Change::Volume(_) | Change::Move(_) => true,
        // What people change by their own programs too, and what the doctor has findings of.
        Change::Group { .. } | Change::Member { .. } | Change::Former(_) | Change::Service => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{FormerCopies, Move};

    #[test]
    fn a_move_of_the_state_is_never_the_last_change_of_a_setup_that_came_to_its_end() {
        let state = Path::new("/var/lib/bulkhead").to_owned();
        let moved = Move { state: state.clone(), unit: state.clone(), content: String::new() };
        assert!(is_half_made(&Change::Move(moved)));
        assert!(!is_half_made(&Change::Former(FormerCopies { state })));
        assert!(!is_half_made(&Change::Service));
    }
}
