//! What the fuzz target of this crate calls.

use crate::edid::{SIZES_MAX, preferred_sizes};

/// Reads an EDID that a monitor, or whoever is in its cable, made up.
pub fn edid(data: &[u8]) {
    assert!(preferred_sizes(data).len() <= SIZES_MAX);
}
