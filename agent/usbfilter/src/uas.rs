//! Hides USB Attached SCSI: its alternate settings are taken out of the configurations that the guest
//! is shown, so that a storage device is met over Bulk-Only Transport, which the filter follows.
//! Besides, UAS above 480 Mbit/s needs bulk streams, which are not spoken here.

use crate::descriptors::{DescriptorError, kind, walk};
use crate::spec::{MASS_STORAGE, UAS};

/// Whether an alternate setting is hidden.
pub(crate) fn is_hidden(class: u8, protocol: u8) -> bool {
    class == MASS_STORAGE && protocol == UAS
}

/// The configuration as the guest is shown it: valid, and without UAS. Everything from a UAS setting's
/// descriptor up to the next setting belongs to it: its endpoints, their companions and pipe usages.
pub(crate) fn shown(raw: &[u8]) -> Result<Vec<u8>, DescriptorError> {
    let mut shown = Vec::with_capacity(raw.len());
    let mut hiding = false;
    for descriptor in walk(raw) {
        let (kind, bytes) = descriptor?;
        match (kind, bytes) {
            (kind::INTERFACE, [_, _, _, _, _, class, _, protocol, ..]) => {
                hiding = is_hidden(*class, *protocol);
            }
            // An association stands before the interfaces it binds, so it ends what went before.
            (kind::INTERFACE_ASSOCIATION, _) => hiding = false,
            _ => {}
        }
        if !hiding {
            shown.extend_from_slice(bytes);
        }
    }
    let total = u16::try_from(shown.len()).map_err(|_| DescriptorError::Configuration)?;
    // What was read had its wTotalLength, so the field is there.
    if let Some(field) = shown.get_mut(2..4) {
        field.copy_from_slice(&total.to_le_bytes());
    }
    Ok(shown)
}
