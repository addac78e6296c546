//! What is done with a separation policy before and after it is in force: the tools of the security office.
//!
//! Each is a function from policies to a result that can be printed for a person (`Display`) and for a machine (`Serialize`). The
//! language, the decisions and the signatures are in crate `policy`, which the agent uses without these tools.
//!
//! | module | command | |
//! | --- | --- | --- |
//! | `check`, `lint` | `bulkhead policy check` | is a policy fit to be signed? |
//! | `explain` | `bulkhead policy explain` | what would happen to a flow, by which rule, and why |
//! | [`mod@diff`] | `bulkhead policy diff` | which flows a new policy decides otherwise |
//! | `matrix` | `bulkhead policy matrix` | who may send what to whom, as text and as a page |
//! | [`replay`] | `bulkhead policy replay` | what a policy would have decided of flows that were recorded |
//! | [`from_device`] | `bulkhead policy from-device` | the rule for a USB device |
//! | `starter` | `bulkhead policy new` | a policy to start from |
//!
//! ```
//! use policy::request::{ClipboardRequest, Context, Request};
//!
//! let policy = policy::Policy::parse("policy.toml", policy_tools::STARTER)?;
//! assert!(policy_tools::check("policy.toml", policy_tools::STARTER).ok);
//! let request = Request::Clipboard(ClipboardRequest {
//!     from: "clinical",
//!     to: "internet",
//!     media_type: policy::language::MediaType::TextPlain,
//!     bytes: 10,
//! });
//! let explanation = policy_tools::explain(&policy, &request, &Context::default());
//! assert_eq!(explanation.rule, None);
//! # Ok::<(), policy::diagnostic::Diagnostics>(())
//! ```
#![forbid(unsafe_code)]

mod check;
pub mod diff;
mod explain;
pub mod from_device;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod lint;
mod matrix;
pub mod replay;
mod starter;

pub use check::{Report, check, check_for};
pub use diff::{Diff, diff};
pub use explain::{Explanation, NearMiss, explain, explain_paste, explain_settled};
pub use lint::lint;
pub use matrix::{
    BreakGlassEntry, ClipboardEntry, DetectorEntry, DeviceEntry, DomainEntry, HotkeyEntry, Matrix,
    NotEnforced,
};
pub use starter::{STARTER, first_policy};
