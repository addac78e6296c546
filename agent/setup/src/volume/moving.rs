//! State and images are moved onto the volume, and back: copied, compared with what was copied, and only then does the mount unit say what counts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{MAPPER, MARKER, StateLocation, WORK, mounted_from, standing, text, users};
use crate::Pc;
use crate::effects::{Attributes, Effects};

/// Where the volume is mounted while it is written, and where what lies below a mount is seen.
const STAGING: &str = "run/bulkhead-setup/volume";
const BELOW: &str = "run/bulkhead-setup/below";

/// The state is moved onto the volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Move {
    pub(crate) state: PathBuf,
    /// The mount unit, and its text.
    pub(crate) unit: PathBuf,
    pub(crate) content: String,
}

/// What was copied is removed where it lay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FormerCopies {
    pub(crate) state: PathBuf,
}

impl Move {
    pub(crate) fn shown(&self) -> String {
        format!(
            "copy {0} with the images in it onto the volume, compare the copy, and mount the volume there ({1})",
            self.state.display(),
            self.unit.display()
        )
    }

    pub(crate) fn shown_back(&self) -> String {
        format!(
            "copy what is in {} from the volume back onto this PC's own disk, compare the copy, and mount the volume there no more",
            self.state.display()
        )
    }

    pub(crate) fn make(&self, pc: &Pc, effects: &mut dyn Effects) -> io::Result<()> {
        if let Some(why) = users::of(pc, &self.state) {
            return Err(io::Error::other(why));
        }
        clear(pc, effects)?;
        folder(pc, WORK, effects)?;
        let staging = folder(pc, STAGING, effects)?;
        let mapper = pc.root.join(MAPPER);
        effects.run("mount", &["-o", "nodev,nosuid", text(&mapper)?, text(&staging)?])?;
        copy(&self.state, &staging, effects)?;
        // Whoever began to write meanwhile writes where it would be removed.
        if let Some(why) = users::of(pc, &self.state) {
            return Err(io::Error::other(why));
        }
        effects.replace(&staging.join(MARKER), b"", Attributes::new(0o600))?;
        effects.run("umount", &[text(&staging)?])?;
        // From here on the volume has the state.
        effects.replace(&self.unit, self.content.as_bytes(), Attributes::new(0o644))?;
        self.mount(effects).map_err(|error| {
            // Nobody has used it yet: what was copied is whole, and counts again.
            match standing(pc, &self.state) == StateLocation::Away {
                true => self.take_unit_away(effects).err().unwrap_or(error),
                false => error,
            }
        })
    }

    fn mount(&self, effects: &mut dyn Effects) -> io::Result<()> {
        let unit = self.unit_name()?;
        effects.run("systemctl", &["daemon-reload"])?;
        effects.run("systemctl", &["enable", unit])?;
        effects.run("systemctl", &["start", unit])
    }

    fn take_unit_away(&self, effects: &mut dyn Effects) -> io::Result<()> {
        effects.run("systemctl", &["disable", self.unit_name()?])?;
        effects.remove(&self.unit)?;
        effects.run("systemctl", &["daemon-reload"])
    }

    pub(crate) fn revert(&self, pc: &Pc, effects: &mut dyn Effects) -> io::Result<()> {
        clear(pc, effects)?;
        let unit = self.unit_name()?;
        match standing(pc, &self.state) {
            StateLocation::Plain => return Ok(()),
            StateLocation::Away => effects.run("systemctl", &["start", unit])?,
            StateLocation::Mounted => {}
        }
        if let Some(why) = users::of(pc, &self.state) {
            return Err(io::Error::other(why));
        }
        // As long as the mount unit is there, what lies below the mount is a copy that does not count, whole or not: another run of setup removes it.
        effects.replace(&self.state.join(MARKER), b"", Attributes::new(0o600))?;
        if let Err(error) = self.copy_back(pc, effects) {
            // In the clear nothing is to be left. Where that fails too, the mark on the volume says so.
            let cleared = self.forget_copy(pc, effects);
            let also = |left| {
                format!(
                    "{error}; and what was copied already lies unencrypted below {}, as it could not be removed ({left}): `bulkhead setup` removes it",
                    self.state.display()
                )
            };
            return Err(match cleared {
                Ok(()) => error,
                Err(left) => io::Error::other(also(left)),
            });
        }
        clear(pc, effects)?;
        if self.unit.exists() {
            // From here on this PC's own disk has the state.
            self.take_unit_away(effects)?;
        }
        // What counts is below it by now: nothing that still has a file of it open may hinder that.
        effects.run("umount", &["--lazy", text(&self.state)?])
    }

    fn copy_back(&self, pc: &Pc, effects: &mut dyn Effects) -> io::Result<()> {
        let below = see_below(pc, &self.state, effects)?;
        empty(&below, effects)?;
        copy(&self.state, &below, effects)?;
        // What belongs to a volume alone.
        for name in ["lost+found", MARKER] {
            effects.run("rm", &["-rf", "--", text(&below.join(name))?])?;
        }
        Ok(())
    }

    fn forget_copy(&self, pc: &Pc, effects: &mut dyn Effects) -> io::Result<()> {
        FormerCopies { state: self.state.clone() }.make(pc, effects)
    }

    fn unit_name(&self) -> io::Result<&str> {
        text(Path::new(self.unit.file_name().unwrap_or_default()))
    }
}

impl FormerCopies {
    pub(crate) fn shown(&self) -> String {
        format!(
            "remove the former copies, which then lie below the mount at {}",
            self.state.display()
        )
    }

    pub(crate) fn shown_back(&self) -> String {
        format!("(the former copies below {} come back with the next step)", self.state.display())
    }

    pub(crate) fn make(&self, pc: &Pc, effects: &mut dyn Effects) -> io::Result<()> {
        clear(pc, effects)?;
        if standing(pc, &self.state) != StateLocation::Mounted {
            return Err(io::Error::other("the volume is not mounted: run this again"));
        }
        if let Some(why) = users::of_former(pc, &self.state) {
            return Err(io::Error::other(why));
        }
        let below = see_below(pc, &self.state, effects)?;
        empty(&below, effects)?;
        clear(pc, effects)?;
        effects.remove(&self.state.join(MARKER))
    }
}

/// Makes a folder of setup's own where it works, and returns its path.
pub(super) fn folder(pc: &Pc, below: &str, effects: &mut dyn Effects) -> io::Result<PathBuf> {
    let path = pc.root.join(below);
    if !path.is_dir() {
        // A key lies there, and a second way to the state.
        effects.make_folder(&path, 0o700)?;
    }
    Ok(path)
}

/// Unmounts what an earlier step, or a run that was killed, left where setup works.
pub(super) fn clear(pc: &Pc, effects: &mut dyn Effects) -> io::Result<()> {
    for place in [BELOW, STAGING] {
        let place = pc.root.join(place);
        if mounted_from(pc, &place).is_some() {
            effects.run("umount", &[text(&place)?])?;
        }
    }
    Ok(())
}

/// Returns the state directory as it is below what is mounted there.
fn see_below(pc: &Pc, state: &Path, effects: &mut dyn Effects) -> io::Result<PathBuf> {
    folder(pc, WORK, effects)?;
    let below = folder(pc, BELOW, effects)?;
    let parent = state.parent().unwrap_or(state);
    effects.run("mount", &["--bind", text(parent)?, text(&below)?])?;
    let seen = below.join(state.file_name().unwrap_or_default());
    match fs::metadata(&seen) {
        Ok(metadata) if metadata.is_dir() => Ok(seen),
        _ => Err(io::Error::other(format!(
            "{} has no folder to mount at any more",
            parent.display()
        ))),
    }
}

/// Copies what is in a folder, to the disk, and reads both again.
fn copy(from: &Path, to: &Path, effects: &mut dyn Effects) -> io::Result<()> {
    let (from, to) = (text(from)?, text(to)?);
    effects.run(
        "cp",
        &[
            "--archive",
            "--one-file-system",
            "--sparse=auto",
            "--no-target-directory",
            "--",
            from,
            to,
        ],
    )?;
    let own = ["lost+found", MARKER].map(|name| format!("--exclude={name}"));
    let [lost, marker] = &own;
    effects
        .run("diff", &["--recursive", "--brief", "--no-dereference", lost, marker, "--", from, to])
}

fn empty(folder: &Path, effects: &mut dyn Effects) -> io::Result<()> {
    effects.run("find", &[text(folder)?, "-xdev", "-mindepth", "1", "-delete"])
}
