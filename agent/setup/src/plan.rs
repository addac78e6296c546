//! Which changes lead from the PC as it is to what is proposed. Where it is that already, there are none.

use std::io;
use std::path::Path;

use fileopen::read;
use nix::sys::statvfs::statvfs;

use crate::Pc;
use crate::answers::{Answers, groups};
use crate::change::{Change, FileChange, FileError, current, is_enabled, is_member};
use crate::hardware::{Hardware, Iommu};

/// Where GRUB of Debian looks for parts of its configuration.
const GRUB_PARTS: &str = "etc/default/grub.d";
const GRUB_PART: &str = "etc/default/grub.d/bulkhead.cfg";
/// What GRUB is configured by, and the menu that is made of it.
const GRUB: &str = "etc/default/grub";
pub(crate) const MENU: &str = "boot/grub/grub.cfg";
const BOOT: &str = "boot";
/// How the last line of a whole menu ends (grub-mkconfig(8)).
const MENU_END: &str = "###";
/// What is to be free where the menu is written, in bytes: it is written twice.
const MENU_SPACE: u64 = 8 << 20;
/// Largest boot menu, in bytes: a few hundred entries.
const MENU_MAX: u64 = 4 << 20;
/// The modules whose devices the unit names.
const MODULES: &str = include_str!("../../systemd/modules-load.conf");
/// Where they may be named already; the last is where setup does.
const MODULES_PLACES: [&str; 3] =
    ["usr/lib/modules-load.d", "lib/modules-load.d", "etc/modules-load.d"];
/// Where the package puts the unit.
const UNIT_PLACES: [&str; 3] =
    ["usr/lib/systemd/system", "lib/systemd/system", "etc/systemd/system"];

/// What the PC is to become.
pub(crate) struct Goal<'a> {
    pub(crate) machine: &'a Path,
    /// The text of the machine file.
    pub(crate) text: String,
    pub(crate) answers: &'a Answers,
    pub(crate) hardware: &'a Hardware,
    /// Something is handed over, for which the kernel has to use the IOMMU.
    pub(crate) hands_over: bool,
    /// The agent starts at each boot.
    pub(crate) enable: bool,
}

/// Why there is no way there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot read this PC's accounts")]
    Accounts(#[from] io::Error),
    #[error(
        "the kernel has to be told to use the IOMMU ({0}), and this PC has no GRUB as Debian sets it up (no {1}): write {0} into the kernel's command line of the boot loader that it has, restart, and run this again"
    )]
    NoGrub(&'static str, String),
    #[error(
        "the kernel has to be told to use the IOMMU, and what the parameter is called is known for processors of Intel and AMD alone, and this one is neither"
    )]
    NoParameter,
    #[error(
        "{0} is nearly full: GRUB's menu, which has to be made anew, might be cut off, and the PC would not start. Remove old kernels (`apt autoremove --purge`), and run this again"
    )]
    FullBoot(String),
    #[error(
        "bulkhead-agent.service is not installed: install Bulkhead's package (`apt install ./bulkhead_*.deb`), and run this again"
    )]
    NoUnit,
}

/// Finds the changes, in the order in which they are made.
pub(crate) fn changes(pc: &Pc, goal: &Goal<'_>) -> Result<Vec<Change>, PlanError> {
    let mut changes = Vec::new();
    let accounts = pc.accounts();
    for name in groups() {
        if accounts.group(name)?.is_none() {
            changes.push(Change::Group { name: name.to_owned() });
        }
    }
    for (group, user) in &goal.answers.members {
        let change = Change::Member { user: user.clone(), group: (*group).to_owned() };
        if !is_member(&accounts, user, group)? && !changes.contains(&change) {
            changes.push(change);
        }
    }
    modules(pc, &mut changes)?;
    if goal.hands_over {
        iommu(pc, goal.hardware, &mut changes)?;
    }
    folder(pc, goal.machine.parent(), &mut changes);
    file(goal.machine, goal.text.clone(), &mut changes)?;
    if goal.enable && !is_enabled(pc) {
        let installed = UNIT_PLACES.iter().map(|place| pc.root.join(place));
        if !installed.into_iter().any(|place| place.join(crate::change::SERVICE).exists()) {
            return Err(PlanError::NoUnit);
        }
        changes.push(Change::Service);
    }
    Ok(changes)
}

/// Plans the folder that a file is to be in, if it is not there; what it is in itself is the distribution's.
pub(crate) fn folder(pc: &Pc, path: Option<&Path>, changes: &mut Vec<Change>) {
    let missing = path.filter(|path| path.starts_with(&pc.root) && !path.exists());
    changes.extend(missing.map(|path| Change::Folder { path: path.to_owned() }));
}

pub(crate) fn file(
    path: &Path,
    content: String,
    changes: &mut Vec<Change>,
) -> Result<(), FileError> {
    let former = current(path)?;
    if former.as_ref().is_none_or(|former| former.content != content) {
        let path = path.to_owned();
        changes.push(Change::File(FileChange { path, former, content, boot_menu: false }));
    }
    Ok(())
}

/// Plans the modules to be loaded. The package names them; a PC that has Bulkhead by other ways is told here.
fn modules(pc: &Pc, changes: &mut Vec<Change>) -> Result<(), FileError> {
    let named = MODULES_PLACES.iter().map(|place| pc.root.join(place).join("bulkhead.conf"));
    if named.into_iter().any(|path| path.exists()) {
        return Ok(());
    }
    let path = pc.root.join("etc/modules-load.d/bulkhead.conf");
    folder(pc, path.parent(), changes);
    file(&path, MODULES.to_owned(), changes)
}

/// Plans that the kernel is told to use the IOMMU, unless it does.
fn iommu(pc: &Pc, hardware: &Hardware, changes: &mut Vec<Change>) -> Result<(), PlanError> {
    if hardware.iommu == Iommu::On {
        return Ok(());
    }
    let parameter = hardware.vendor.iommu_parameter().ok_or(PlanError::NoParameter)?;
    let grub = pc.root.join(GRUB);
    if !grub.is_file() {
        return Err(PlanError::NoGrub(parameter, grub.display().to_string()));
    }
    let content = format!(
        "# Written by `bulkhead setup`: the IOMMU keeps what is handed to a guest out of this PC's memory. `bulkhead setup --undo` removes it.\n\
         GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {parameter}\"\n"
    );
    let path = pc.root.join(GRUB_PART);
    let former = current(&path)?;
    let is_written = former.as_ref().is_some_and(|former| former.content == content);
    // The menu may not have been made anew since, or not to its end.
    if !(is_written && is_in_menu(&pc.root, parameter) == Some(true)) {
        // `update-grub` writes the menu into its place: on a full disk a part of it would be left, and the PC would not start.
        let boot = pc.root.join(BOOT);
        let free = statvfs(&boot).map(|disk| disk.blocks_available() * disk.fragment_size());
        if free.is_ok_and(|free| free < MENU_SPACE) {
            return Err(PlanError::FullBoot(boot.display().to_string()));
        }
        folder(pc, Some(&pc.root.join(GRUB_PARTS)), changes);
        changes.push(Change::File(FileChange { path, former, content, boot_menu: true }));
    }
    Ok(())
}

/// Returns whether the boot menu is whole and has this parameter of the kernel's; `None` if it cannot be read.
pub(crate) fn is_in_menu(root: &Path, parameter: &str) -> Option<bool> {
    let menu = read(&root.join(MENU), MENU_MAX).ok()?;
    let menu = String::from_utf8_lossy(&menu);
    Some(menu.contains(parameter) && menu.trim_end().ends_with(MENU_END))
}
