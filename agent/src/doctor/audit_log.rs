//! Whether the audit log is whole, and as far as this PC remembers it.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use audit::{Head, PUBLIC_FILE, PublicKey, Remembered, verify};

use super::{Finding, text};
use crate::recorder::{AUDITOR_GROUP, directory, remembered_in};

const CHECK: &str = "audit-log";
/// The agent may be in the middle of a line: looked at again after as long.
const PAUSE: Duration = Duration::from_millis(200);

/// Looks at the log of a state directory, and at what is remembered of it there and in other directories.
#[must_use]
pub fn examine(state: &Path, elsewhere: &[PathBuf]) -> Finding {
    let dir = directory(state);
    let places = std::iter::once(state).chain(elsewhere.iter().map(PathBuf::as_path));
    let mut remembered: Vec<Remembered> =
        places.filter_map(|place| Remembered::read(&remembered_in(place))).collect();
    remembered.retain(|one| one.is_about(&dir));
    let gone_back = "find out who put back, deleted or exchanged it; `bulkhead audit verify` names the place, and the log's archive shows what is lost";
    let last = remembered.iter().map(|one| one.head).max_by_key(|head| head.seq);
    match (dir.try_exists(), last) {
        (Ok(true), _) => {}
        (Err(error), _) => return not_looked_at(&dir, &error),
        (Ok(false), None) => {
            return Finding::warn(
                CHECK,
                format!("there is no audit log in {}", dir.display()),
                "start bulkhead-agent, or name its state directory with --state",
            );
        }
        (Ok(false), Some(head)) => {
            let gone = format!(
                "the audit log in {} is gone, which went to entry {}",
                dir.display(),
                head.seq
            );
            return Finding::fail(CHECK, gone, gone_back);
        }
    }
    let heads: Vec<Head> = remembered.iter().map(|one| one.head).collect();
    let key = text(&dir.join(PUBLIC_FILE)).and_then(|text| PublicKey::parse(&text));
    let look = || verify(&dir, key.as_ref(), &heads);
    let mut found = look();
    if matches!(found, Ok(Err(_))) {
        thread::sleep(PAUSE);
        found = look();
    }
    match found {
        Err(error) => not_looked_at(&dir, &error),
        Ok(Err(place)) => {
            Finding::fail(CHECK, format!("the audit log does not hold. {place}"), gone_back)
        }
        Ok(Ok(_)) if key.is_some_and(|key| remembered.iter().any(|one| !one.is_of(&key))) => {
            let what = "the audit log is signed with another key than this PC remembers";
            Finding::fail(CHECK, what, gone_back)
        }
        Ok(Ok(summary)) if key.is_none() => Finding::fail(
            CHECK,
            format!(
                "the {} entries of the audit log are signed, and its public key is missing",
                summary.entries
            ),
            format!("restart bulkhead-agent, which writes {PUBLIC_FILE} into {}", dir.display()),
        ),
        Ok(Ok(summary)) => Finding::ok(
            CHECK,
            format!(
                "{} entries, {} signed checkpoints; what only a head kept off the PC can show, this does not",
                summary.entries, summary.checkpoints
            ),
        ),
    }
}

fn not_looked_at(dir: &Path, error: &io::Error) -> Finding {
    Finding::warn(
        CHECK,
        format!("not looked at: {}: {error}", dir.display()),
        format!("run this as root, or as a member of the group {AUDITOR_GROUP}"),
    )
}
