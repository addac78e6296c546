//! Where the state is, once `bulkhead setup --encrypt-state` has moved it onto a volume of its own.
//!
//! The mount unit says that the volume has the state: where it is there and the volume is not mounted, what lies in the directory does not count.

use std::fs;
use std::path::{Path, PathBuf};

use crate::layout::STATE_VOLUME;

/// Where mount units of this PC's own lie, below its root.
pub const UNITS: &str = "etc/systemd/system";
/// The kernel's list of what this process sees mounted.
const MOUNTS: &str = "/proc/self/mountinfo";

/// Where the state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateLocation {
    /// On the PC's own file system.
    Plain,
    /// On a volume that is not mounted: what lies in the directory does not count.
    Away,
    /// On a volume that is mounted.
    Mounted,
}

/// The volume with the state is not mounted.
#[derive(Debug, thiserror::Error)]
#[error(
    "the encrypted volume with the state is not mounted at {}, and what is written there now would be lost from sight: `bulkhead setup` mounts it, and `systemctl status systemd-cryptsetup@{STATE_VOLUME}` says why it does not open",
    .0.display()
)]
pub struct StateAway(PathBuf);

/// One line of `mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The device: `major:minor`.
    pub number: String,
    pub point: PathBuf,
    pub source: String,
}

/// Reads the text of a `mountinfo`; lines that are none are left out.
#[must_use]
pub fn mounts(text: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ').skip(2);
        let (number, _, point) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Mount {
            number: number.to_owned(),
            // Blanks are written so.
            point: PathBuf::from(point.replace("\\040", " ")),
            source: right.split(' ').nth(1)?.to_owned(),
        })
    };
    text.lines().filter_map(mount).collect()
}

/// Returns what is mounted at a place, the last if several are.
#[must_use]
pub fn mounted_from(mounts: &[Mount], place: &Path) -> Option<String> {
    mounts.iter().rev().find(|mount| mount.point == place).map(|mount| mount.source.clone())
}

/// Returns the name of the unit that mounts something at an absolute path (systemd.unit(5)): `var-lib-bulkhead.mount`.
#[must_use]
pub fn mount_unit(place: &Path) -> String {
    let place = place.to_string_lossy();
    let escaped = place.trim_matches('/').chars().map(|sign| match sign {
        '/' => "-".to_owned(),
        '-' => "\\x2d".to_owned(),
        other => other.to_string(),
    });
    format!("{}.mount", escaped.collect::<String>())
}

/// Returns where the state is, by the mount unit that there is or is not, and by what is mounted.
#[must_use]
pub fn standing(unit: &Path, mounts: &[Mount], state: &Path) -> StateLocation {
    if mounted_from(mounts, state).is_some_and(|source| Path::new(&source).ends_with(STATE_VOLUME))
    {
        StateLocation::Mounted
    } else if unit.exists() {
        StateLocation::Away
    } else {
        StateLocation::Plain
    }
}

/// Refuses to use a state that is on a volume which is not mounted.
///
/// # Errors
/// It is away.
pub fn is_there(state: &Path) -> Result<(), StateAway> {
    let state = std::path::absolute(state).unwrap_or_else(|_| state.to_owned());
    let unit = Path::new("/").join(UNITS).join(mount_unit(&state));
    let text = fs::read_to_string(MOUNTS).unwrap_or_default();
    judged(&unit, &mounts(&text), &state)
}

fn judged(unit: &Path, mounts: &[Mount], state: &Path) -> Result<(), StateAway> {
    match standing(unit, mounts, state) {
        StateLocation::Away => Err(StateAway(state.to_owned())),
        StateLocation::Plain | StateLocation::Mounted => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_whose_mount_unit_is_there_and_whose_mount_is_not_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let state = Path::new("/var/lib/bulkhead");
        let unit = dir.path().join(mount_unit(state));
        assert_eq!(mount_unit(state), "var-lib-bulkhead.mount");
        let none = mounts("22 1 254:0 / / rw - ext4 /dev/vda rw\nno mount\n");
        judged(&unit, &none, state).unwrap();
        fs::write(&unit, "").unwrap();
        let refused = judged(&unit, &none, state).unwrap_err().to_string();
        assert!(refused.contains("`bulkhead setup` mounts it"), "{refused}");
        let other = mounts("36 1 8:1 / /var/lib/bulkhead rw - ext4 /dev/sda1 rw\n");
        assert!(judged(&unit, &other, state).is_err(), "another volume has no state");
        let own =
            mounts("36 1 252:0 / /var/lib/bulkhead rw - ext4 /dev/mapper/bulkhead_state rw\n");
        judged(&unit, &own, state).unwrap();
    }
}
