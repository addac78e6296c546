//! Hides USB Attached SCSI: its alternate settings are taken out of the configurations that the guest
//! is shown, so that a storage device is met over Bulk-Only Transport, which the filter follows.
//! Besides, UAS above 480 Mbit/s needs bulk streams, which are not spoken here.

use crate::spec::{MASS_STORAGE, UAS};

/// Returns whether an alternate setting is hidden.
pub(crate) fn is_hidden(class: u8, protocol: u8) -> bool {
    class == MASS_STORAGE && protocol == UAS
}
