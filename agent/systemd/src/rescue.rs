//! Boots without Bulkhead: `bulkhead-rescue.service` notes each in `<state>/rescue-boots`, and the agent that next starts puts them into the
//! audit log. Whoever has the PC's console in such a boot can take the note away, as they can do everything: it is for those who need not hide.

use std::path::Path;

use audit::AuditEvent;
use audit::events::RescueBoot;

use base::durable;
use config::files::read_small;

/// A line of the note is a time; what is longer is none, and is cut.
const LINE_MAX: usize = 40;

/// Records what the note says, and removes it once that is on the disk.
/// `write` says whether an event is on the disk.
pub fn record(note: &Path, write: impl FnOnce(AuditEvent) -> bool) {
    let text = match read_small(note) {
        Ok(Some(text)) => text,
        Ok(None) => return,
        // A note that is too long or no text was written by nobody of ours. That it is there is worth an entry all the same.
        Err(error) => {
            tracing::error!("{}: {error}", note.display());
            String::new()
        }
    };
    tracing::warn!("this PC was started for rescue, without Bulkhead, since an agent last ran");
    if !write(event(&text).into()) {
        // Kept for the next start.
        return;
    }
    if let Err(error) = durable::remove(note) {
        tracing::error!("cannot remove {}: {error}", note.display());
    }
}

/// Returns the event of the note's lines.
fn event(text: &str) -> RescueBoot {
    let line =
        |line: &str| printable::line(&line.chars().take(LINE_MAX).collect::<String>()).to_string();
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().map(line);
    let (count, last) = lines.fold((1, None), |(count, _), line| (count + 1, Some(line)));
    RescueBoot { boots: count, first: first.unwrap_or_default(), last: last.map(line) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use audit::Limits;
    use recorder::Recorder;

    use super::*;

    fn record(note: &Path, recorder: &mut Recorder) {
        super::record(note, |event| recorder.note(&[event]).is_some());
    }

    #[test]
    fn boots_without_bulkhead_are_in_the_audit_log_once_and_their_note_goes_after_that() {
        let dir = tempfile::tempdir().unwrap();
        let note = dir.path().join("rescue-boots");
        let mut recorder = Recorder::open(dir.path(), Limits::default());
        record(&note, &mut recorder);
        let log = || fs::read_to_string(dir.path().join("audit/audit-000000000001.jsonl")).unwrap();
        assert!(!log().contains("rescue-boot"));
        fs::write(&note, "2026-11-28T10:00:00Z\n2026-11-28T11:00:00Z\n").unwrap();
        record(&note, &mut recorder);
        record(&note, &mut recorder);
        assert_eq!(log().matches("\"kind\":\"rescue-boot\"").count(), 1);
        assert!(log().contains("\"boots\":2") && log().contains("2026-11-28T11:00:00Z"));
        assert!(!note.exists());
    }

    #[test]
    fn a_note_that_cannot_be_recorded_is_kept_for_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let note = dir.path().join("rescue-boots");
        fs::write(&note, "2026-11-28T10:00:00Z\n").unwrap();
        // Where the log should be is no folder.
        fs::write(dir.path().join("audit"), "").unwrap();
        record(&note, &mut Recorder::open(dir.path(), Limits::default()));
        assert!(note.exists());
    }

    #[test]
    fn whatever_the_note_holds_is_cut_and_made_fit() {
        let long = format!("{}\n\u{1b}[31m\n", "9".repeat(1000));
        let event = event(&long);
        assert_eq!(event.boots, 2);
        assert_eq!(event.first.len(), LINE_MAX);
        assert!(!event.last.unwrap().contains('\u{1b}'));
        assert_eq!(super::event("").boots, 1);
    }
}
