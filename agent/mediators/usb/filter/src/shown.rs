//! What the guest is shown of a configuration: without USB Attached SCSI, and without interfaces that are another's.

use crate::descriptors::{DescriptorError, Share, kind, walk};
use crate::uas;

/// Returns the configuration as the guest is shown it: valid, and without what is hidden. Everything from a hidden
/// setting's descriptor up to the next setting belongs to it: its endpoints, their companions and pipe usages.
pub(crate) fn shown(raw: &[u8], share: &Share) -> Result<Vec<u8>, DescriptorError> {
    let mut shown = Vec::with_capacity(raw.len());
    let mut hiding = false;
    let mut interfaces = Vec::new();
    for descriptor in walk(raw) {
        let (kind, bytes) = descriptor?;
        match (kind, bytes) {
            (kind::INTERFACE, [_, _, interface, _, _, class, _, protocol, ..]) => {
                hiding = uas::is_hidden(*class, *protocol) || !share.has(*interface);
                if share.has(*interface) && !interfaces.contains(interface) {
                    interfaces.push(*interface);
                }
            }
            // An association stands before the interfaces it binds, so it ends what went before. One with an interface that is not there
            // would bind others, or nothing.
            (kind::INTERFACE_ASSOCIATION, [_, _, first, count, ..]) => {
                let last = first.saturating_add(count.saturating_sub(1));
                hiding = !(*first..=last).all(|interface| share.has(interface));
            }
            (kind::INTERFACE_ASSOCIATION, _) => hiding = !share.is_whole(),
            _ => {}
        }
        if !hiding {
            shown.extend_from_slice(bytes);
        }
    }
    let total = u16::try_from(shown.len()).map_err(|_| DescriptorError::Configuration)?;
    // What was read had its wTotalLength and bNumInterfaces, so the fields are there.
    if let Some(field) = shown.get_mut(2..4) {
        field.copy_from_slice(&total.to_le_bytes());
    }
    if let Some(field) = shown.get_mut(4)
        && !share.is_whole()
    {
        *field = u8::try_from(interfaces.len()).unwrap_or(u8::MAX);
    }
    Ok(shown)
}
