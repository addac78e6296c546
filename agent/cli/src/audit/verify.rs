//! `bulkhead audit verify`: whether the log is whole, and what its files cannot show.

use std::path::{Path, PathBuf};
use std::thread;

use audit::{Flaw, Follower, Head, PUBLIC_FILE, PublicKey, RememberedHead, Summary, verify};
use printable::counted;
use serde_json::json;

use super::{Common, DIRECTORY, Failure, Outcome, PAUSE, TRIES, cannot_read, meant};
use crate::{complain, print};
use base::defaults;
use config::files::{FileFault, text_given};
use recorder::remembered_in;

/// Bytes of the largest file that is read for a key.
const KEY_FILE_MAX: u64 = 64 << 10;

pub(super) fn run(common: &Common, dir: &Path, key: Option<&Path>, heads: &[Head]) -> Outcome {
    if let Some(log) = meant(dir) {
        let why =
            format!("there is no audit log in {}; did you mean {}?", dir.display(), log.display());
        return common.fail(Failure::No, &why);
    }
    // `.` has no parent to look beside.
    let whole_path = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let path = key.map_or_else(|| key_beside(&whole_path), Path::to_owned);
    let public = match text_given(&path, KEY_FILE_MAX).map(|text| PublicKey::parse(&text)) {
        Ok(Some(public)) => public,
        Ok(None) => {
            return common
                .fail(Failure::No, &format!("{} is not a public audit key", path.display()));
        }
        Err(error) => return without_key(common, &whole_path, heads, &path, &error),
    };
    let (remembered, another) = remembered(common, &whole_path);
    let mut all = heads.to_vec();
    all.extend(remembered.iter().map(|one| one.head));
    if remembered.iter().any(|one| !one.is_of(&public)) {
        let what = format!(
            "the audit key {} is another than this PC remembers: the log may have been exchanged as a whole",
            path.display()
        );
        return broken(common, &Flaw { file: dir.to_owned(), line: 0, seq: 1, what });
    }
    let mut result = verify(dir, Some(&public), &all);
    for _ in 1..TRIES {
        if !matches!(result, Ok(Err(_))) {
            break;
        }
        thread::sleep(PAUSE);
        result = verify(dir, Some(&public), &all);
    }
    match result {
        Ok(Ok(summary)) => {
            let mut unknown =
                unknown(&summary, key.is_some(), !heads.is_empty(), !remembered.is_empty());
            if let Some(path) = another {
                unknown.push(format!(
                    "what this PC remembers of it: {} is of another log, and says nothing of this one",
                    path.display()
                ));
            }
            whole(common, dir, &summary, &public, &unknown)
        }
        Ok(Err(found)) => broken(common, &found),
        Err(error) => cannot_read(common, dir, &error),
    }
}

/// Returns the path of the public key: in the log's directory; beside it for logs of format 1.
fn key_beside(dir: &Path) -> PathBuf {
    let inside = dir.join(PUBLIC_FILE);
    let former = dir.parent().unwrap_or(dir).join("keys").join(PUBLIC_FILE);
    if !inside.exists() && former.exists() { former } else { inside }
}

/// Answers for a log whose key is not there. A directory that is no log is said to be none, whether or not there is a key.
fn without_key(
    common: &Common,
    dir: &Path,
    heads: &[Head],
    path: &Path,
    error: &FileFault,
) -> Outcome {
    match verify(dir, None, heads) {
        Ok(Err(found)) if heads.is_empty() && never_had_a_log(common, dir) => {
            let why = format!(
                "{} is no audit log: {}; name the log's directory",
                dir.display(),
                found.what
            );
            common.fail(Failure::No, &why)
        }
        Ok(Err(found)) => broken(common, &found),
        Err(error) => cannot_read(common, dir, &error),
        Ok(Ok(_)) => {
            let path = path.display();
            let why = match error {
                FileFault::Missing => format!(
                    "cannot read the audit key {path}: it is not there; name the file in which the key was kept off the PC with --key"
                ),
                error => format!("cannot read the audit key {path}: {error}; name it with --key"),
            };
            common.fail(Failure::No, &why)
        }
    }
}

/// Returns whether nothing says that a log was ever in this directory: one that was emptied does not hold.
fn never_had_a_log(common: &Common, dir: &Path) -> bool {
    dir != Path::new(DIRECTORY)
        && Follower::open(dir).is_err()
        && Head::read(dir).is_none()
        && matches!(remembered(common, dir), (heads, None) if heads.is_empty())
}

/// Returns what this PC remembers of the log outside its directory, and what lies beside it, for a copy too; and the file beside it that is
/// another log's, as it is for an archive.
fn remembered(common: &Common, dir: &Path) -> (Vec<RememberedHead>, Option<PathBuf>) {
    let elsewhere = [defaults::policy().parent(), Some(common.runtime.as_path())];
    let elsewhere = elsewhere.into_iter().flatten().filter_map(|one| {
        RememberedHead::read(&remembered_in(one)).filter(|remembered| remembered.is_about(dir))
    });
    let beside = dir.parent().map(remembered_in);
    let found = beside.as_deref().and_then(RememberedHead::read);
    let (found, another) = match found {
        Some(found) if !found.is_of_neighbour(dir) => (None, beside),
        found => (found, None),
    };
    (found.into_iter().chain(elsewhere).collect(), another)
}

/// Returns what the files cannot show, however whole they are.
fn unknown(summary: &Summary, key: bool, head: bool, remembered: bool) -> Vec<String> {
    let mut unknown = Vec::new();
    if !head {
        let but = if remembered { ", and what this PC remembers with it" } else { "" };
        unknown.push(format!(
            "whether the log was cut off at a checkpoint, or all of it put back to an earlier day{but}: \
             only a head kept off the PC shows that (--head)"
        ));
    }
    if !key {
        unknown.push(
            "whether the key beside the log is this PC's: who can exchange the log can exchange it too; \
             keep it off the PC, and give it with --key"
                .to_owned(),
        );
    }
    if summary.unsigned > 0 {
        unknown.push(format!(
            "what of the last {} is as the agent wrote it: no checkpoint has signed it yet",
            counted(summary.unsigned, "entry", "entries")
        ));
    }
    if summary.unsigned_at_start > 0 {
        unknown.push(format!(
            "what of {} that a later start of the agent found unsigned is as it was written: \
             the agent or the PC had ended without closing the log",
            counted(summary.unsigned_at_start, "entry", "entries")
        ));
    }
    if summary.format_1 > 0 {
        unknown.push(format!(
            "when the first {} were written: format 1 did not record that the clock was set{}",
            counted(summary.format_1, "entry", "entries"),
            match summary.format_1_back {
                0 => String::new(),
                times => format!(", and it goes back {}", counted(times, "time", "times")),
            }
        ));
    }
    unknown
}

fn whole(
    common: &Common,
    dir: &Path,
    summary: &Summary,
    public: &PublicKey,
    unknown: &[String],
) -> Outcome {
    let Summary { entries, first, checkpoints, unsigned, head, clock_steps, .. } = summary;
    let fields = json!({
        "entries": entries, "first": first, "checkpoints": checkpoints,
        "unsigned": unsigned, "unsigned_at_start": summary.unsigned_at_start,
        "clock_steps": clock_steps, "format_1": summary.format_1, "closed": summary.closed,
        "head": head.to_string(), "key": public.text(), "unknown": unknown,
    });
    let mut text = format!(
        "{} holds: {}, {}, {} since the last\n",
        dir.display(),
        counted(*entries, "entry", "entries"),
        counted(*checkpoints, "signed checkpoint", "signed checkpoints"),
        counted(*unsigned, "entry", "entries"),
    );
    if *first > 1 {
        let dropped = counted(first - 1, "entry", "entries");
        text += &format!("{dropped} before them went to make room, which is recorded\n");
    }
    if *clock_steps > 0 {
        let times = counted(*clock_steps, "time", "times");
        text += &format!("the wall clock was set {times}, which is recorded\n");
    }
    text += "\nWhat this cannot know:\n";
    for one in unknown {
        text += &format!("- {one}\n");
    }
    if unknown.is_empty() {
        text += "- what came after the head that was given was cut off at a checkpoint or not\n";
    }
    text += &format!(
        "\nKeep both off the PC: the key, in a file for --key, and the head, for --head next time:\n{}\n{head}\n",
        public.text()
    );
    common.done(&fields, || print(&text))
}

fn broken(common: &Common, found: &Flaw) -> Outcome {
    let place = json!({"file": found.file, "line": found.line, "seq": found.seq});
    common.answer(Err(found.what.clone()), &place, || {
        complain(&format!("bulkhead: the audit log does not hold. {found}\n"));
    })
}
