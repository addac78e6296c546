//! Whether a setup, or taking one back, ended half-way: for somebody who only looks.

use std::path::Path;

use base::durable;
use base::layout::Layout;
use handover::processor::Vendor;
use printable::explain;

use crate::change::{Change, FileChange, current};
use crate::journal::Journal;
use crate::plan::is_in_menu;

/// How many folders below the root the part of GRUB's configuration lies, itself counted (`etc/default/grub.d/bulkhead.cfg`).
const PART_DEPTH: usize = 4;

/// Returns what of setup's changes is noted and not made, in words; `None` if all that can be told is. A setup that runs at this moment has such a change
/// too.
///
/// # Errors
/// The journal cannot be read: why, and what to do.
pub fn interrupted(state: &Path) -> Result<Option<String>, String> {
    let file = Layout::setup_journal(state);
    let journal = Journal::read(&file).map_err(|error| explain(&error))?;
    if durable::fresh(&file).exists() {
        return Ok(Some(format!("write down in {} what is changed", file.display())));
    }
    // A change is made before the next one is noted, and taken back before its note goes: only the last can be half made.
    let last = journal.changes().last().filter(|last| is_half_made(last));
    Ok(last.map(|last| last.shown().what))
}

/// Returns whether a change that is the last is certainly not whole.
fn is_half_made(last: &Change) -> bool {
    match last {
        Change::Folder { path } => !path.is_dir(),
        Change::File(FileChange { path, former, content, boot_menu }) => {
            if durable::fresh(path).exists() {
                return true;
            }
            let Ok(now) = current(path) else { return false };
            let now = now.map(|now| now.content);
            if now.as_ref() == Some(content) {
                return *boot_menu && is_not_in_menu(path, content);
            }
            now.as_ref() == former.as_ref().map(|former| &former.content)
        }
        // Others follow it in every run that comes to its end.
        Change::Volume(_) | Change::Move(_) => true,
        // What people change by their own programs too, and what the doctor has findings of.
        Change::Group { .. } | Change::Member { .. } | Change::Former(_) | Change::Service => false,
    }
}

/// Returns whether there is a boot menu that was not made of this part of GRUB's configuration, or not to its end.
fn is_not_in_menu(part: &Path, content: &str) -> bool {
    let parameter = [Vendor::Intel, Vendor::Amd]
        .into_iter()
        .filter_map(Vendor::iommu_parameter)
        .find(|parameter| content.contains(*parameter));
    let (Some(parameter), Some(root)) = (parameter, part.ancestors().nth(PART_DEPTH)) else {
        return false;
    };
    // Where none can be read nothing is known: its file system may not be mounted.
    is_in_menu(root, parameter) == Some(false)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::change::FormerFile;
    use crate::effects::Attributes;
    use crate::plan::MENU;
    use crate::volume::{FormerCopies, Move};

    #[test]
    fn a_move_of_the_state_is_never_the_last_change_of_a_setup_that_came_to_its_end() {
        let state = Path::new("/var/lib/bulkhead").to_owned();
        let moved = Move { state: state.clone(), unit: state.clone(), content: String::new() };
        assert!(is_half_made(&Change::Move(moved)));
        assert!(!is_half_made(&Change::Former(FormerCopies { state })));
        assert!(!is_half_made(&Change::Service));
    }

    #[test]
    fn a_part_of_grubs_configuration_is_half_made_until_the_boot_menu_is_made_of_it_to_its_end() {
        let pc = tempfile::tempdir().unwrap();
        let (path, menu) =
            (pc.path().join("etc/default/grub.d/bulkhead.cfg"), pc.path().join(MENU));
        for file in [&path, &menu] {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
        }
        let content = "GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX intel_iommu=on\"\n".to_owned();
        let part = |former: Option<FormerFile>| {
            let (path, content) = (path.clone(), content.clone());
            Change::File(FileChange { path, former, content, boot_menu: true })
        };
        let written = FormerFile { content: content.clone(), attributes: Attributes::new(0o644) };
        // The second has nothing but the menu to be made anew.
        let parts = [part(None), part(Some(written))];
        let half_made = || parts.each_ref().map(is_half_made);
        assert!(is_half_made(&parts[0]));
        fs::write(&path, &content).unwrap();
        assert_eq!(half_made(), [false; 2], "there is no menu to be seen");
        let end = "### END /etc/grub.d/41_custom ###\n";
        for (text, is_half) in [
            (format!("linux /vmlinuz\n{end}"), true),
            ("linux /vmlinuz intel_iommu=on\n### BEGIN".to_owned(), true),
            (String::new(), true),
            (format!("linux /vmlinuz intel_iommu=on\n{end}"), false),
        ] {
            fs::write(&menu, &text).unwrap();
            assert_eq!(half_made(), [is_half; 2], "{text}");
        }
        // What a person made of the part is no half of anything.
        fs::write(&menu, format!("linux /vmlinuz\n{end}")).unwrap();
        assert_eq!(half_made(), [true; 2]);
        fs::write(&path, "# a person's\n").unwrap();
        assert_eq!(half_made(), [false; 2]);
    }
}
