//! The record as it is written, in every format that this program reads: plain data, which becomes a [`Record`] if it is sound.
//!
//! | format | |
//! | --- | --- |
//! | 1 | `begun` has at most one image that came into force and is not in the audit log; at first the trial was a serial without its domain |
//! | 2 | `outbox` has all that is not in the log, `failed` the last trial that failed |
//!
//! Format 2 is written. An older Bulkhead does not read it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::outbox::{ImageEvent, OUTBOX_MAX, Occurrence, Outbox};
use super::{FailedTrial, INSTALLED_MAX, Installed, NewestImage, Record, RefusedStart, Trial};

/// The format that is written.
const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedRecord {
    format: u32,
    floor: u64,
    current: Option<u64>,
    previous: Option<u64>,
    pending: Option<u64>,
    trial: Option<SavedTrial>,
    #[serde(skip_serializing)]
    begun: Option<SavedStart>,
    refused: Option<RefusedStart>,
    failed: Option<FailedTrial>,
    #[serde(default)]
    outbox: Outbox,
    newest: Option<NewestImage>,
    installed: BTreeMap<u64, Installed>,
}

/// A trial, as every format has it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SavedTrial {
    Of(Trial),
    /// Of a domain that nobody knows any more.
    OfSome(u64),
}

/// What came into force, in format 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedStart {
    serial: u64,
    domain: String,
}

/// Why what was read is no record.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordFault {
    /// A newer Bulkhead wrote it, or nobody did.
    #[error("it has the format {0}, which this Bulkhead does not read")]
    Format(u32),
    /// It speaks of an image that is not installed, or has too much of something.
    #[error("it contradicts itself")]
    Content,
}

impl TryFrom<SavedRecord> for Record {
    type Error = RecordFault;

    fn try_from(saved: SavedRecord) -> Result<Self, RecordFault> {
        let SavedRecord { format, floor, current, previous, pending, trial, begun, .. } = saved;
        let SavedRecord { refused, failed, mut outbox, newest, installed, .. } = saved;
        if !(1..=FORMAT).contains(&format) {
            return Err(RecordFault::Format(format));
        }
        if let Some(SavedStart { serial, domain }) = begun {
            let manifest = installed.get(&serial).map(|entry| entry.manifest);
            let what = Occurrence::InForce { manifest };
            outbox.push(ImageEvent { at: None, serial, domain, what });
        }
        let trial = trial.and_then(|trial| match trial {
            SavedTrial::Of(trial) => Some(trial),
            SavedTrial::OfSome(_) => None,
        });
        let record = Self {
            floor,
            current,
            previous,
            pending,
            trial,
            refused,
            failed,
            outbox,
            newest,
            installed,
        };
        if record.is_sound() { Ok(record) } else { Err(RecordFault::Content) }
    }
}

impl From<Record> for SavedRecord {
    fn from(record: Record) -> Self {
        let Record { floor, current, previous, pending, trial, .. } = record;
        let Record { refused, failed, outbox, newest, installed, .. } = record;
        Self {
            format: FORMAT,
            floor,
            current,
            previous,
            pending,
            trial: trial.map(SavedTrial::Of),
            begun: None,
            refused,
            failed,
            outbox,
            newest,
            installed,
        }
    }
}

impl Record {
    /// Returns whether this program can go on with it: it speaks of nothing that is not installed, and nothing in it is more than it may be.
    pub(super) fn is_sound(&self) -> bool {
        let named = [self.current, self.previous, self.pending];
        self.installed.len() <= INSTALLED_MAX
            && self.outbox.events().len() <= OUTBOX_MAX
            && named.iter().flatten().all(|serial| self.installed.contains_key(serial))
            && self
                .installed
                .keys()
                .all(|serial| self.newest.is_some_and(|it| *serial <= it.serial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    /// What a Bulkhead that wrote format 1 has laid down in mid-trial.
    fn of_format_1(trial: &str, begun: &str) -> String {
        let entry = format!(
            r#"{{ "manifest": "{MANIFEST}", "size": 8196, "signers": ["kim"], "keys": ["ed25519:00"], "trust": 1 }}"#
        );
        format!(
            r#"{{
  "format": 1,
  "floor": 1,
  "current": 2,
  "previous": 1,
  "pending": null,
  "trial": {trial},
  {begun}
  "refused": null,
  "newest": {{ "serial": 2, "manifest": "{MANIFEST}" }},
  "installed": {{ "1": {entry}, "2": {entry} }}
}}
"#
        )
    }

    fn read(text: &str) -> Result<Record, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_record_of_the_first_format_is_read_in_mid_trial_and_goes_on_as_it_was() {
        let text = of_format_1(
            r#"{ "serial": 2, "domain": "clinical" }"#,
            r#""begun": { "serial": 2, "domain": "clinical" },"#,
        );
        let mut record = read(&text).unwrap();
        assert!(record.is_on_trial(2, "clinical") && !record.is_on_trial(2, "internet"));
        let manifest = Some(MANIFEST.parse().unwrap());
        let event = ImageEvent {
            at: None,
            serial: 2,
            domain: "clinical".to_owned(),
            what: Occurrence::InForce { manifest },
        };
        assert_eq!(record.events(), [event]);
        let written = serde_json::to_string(&record).unwrap();
        assert!(written.contains("\"format\":2") && !written.contains("begun"), "{written}");
        assert_eq!(read(&written).unwrap(), record);
        assert_eq!(record.give_up(2, "clinical", "12:00"), Ok(1));
        assert_eq!(read(&serde_json::to_string(&record).unwrap()).unwrap(), record);
    }

    #[test]
    fn a_record_from_before_trials_had_a_domain_is_read_and_nobody_is_judged_by_it() {
        for begun in ["", r#""begun": null,"#] {
            let record = read(&of_format_1("2", begun)).unwrap();
            assert_eq!((record.current(), record.events()), (Some(2), [].as_slice()));
            assert!(!record.is_on_trial(2, "clinical"));
        }
    }

    #[test]
    fn a_record_of_a_newer_format_and_one_that_contradicts_itself_are_refused() {
        let text = of_format_1("null", "");
        read(&text).unwrap();
        for format in ["0", "3"] {
            let other = text.replace("\"format\": 1", &format!("\"format\": {format}"));
            assert!(read(&other).unwrap_err().contains("does not read"));
        }
        for (said, other) in [
            ("\"current\": 2", "\"current\": 3"),
            ("\"newest\": { \"serial\": 2", "\"newest\": { \"serial\": 1"),
        ] {
            assert!(read(&text.replace(said, other)).unwrap_err().contains("contradicts"));
        }
        let event = r#"{ "serial": 2, "domain": "a", "what": { "stayed": { "why": "" } } }"#;
        let outbox = |count| {
            let events = vec![event; count].join(",");
            text.replace("\"format\": 1,", &format!("\"format\": 2, \"outbox\": [{events}],"))
        };
        assert_eq!(read(&outbox(OUTBOX_MAX)).unwrap().events().len(), OUTBOX_MAX);
        assert!(read(&outbox(OUTBOX_MAX + 1)).unwrap_err().contains("contradicts"));
    }
}
