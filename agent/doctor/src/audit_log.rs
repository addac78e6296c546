//! Whether the audit log is whole, and as far as this PC remembers it.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use audit::{Head, Limits, PUBLIC_FILE, PublicKey, RememberedHead, verify};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::{Finding, text};
use recorder::{AUDITOR_GROUP, directory, remembered_in};

const CHECK: &str = "audit-log";
const DISK: &str = "audit-disk";
/// Less room than this, and the log stops today.
const ROOM_MIN: u64 = 64 << 20;
/// The agent may be in the middle of a line: looked at again after as long.
const PAUSE: Duration = Duration::from_millis(200);

/// Looks at the log of a state directory, and at what is remembered of it there and in other directories.
#[must_use]
pub fn examine(state: &Path, elsewhere: &[PathBuf]) -> Finding {
    let dir = directory(state);
    let places = std::iter::once(state).chain(elsewhere.iter().map(PathBuf::as_path));
    let mut remembered: Vec<RememberedHead> =
        places.filter_map(|place| RememberedHead::read(&remembered_in(place))).collect();
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

/// Looks at the disk the log lies on: whether it can take what the log may still grow by.
#[must_use]
pub fn disk(state: &Path, limits: &Limits) -> Finding {
    let dir = directory(state);
    let place = if dir.exists() { dir.as_path() } else { state };
    let (room, kind) = match (statvfs(place), statfs(place)) {
        (Ok(room), Ok(kind)) => (room, kind),
        (Err(error), _) | (_, Err(error)) => {
            return Finding::warn(
                DISK,
                format!("not looked at: {}: {error}", place.display()),
                "start bulkhead-agent, or name its state directory with --state",
            );
        }
    };
    if room.flags().contains(FsFlags::ST_RDONLY) {
        return Finding::fail(
            DISK,
            format!(
                "{} is on a disk that is read-only: nothing crosses between desktops",
                place.display()
            ),
            "`dmesg` says why (a disk that failed is made read-only); mount it for writing, or exchange it",
        );
    }
    let free = room.blocks_available().saturating_mul(room.fragment_size());
    let used: u64 = std::fs::read_dir(&dir).map_or(0, |entries| {
        entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
    });
    judge_disk(place, free, used, limits, kind.filesystem_type() == TMPFS_MAGIC)
}

fn judge_disk(place: &Path, free: u64, used: u64, limits: &Limits, in_memory: bool) -> Finding {
    let (at, free_mib) = (place.display(), free >> 20);
    let to_come = limits.total_bytes.saturating_sub(used);
    if in_memory {
        return Finding::warn(
            DISK,
            format!("{at} lies in memory: the audit log is gone when the PC is switched off"),
            "put the state directory on a disk (--state, or mount one there)",
        );
    }
    if free < ROOM_MIN {
        return Finding::fail(
            DISK,
            format!(
                "{free_mib} MiB are left at {at}: nothing crosses between desktops when they are used up"
            ),
            "make room there: serial logs (<state>/log), images that nobody needs, the system's journal (`journalctl --vacuum-size=100M`)",
        );
    }
    if free < to_come {
        return Finding::warn(
            DISK,
            format!(
                "{free_mib} MiB are left at {at}, and the audit log may grow by {} MiB",
                to_come >> 20
            ),
            "make room there, or let the log keep less: `max_mib` and `keep_days` under [audit] in machine.toml",
        );
    }
    Finding::ok(
        DISK,
        format!("{free_mib} MiB are left at {at}; the log may grow by {} MiB", to_come >> 20),
    )
}

fn not_looked_at(dir: &Path, error: &io::Error) -> Finding {
    Finding::warn(
        CHECK,
        format!("not looked at: {}: {error}", dir.display()),
        format!("run this as root, or as a member of the group {AUDITOR_GROUP}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    #[test]
    fn the_disk_is_held_against_what_the_log_may_still_grow_by() {
        let limits = Limits { total_bytes: 1 << 30, ..Limits::default() };
        let judge = |free: u64, used: u64, in_memory| {
            judge_disk(Path::new("/state"), free << 20, used << 20, &limits, in_memory)
        };
        assert_eq!(judge(2000, 0, false).level, Level::Ok);
        assert_eq!(judge(1000, 500, false).level, Level::Ok, "half of it is there already");
        let short = judge(1000, 0, false);
        assert_eq!(short.level, Level::Warn);
        assert!(short.message.contains("1000 MiB") && short.message.contains("1024 MiB"));
        assert_eq!(judge(10, 0, false).level, Level::Fail);
        assert_eq!(judge(2000, 0, true).level, Level::Warn);
        let nowhere = disk(Path::new("/nonexistent/state"), &limits);
        assert_eq!(nowhere.level, Level::Warn);
        assert!(nowhere.message.starts_with("not looked at"), "{nowhere:?}");
    }
}
