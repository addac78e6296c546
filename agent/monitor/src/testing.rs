//! Permits without a disk, for tests and fuzz targets of what takes them. `agent/tests/sources.rs` sees to it that nothing else has this.

use crate::Permit;

/// Makes a permit, as if this entry were on the disk.
pub const fn permit<G>(grant: G, entry: u64) -> Permit<G> {
    Permit::new(grant, entry)
}
