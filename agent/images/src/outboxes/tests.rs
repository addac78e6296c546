//! Outboxes of records that were laid down, and a log that is written, killed and read as the agent's is.

use std::fs;

use recorder::Recorder;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const MANIFEST: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

fn name() -> ImageName {
    "desk".parse().unwrap()
}

/// Image 2 came into force at this time, its guest did not come up, and 3 could not come into force.
fn happened(at: &str) -> Vec<ImageEvent> {
    let event = |serial, what| ImageEvent {
        at: Some(at.to_owned()),
        serial,
        domain: "clinical".to_owned(),
        what,
    };
    let manifest = Some(MANIFEST.parse().unwrap());
    vec![
        event(2, Occurrence::InForce { manifest }),
        event(2, Occurrence::Returned { back: 1 }),
        event(3, Occurrence::Refused { why: "it is damaged".to_owned() }),
    ]
}

/// A PC with these events in the outbox of `desk`.
struct Pc {
    dir: TempDir,
    recorder: Recorder,
}

impl Pc {
    fn new(events: &[ImageEvent]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::open(dir.path(), audit::Limits::default());
        let pc = Self { dir, recorder };
        pc.lay_down(events);
        pc
    }

    fn lay_down(&self, events: &[ImageEvent]) {
        let entry = json!({ "manifest": MANIFEST, "size": 1, "signers": [], "keys": [] });
        let record = json!({
            "format": 2, "floor": 1, "current": 1, "outbox": events,
            "newest": { "serial": 2, "manifest": MANIFEST }, "installed": { "1": entry, "2": entry },
        });
        fs::create_dir_all(self.dir.path().join("desk")).unwrap();
        fs::write(self.dir.path().join("desk/image.json"), record.to_string()).unwrap();
    }

    fn log(&self) -> std::path::PathBuf {
        recorder::directory(self.dir.path())
    }

    /// Writes events into the log and nothing else, as an agent does that is killed after that.
    fn write(&mut self, events: &[ImageEvent]) {
        let events: Vec<_> = events.iter().map(|it| event(&name(), it.clone(), 0)).collect();
        self.recorder.note(&events).unwrap();
    }

    /// An agent starts; returns what it has to record.
    fn outboxes(&self) -> Outboxes {
        let mut outboxes = Outboxes::default();
        outboxes.resume(self.dir.path(), &self.log(), 0);
        outboxes
    }

    fn record(&mut self, outboxes: &mut Outboxes, now: Moment) {
        let recorder = &mut self.recorder;
        outboxes.record(self.dir.path(), now, 0, |events| recorder.note(events).is_some());
    }

    /// What the log says of images, in its order: the kind and the time.
    fn logged(&self) -> Vec<(String, String)> {
        let mut said = Vec::new();
        audit::each(&self.log(), |_, entry| {
            if entry.kind.starts_with("image-") {
                let at = entry.detail.get("at").and_then(Value::as_str).unwrap().to_owned();
                said.push((entry.kind, at));
            }
            Ok(())
        })
        .unwrap();
        said
    }

    fn waits(&self) -> bool {
        !Store::at(self.dir.path()).outboxes().is_empty()
    }
}

fn expected(at: &str) -> Vec<(String, String)> {
    let kinds = ["image-in-force", "image-returned", "image-refused"];
    kinds.map(|kind| (kind.to_owned(), at.to_owned())).to_vec()
}

#[test]
fn what_happened_is_recorded_in_its_order_and_once_wherever_the_agent_was_killed() {
    for written in 0..=3 {
        let events = happened("12:00");
        let mut pc = Pc::new(&events);
        pc.write(&events[..written]);
        for _ in 0..2 {
            let mut outboxes = pc.outboxes();
            pc.record(&mut outboxes, Moment::now());
            assert_eq!(pc.logged(), expected("12:00"), "{written}");
            assert!(!pc.waits());
        }
        // It happens once more, and the agent is killed before any of it is on record.
        pc.lay_down(&happened("13:00"));
        let mut outboxes = pc.outboxes();
        pc.record(&mut outboxes, Moment::now());
        assert_eq!(pc.logged(), [expected("12:00"), expected("13:00")].concat());
    }
}

#[test]
fn what_cannot_be_recorded_waits_and_what_cannot_be_taken_out_is_not_recorded_again() {
    let events = happened("12:00");
    let mut pc = Pc::new(&events);
    let mut outboxes = Outboxes::default();
    outboxes.add(name());
    let (mut now, mut tried) = (Moment::now(), 0);
    for _ in 0..3 {
        outboxes.record(pc.dir.path(), now, 0, |_| {
            tried += 1;
            false
        });
    }
    assert_eq!(tried, 1, "not at each pass of the event loop");
    let lock = pc.dir.path().join("desk/.record");
    let _ = fs::remove_file(&lock);
    fs::create_dir(&lock).unwrap();
    for _ in 0..2 {
        now += AGAIN;
        pc.record(&mut outboxes, now);
        assert_eq!(pc.logged(), expected("12:00"));
        assert!(pc.waits());
    }
    fs::remove_dir(&lock).unwrap();
    pc.record(&mut outboxes, now + AGAIN);
    assert_eq!(pc.logged(), expected("12:00"));
    assert!(!pc.waits());
}

#[test]
fn where_the_log_cannot_be_read_it_is_recorded_rather_twice_than_not_at_all() {
    let mut pc = Pc::new(&happened("12:00"));
    let mut outboxes = Outboxes::default();
    fs::write(pc.dir.path().join("file"), "no directory").unwrap();
    outboxes.resume(pc.dir.path(), &pc.dir.path().join("file"), 0);
    pc.record(&mut outboxes, Moment::now());
    assert_eq!(pc.logged(), expected("12:00"));
    assert!(!pc.waits());
}

#[test]
fn what_a_command_was_refused_is_not_taken_for_what_a_start_met() {
    let events = happened("12:00");
    let mut pc = Pc::new(&events);
    pc.write(&events);
    let refused = ImageRefused {
        at: "12:01".to_owned(),
        image: Some("desk".to_owned()),
        serial: Some(3),
        uid: 0,
        why: "activate: it is damaged".to_owned(),
    };
    pc.recorder.note(&[refused.into()]).unwrap();
    let mut outboxes = pc.outboxes();
    pc.record(&mut outboxes, Moment::now());
    assert_eq!(pc.logged().len(), 4);
}
