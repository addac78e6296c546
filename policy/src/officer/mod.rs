//! The officer's tools, each a function from policies to a result that can be printed for a person (`Display`) and for a
//! machine (`Serialize`).

mod check;
pub mod diff;
mod explain;
pub mod from_device;
mod matrix;
mod starter;

pub use check::{Report, check, check_for};
pub use diff::{Diff, diff};
pub use explain::{Explanation, NearMiss};
pub use matrix::{
    BreakGlassEntry, ClipboardEntry, DetectorEntry, DeviceEntry, DomainEntry, HotkeyEntry, Matrix,
    NotEnforced,
};
pub use starter::STARTER;
