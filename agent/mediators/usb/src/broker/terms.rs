//! What a verdict owes.

use monitor::{Basis, Owed};

/// The terms of a verdict: the rules under which it was reached, and what it owes before the device is attached.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) basis: Basis,
    pub(super) owed: Owed,
}
