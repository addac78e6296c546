//! One change to a PC: how it is shown, made and taken back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base::accounts::Accounts;
use base::durable;
use config::files::{FileFault, text_of};
use control::setup_report::SetupChange;
use serde::{Deserialize, Serialize};
use similar::TextDiff;

use crate::Pc;
use crate::effects::{Attributes, Effects};
use crate::volume::{FormerCopies, Move, Volume};

/// Largest file that is changed, in bytes.
const FILE_MAX: u64 = 4 << 20;
/// Everybody may read a file of the configuration.
const CONFIGURATION: u32 = 0o644;
/// And look into a folder of it.
const FOLDER: u32 = 0o755;
/// Lines around a change that are shown.
const CONTEXT: usize = 3;
/// The service that IT enables.
pub(crate) const SERVICE: &str = "bulkhead-agent.service";
/// Where systemd notes that it is enabled, with what its unit names in `Also=`. One without the others is worse than none: the host's services would
/// take the domains' NICs, or nobody would.
pub(crate) const WANTED: [&str; 4] = [
    "etc/systemd/system/multi-user.target.wants/bulkhead-agent.service",
    "etc/systemd/system/multi-user.target.wants/bulkhead-rescue.service",
    "etc/systemd/system/multi-user.target.wants/bulkhead-update.service",
    "etc/systemd/system/sysinit.target.wants/bulkhead-claim.service",
];

/// One change. The journal holds it with all that is needed to take it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Change {
    /// A folder is made.
    Folder { path: PathBuf },
    /// A file is written.
    File(FileChange),
    /// A group of the host is made.
    Group { name: String },
    /// An account is put into a group.
    Member { user: String, group: String },
    /// A block device becomes an encrypted volume.
    Volume(Volume),
    /// The state is moved onto it.
    Move(Move),
    /// What was moved is removed where it lay.
    Former(FormerCopies),
    /// The agent starts at each boot.
    Service,
}

/// A file is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileChange {
    pub(crate) path: PathBuf,
    /// What was there; `None` if nothing was.
    pub(crate) former: Option<FormerFile>,
    pub(crate) content: String,
    /// The boot menu is made of it: whenever it changes, that is made anew.
    pub(crate) boot_menu: bool,
}

/// A file as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FormerFile {
    pub(crate) content: String,
    pub(crate) attributes: Attributes,
}

/// A file that cannot be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("{path} is a link: put a file in its place, or change the one that it leads to by hand", path = .0.display())]
    Link(PathBuf),
    #[error("cannot read {path}: {fault}", path = .0.display(), fault = .1)]
    Read(PathBuf, FileFault),
}

/// Reads a file as it is now; `None` if there is none.
pub(crate) fn current(path: &Path) -> Result<Option<FormerFile>, FileError> {
    let unread = |error: io::Error| FileError::Read(path.to_owned(), error.into());
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unread(error)),
    };
    if metadata.file_type().is_symlink() {
        return Err(FileError::Link(path.to_owned()));
    }
    let content =
        text_of(path, FILE_MAX).map_err(|fault| FileError::Read(path.to_owned(), fault))?;
    Ok(Some(FormerFile { content, attributes: Attributes::of(&metadata) }))
}

impl Change {
    /// Returns the change as it is shown before it is made.
    pub(crate) fn shown(&self) -> SetupChange {
        let (what, diff) = match self {
            Self::Folder { path } => (format!("make the folder {}", path.display()), None),
            Self::File(file) => file.shown(),
            Self::Group { name } => (format!("make the group {name}"), None),
            Self::Member { user, group } => (format!("put {user} into the group {group}"), None),
            Self::Volume(volume) => (volume.shown(), None),
            Self::Move(moved) => (moved.shown(), None),
            Self::Former(copies) => (copies.shown(), None),
            Self::Service => {
                (format!("start Bulkhead at each boot (`systemctl enable {SERVICE}`)"), None)
            }
        };
        SetupChange { what, diff }
    }

    /// Returns how taking it back is shown.
    pub(crate) fn shown_back(&self) -> SetupChange {
        let (what, diff) = match self {
            Self::Folder { path } => {
                (format!("remove the folder {}, if it is empty", path.display()), None)
            }
            Self::File(file) => file.reversal().shown(),
            Self::Group { name } => (format!("remove the group {name}"), None),
            Self::Member { user, group } => (format!("take {user} out of the group {group}"), None),
            Self::Volume(volume) => (volume.shown_back(), None),
            Self::Move(moved) => (moved.shown_back(), None),
            Self::Former(copies) => (copies.shown_back(), None),
            Self::Service => {
                (format!("start Bulkhead no more at a boot (`systemctl disable {SERVICE}`)"), None)
            }
        };
        SetupChange { what, diff }
    }

    /// Makes the change on the PC.
    ///
    /// # Errors
    /// What the step of it that failed said.
    pub(crate) fn make(&self, pc: &Pc, effects: &mut dyn Effects) -> io::Result<()> {
        match self {
            Self::Folder { path } => effects.make_folder(path, FOLDER),
            Self::File(file) => file.make(effects),
            Self::Group { name } => effects.run("groupadd", &["--system", name]),
            Self::Member { user, group } => effects.run("gpasswd", &["--add", user, group]),
            Self::Volume(volume) => volume.make(pc, effects),
            Self::Move(moved) => moved.make(pc, effects),
            Self::Former(copies) => copies.make(pc, effects),
            Self::Service => effects.run("systemctl", &["enable", SERVICE]),
        }
    }

    /// Reverts it, as far as it was made. Nothing is done where nothing is left to do.
    pub(crate) fn revert(&self, pc: &Pc, effects: &mut dyn Effects) -> io::Result<()> {
        match self {
            Self::Folder { path } => effects.remove_folder(path),
            Self::File(file) => file.revert(effects),
            Self::Group { name } => match pc.accounts().group(name)? {
                Some(_) => effects.run("groupdel", &[name]),
                None => Ok(()),
            },
            Self::Member { user, group } => match is_member(&pc.accounts(), user, group)? {
                true => effects.run("gpasswd", &["--delete", user, group]),
                false => Ok(()),
            },
            Self::Volume(volume) => volume.revert(pc, effects),
            Self::Move(moved) => moved.revert(pc, effects),
            // They come back with what is moved back.
            Self::Former(_) => Ok(()),
            Self::Service if enabled(pc).any(|it| it) => {
                effects.run("systemctl", &["disable", SERVICE])
            }
            Self::Service => Ok(()),
        }
    }
}

/// Returns whether an account is in a group; not if there is no such group.
pub(crate) fn is_member(accounts: &Accounts, user: &str, group: &str) -> io::Result<bool> {
    let members = accounts.members(group)?.unwrap_or_default();
    Ok(members.iter().any(|member| member == user))
}

/// Returns whether the agent starts at each boot, with all that belongs to it.
pub(crate) fn is_enabled(pc: &Pc) -> bool {
    enabled(pc).all(|it| it)
}

/// Returns of each unit whether it starts at each boot.
fn enabled(pc: &Pc) -> impl Iterator<Item = bool> {
    WANTED.iter().map(|wanted| fs::symlink_metadata(pc.root.join(wanted)).is_ok())
}

impl FileChange {
    fn shown(&self) -> (String, Option<String>) {
        let Self { path, former, content, boot_menu } = self;
        let path = path.display();
        let before = former.as_ref().map(|former| former.content.as_str());
        let and = if *boot_menu { ", and make the boot menu anew (`update-grub`)" } else { "" };
        if before == Some(content) {
            return ("make the boot menu anew (`update-grub`)".to_owned(), None);
        }
        let (what, old) = match before {
            Some(_) => ("change", path.to_string()),
            None => ("write", "/dev/null".to_owned()),
        };
        let diff = unified(before.unwrap_or_default(), content, &old, &path.to_string());
        (format!("{what} {path}{and}"), Some(diff))
    }

    /// Returns the change that reverts this one, to be shown.
    fn reversal(&self) -> Reversal<'_> {
        Reversal(self)
    }

    fn make(&self, effects: &mut dyn Effects) -> io::Result<()> {
        let before = self.former.as_ref().map(|former| &former.content);
        let now = current(&self.path).map_err(io::Error::other)?;
        if now.as_ref().map(|now| &now.content) != before {
            return Err(io::Error::other(
                "somebody has changed it since it was shown: run this again",
            ));
        }
        if before != Some(&self.content) {
            let attributes = self.former.as_ref().map(|former| former.attributes);
            let attributes = attributes.unwrap_or_else(|| Attributes::new(CONFIGURATION));
            effects.replace(&self.path, self.content.as_bytes(), attributes)?;
        }
        self.renew_boot_menu(effects)
    }

    fn renew_boot_menu(&self, effects: &mut dyn Effects) -> io::Result<()> {
        if self.boot_menu { effects.run("update-grub", &[]) } else { Ok(()) }
    }

    fn revert(&self, effects: &mut dyn Effects) -> io::Result<()> {
        // What a crash left of a file that was being written.
        effects.remove(&durable::fresh(&self.path))?;
        let now = current(&self.path).map_err(io::Error::other)?.map(|now| now.content);
        // What a person made of it between two runs stays; what was changed since the last one was looked at before.
        let is_a_persons = now.as_ref().is_some_and(|now| *now != self.content);
        match &self.former {
            Some(former) if now.as_ref() == Some(&former.content) => {}
            _ if is_a_persons => {}
            Some(former) if now.as_ref() != Some(&former.content) => {
                effects.replace(&self.path, former.content.as_bytes(), former.attributes)?;
            }
            None if now.is_some() => effects.remove(&self.path)?,
            _ => {}
        }
        self.renew_boot_menu(effects)
    }
}

/// What reverts a change of a file.
struct Reversal<'a>(&'a FileChange);

impl Reversal<'_> {
    fn shown(&self) -> (String, Option<String>) {
        let FileChange { path, former, content, boot_menu } = self.0;
        let path = path.display().to_string();
        let and = if *boot_menu { ", and make the boot menu anew (`update-grub`)" } else { "" };
        match former {
            Some(former) => {
                let diff = unified(content, &former.content, &path, &path);
                (format!("put {path} back as it was{and}"), Some(diff))
            }
            None => (format!("remove {path}{and}"), None),
        }
    }
}

/// Returns the lines that differ, as `diff -u` writes them.
pub(crate) fn unified(before: &str, after: &str, old: &str, new: &str) -> String {
    let diff = TextDiff::from_lines(before, after);
    diff.unified_diff().context_radius(CONTEXT).header(old, new).to_string()
}
