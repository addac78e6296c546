//! Permits without a disk, for tests and fuzz targets of what takes them. `agent/tests/sources.rs` sees to it that nothing else has this.

use policy::decide::Decision;

use crate::{Owed, Permit};

/// Makes a permit, as if this entry were on the disk.
pub const fn permit<G>(grant: G, entry: u64) -> Permit<G> {
    Permit::new(grant, entry)
}

/// Returns what a verdict of this decision owes that has nothing left to be looked into.
#[must_use]
pub const fn owed(decision: Decision) -> Owed {
    Owed {
        decision: Some(decision),
        answer: matches!(decision, Decision::Ask),
        read_only: matches!(decision, Decision::ReadOnly),
        ..Owed::nothing()
    }
}
