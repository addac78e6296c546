//! Decisions: a request in, a verdict out.
//!
//! [`Policy::decide`] is total and deterministic. In each list the first rule that matches decides; where none does, the
//! answer is no. A verdict other than no comes with obligations: what the mediator owes before, or while, the flow crosses.
//!
//! | flow | what is matched | rules are found by |
//! |---|---|---|
//! | clipboard | from, to, type, size | one staircase of sizes for each from, to and type (`index/clipboard.rs`) |
//! | USB | each function's class, and vendor, product, serial, port of the device | one hash table for each set of fields that rules give (`index/devices.rs`) |
//! | input | vendor, product, serial, port | the same |
//!
//! Neither index changes what first-match means; `tests/decide.rs` holds both against an interpreter that simply reads the
//! list from the top.

use crate::language::{Domain, DomainId, Head};
use crate::policy::Policy;
use crate::request::{Context, Request, UsbDevice};

mod beside;
mod clipboard;
mod expectations;
mod paste;
mod usb;
mod verdict;

pub use crate::terms::Decision;
pub use beside::PartialAdmission;
pub use clipboard::permitted;
pub use paste::{Paste, PasteVerdict};
pub use usb::given;
pub use verdict::{Obligation, Reason, Verdict};

impl Policy {
    /// Returns whether something may cross, by which rule, why, and at what obligations.
    pub fn decide(&self, request: &Request<'_>, context: &Context) -> Verdict<'_> {
        match request {
            Request::Clipboard(request) => self.decide_clipboard(request),
            Request::Usb(request) => self.decide_usb(request, context),
        }
    }

    /// Returns the domain that an input device is tied to, by the rule that ties it. `None` types into whatever is in front.
    ///
    /// A keyboard crosses nothing, so this is no verdict. The device's functions are not looked at.
    #[must_use]
    pub fn pinned_to(&self, device: &UsbDevice<'_>) -> Option<(&Domain, &Head)> {
        let rule = self.input().get(self.index().input.first(device, None)?)?;
        Some((self.domain_by_id(*rule.to)?, &rule.head))
    }

    /// Returns the domain of this name, by its number.
    #[must_use]
    pub fn domain_id(&self, name: &str) -> Option<DomainId> {
        let at = self.domains().iter().position(|domain| domain.name.as_str() == name)?;
        u16::try_from(at).ok().map(DomainId)
    }
}
