//! Updates of Bulkhead itself that came by a bundle: what became of the last one, and whether one waits.

use std::io;
use std::path::Path;

use base::layout;
use printable::explain;
use program::record::{KeptPackage, LastUpdate, Outcome, Pending, Record, Stage};
use program::store::{Store, StoreError};

use super::Finding;

const CHECK: &str = "program";

/// Examines the record of updates in this state directory.
pub(super) fn examine(state: &Path) -> Finding {
    match Store::at(&layout::programs(state)).record() {
        Ok(record) => of(&record),
        Err(StoreError::File { source, .. })
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            Finding::warn(
                CHECK,
                "not looked at: what is known of updates is root's to read",
                "run `bulkhead doctor` as root",
            )
        }
        Err(error) => Finding::fail(
            CHECK,
            "what is known of updates of Bulkhead cannot be read",
            explain(&error),
        ),
    }
}

fn of(record: &Record) -> Finding {
    if let Some(pending) = &record.pending {
        return under_way(pending);
    }
    let Some(LastUpdate { serial, version, outcome, why }) = &record.last else {
        return Finding::ok(CHECK, "no update of Bulkhead came by a bundle");
    };
    let why = why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    let which = format!("bulkhead {version} (serial {serial})");
    match outcome {
        Outcome::InForce => Finding::ok(CHECK, format!("{which} is in force")),
        Outcome::Returned => Finding::warn(
            CHECK,
            format!("{which} did not work, and the version before is in force again{why}"),
            "`journalctl -u bulkhead-update -u bulkhead-agent`; it is not tried again by itself: install a bundle with a higher serial that works",
        ),
        Outcome::Refused => Finding::warn(
            CHECK,
            format!("{which} was not installed{why}"),
            "install the bundle again, or a newer one: `bulkhead program install FILE`",
        ),
        Outcome::Stuck => Finding::fail(
            CHECK,
            format!("{which} did not work, and nothing came back{why}"),
            "`bulkhead program rollback` if there is one before, or install a bundle that works (\"Faults and remedies\" in docs/it/program.md)",
        ),
        Outcome::NeitherWorks => Finding::fail(
            CHECK,
            format!(
                "{which} did not work, and neither does the version before, which is installed again{why}"
            ),
            "`journalctl -u bulkhead-agent`, and the other findings here: it may be the PC; then install a bundle that works (\"Faults and remedies\" in docs/it/program.md)",
        ),
        Outcome::Other => Finding::warn(
            CHECK,
            format!("{which} ended as only a newer version of Bulkhead has a word for"),
            "`bulkhead audit show` says what was done",
        ),
    }
}

fn under_way(pending: &Pending) -> Finding {
    let Pending { to: KeptPackage { serial, version, .. }, stage, waits, .. } = pending;
    let which = format!("bulkhead {version} (serial {serial})");
    match (stage, waits) {
        (Stage::Waiting, None) => Finding::ok(
            CHECK,
            format!("{which} waits, and is installed with the next start of the agent"),
        ),
        (Stage::Proving | Stage::ProvingReturn { .. }, Some(waits)) => Finding::warn(
            CHECK,
            format!(
                "{which} is under way, and nothing has shown yet that what is installed works: {waits}"
            ),
            "start the agent: `systemctl start bulkhead-agent`",
        ),
        (_, Some(waits)) => Finding::warn(
            CHECK,
            format!("{which} is not installed yet: {waits}"),
            "make room if there is none, and then `systemctl start bulkhead-update`",
        ),
        (_, None) => Finding::warn(
            CHECK,
            format!("{which} is under way"),
            "wait for it: `bulkhead program status`; if nothing is at work with it, `systemctl start bulkhead-update`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use control::findings::Level;
    use serde_json::{Value, json};

    use super::*;

    /// Returns what is found where this is under way, and that came of the last one.
    fn found(pending: Value, last: Value) -> Finding {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(layout::programs(dir.path())).unwrap();
        let record = json!({
            "format": 1, "newest": null, "floor": 1, "in_force": null, "before": null, "pending": pending, "last": last,
        });
        fs::write(dir.path().join("program/record.json"), record.to_string()).unwrap();
        examine(dir.path())
    }

    fn is(finding: &Finding, level: Level, says: &str, remedy: &str) {
        let help = finding.remedy.clone().unwrap_or_default();
        assert_eq!((&*finding.check, finding.level), ("program", level), "{finding:?}");
        assert!(finding.message.contains(says) && help.contains(remedy), "{finding:?}");
    }

    #[test]
    fn what_became_of_the_last_update_is_said_with_what_to_do() {
        for (outcome, level, says, remedy) in [
            ("in-force", Level::Ok, "2.0 (serial 7) is in force", ""),
            ("returned", Level::Warn, "in force again: its reason", "higher serial"),
            ("refused", Level::Warn, "was not installed: its reason", "program install"),
            ("stuck", Level::Fail, "nothing came back: its reason", "program rollback"),
            ("neither-works", Level::Fail, "neither does the version before", "journalctl"),
            ("a-newer-word", Level::Warn, "newer version", "audit show"),
        ] {
            let last =
                json!({"serial": 7, "version": "2.0", "outcome": outcome, "why": "its reason"});
            is(&found(Value::Null, last), level, says, remedy);
        }
        is(&found(Value::Null, Value::Null), Level::Ok, "no update", "");
        is(&examine(Path::new("/nonexistent")), Level::Ok, "no update", "");
    }

    #[test]
    fn an_update_that_waits_says_for_what() {
        let pending = |stage: Value, waits: Option<&str>| {
            let digest = "0".repeat(64);
            let to = json!({"serial": 7, "version": "2.0", "floor": 1, "manifest": digest, "signers": []});
            let pending = json!({"to": to, "back": null, "rollback": false, "uid": 0, "stage": stage, "waits": waits});
            found(pending, Value::Null)
        };
        is(&pending(json!("waiting"), None), Level::Ok, "next start of the agent", "");
        let proving = pending(json!("proving"), Some("no agent runs"));
        is(&proving, Level::Warn, "no agent runs", "systemctl start bulkhead-agent");
        let back = pending(json!({"proving-return": {"why": "x"}}), Some("no agent runs"));
        is(&back, Level::Warn, "no agent runs", "systemctl start bulkhead-agent");
        let full = pending(json!("installing"), Some("no room"));
        is(&full, Level::Warn, "no room", "systemctl start bulkhead-update");
        is(&pending(json!("installing"), None), Level::Warn, "is under way", "program status");
    }

    #[test]
    fn a_record_that_cannot_be_used_is_no_update_that_is_well() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(layout::programs(dir.path())).unwrap();
        fs::write(dir.path().join("program/record.json"), "{").unwrap();
        is(&examine(dir.path()), Level::Fail, "cannot be read", "record.json");
    }
}
