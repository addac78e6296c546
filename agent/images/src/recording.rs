//! Notes of what was done by command become entries of the audit log: each once, and a note goes when it is on record.

use std::io;
use std::path::Path;
use std::time::Duration;

use audit::AuditEvent;
use audit::events::{ImageActivated, ImageInstalled, ImageRefused, ImageRemoved, ImageRolledBack};
use clock::Moment;

use crate::notes::{self, CommandNote, ImageAction, ImageNote, line};

/// How long notes are left alone that could not be recorded, read or removed.
const AGAIN: Duration = Duration::from_secs(10);

/// What became of the notes about images so far.
pub type ImageNotes = PendingNotes<ImageNote>;

/// What became of the notes of one directory so far.
#[derive(Debug)]
pub struct PendingNotes<N> {
    /// When they are next looked at, if something was in the way.
    again: Option<Moment>,
    /// Those that are on record and could not be removed: they are not recorded once more.
    recorded: Vec<N>,
}

impl<N> Default for PendingNotes<N> {
    fn default() -> Self {
        Self { again: None, recorded: Vec::new() }
    }
}

impl<N: CommandNote> PendingNotes<N> {
    /// Records what the notes say, and removes them once that is on the disk. `write` says whether events are on the disk.
    pub fn record(
        &mut self,
        folder: &Path,
        now: Moment,
        write: impl FnOnce(&[AuditEvent]) -> bool,
    ) {
        if self.again.is_some_and(|again| now < again) {
            return;
        }
        let recorded = &mut self.recorded;
        let mut refused = false;
        let taken = notes::take(folder, |notes: Vec<N>| {
            let old = if notes.starts_with(recorded) { recorded.len() } else { 0 };
            let events: Vec<AuditEvent> =
                notes.iter().skip(old).cloned().map(CommandNote::event).collect();
            if events.is_empty() || write(&events) {
                *recorded = notes;
                true
            } else {
                refused = true;
                false
            }
        });
        self.again = (refused || taken.is_err()).then(|| now + AGAIN);
        match taken {
            Ok(()) if !refused => self.recorded.clear(),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                tracing::error!(
                    "what was done by command cannot be recorded: {}: {error}",
                    folder.display()
                );
            }
            Ok(()) | Err(_) => {}
        }
    }
}

impl CommandNote for ImageNote {
    fn is_refusal(&self) -> bool {
        self.what == ImageAction::Refused
    }

    fn why(&mut self) -> &mut Option<String> {
        &mut self.why
    }

    fn event(self) -> AuditEvent {
        event(self)
    }
}

/// Returns the event of a note.
fn event(note: ImageNote) -> AuditEvent {
    let ImageNote { at, uid, what, image, serial, manifest, floor, signers, trust, why } = note;
    let (at, named) = (line(&at), image.as_deref().map(line));
    let (image, number) = (named.clone().unwrap_or_default(), serial.unwrap_or_default());
    match what {
        ImageAction::Installed | ImageAction::Repaired => ImageInstalled {
            at,
            floor,
            image,
            manifest: manifest.map(String::from),
            repaired: Some(what == ImageAction::Repaired),
            serial: number,
            signers: signers.iter().map(|name| line(name)).collect(),
            trust,
            uid,
        }
        .into(),
        ImageAction::Activated => ImageActivated { at, image, serial: number, uid }.into(),
        ImageAction::RolledBack => ImageRolledBack { at, image, serial, uid }.into(),
        ImageAction::Removed => ImageRemoved { at, image, serial: number, uid }.into(),
        ImageAction::Refused => {
            let why = line(&why.unwrap_or_default());
            ImageRefused { at, image: named, serial, uid, why }.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ::audit::Limits;
    use recorder::Recorder;

    use super::*;

    fn note(what: ImageAction) -> ImageNote {
        ImageNote {
            at: "2026-11-29T08:00:00Z".to_owned(),
            uid: 0,
            what,
            image: Some("clinical".to_owned()),
            serial: Some(7),
            manifest: None,
            floor: Some(5),
            signers: vec!["kim".to_owned()],
            trust: Some(2),
            why: Some("no \u{1b}[31mroom".to_owned()),
        }
    }

    #[test]
    fn what_was_done_with_images_is_in_the_audit_log_once_and_its_notes_go_after_that() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::open(dir.path(), Limits::default());
        let all = [
            ImageAction::Installed,
            ImageAction::Activated,
            ImageAction::RolledBack,
            ImageAction::Removed,
            ImageAction::Refused,
        ];
        for what in all {
            notes::add(dir.path(), note(what)).unwrap();
        }
        ImageNotes::default().record(dir.path(), Moment::now(), |_| false);
        let mut image_notes = ImageNotes::default();
        for _ in 0..2 {
            image_notes.record(dir.path(), Moment::now(), |events| recorder.note(events).is_some());
        }
        let log = fs::read_to_string(dir.path().join("audit/audit-000000000001.jsonl")).unwrap();
        for word in ["installed", "activated", "rolled-back", "removed", "refused"] {
            assert_eq!(log.matches(&format!("\"kind\":\"image-{word}\"")).count(), 1, "{word}");
        }
        assert!(!log.contains("u001b"), "{log}");
    }

    #[test]
    fn notes_that_cannot_be_recorded_or_removed_wait_and_are_recorded_once() {
        let dir = tempfile::tempdir().unwrap();
        notes::add(dir.path(), note(ImageAction::Activated)).unwrap();
        let mut image_notes = ImageNotes::default();
        let mut tried = 0;
        for _ in 0..5 {
            image_notes.record(dir.path(), Moment::now(), |_| {
                tried += 1;
                false
            });
        }
        assert_eq!(tried, 1, "not at each pass of the event loop");
        // As after a removal that failed: they are on record, and still there.
        let mut image_notes =
            ImageNotes { again: None, recorded: vec![note(ImageAction::Activated)] };
        notes::add(dir.path(), note(ImageAction::Removed)).unwrap();
        let mut written = 0;
        image_notes.record(dir.path(), Moment::now(), |events| {
            written += events.len();
            true
        });
        assert_eq!((written, image_notes.recorded.len()), (1, 0));
    }
}
