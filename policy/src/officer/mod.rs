//! The officer's tools, each a function from policies to a result that can be printed for a person (`Display`) and for a
//! machine (`Serialize`).

mod check;
mod explain;

pub use check::{Report, check};
pub use explain::{Explanation, NearMiss};
