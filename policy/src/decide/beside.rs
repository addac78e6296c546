//! The rest of a device that has a keyboard or mouse in it: a card reader, a security key.
//!
//! Such a device enters no domain as a whole. Its keyboard stays with the PC, and each other function goes by the rules as if it were a
//! device of its own; what is not admitted is not used.

use std::fmt;

use super::Decision;
use super::verdict::{Reason, Verdict};
use crate::language::UsbClass;
use crate::policy::Policy;
use crate::request::{Context, UsbDevice, UsbFunction, UsbRequest};

/// What becomes of the rest. Its `Display` says it in words that a clinician understands.
#[derive(Clone, Debug)]
pub struct PartialAdmission<'p> {
    /// The verdict on those functions that are admitted; if none is, on the first.
    pub verdict: Verdict<'p>,
    /// Those that are admitted, all to one domain.
    pub functions: Vec<UsbFunction>,
}

impl Policy {
    /// Decides on the rest of a device with a keyboard or mouse in it, of which everything there is to find out is known. None if there is no
    /// keyboard, or no rest.
    #[must_use]
    pub fn decide_rest(
        &self,
        request: &UsbRequest<'_>,
        context: &Context,
    ) -> Option<PartialAdmission<'_>> {
        let all = request.device.functions;
        if !all.iter().any(UsbFunction::is_the_seats) {
            return None;
        }
        let (mut whole, mut denied) = (None::<Verdict<'_>>, None);
        let mut functions = Vec::new();
        for function in all.iter().filter(|function| !function.is_the_seats()) {
            let verdict = self.decide_part(request, context, function);
            if verdict.decision() == Decision::Deny {
                denied = denied.or(Some(verdict));
                continue;
            }
            functions.push(*function);
            whole = Some(match whole {
                Some(whole) => whole.together_with(verdict),
                None => verdict,
            });
        }
        let verdict = whole.or(denied)?;
        if verdict.decision() == Decision::Deny {
            functions.clear();
        }
        Some(PartialAdmission { verdict, functions })
    }

    fn decide_part(
        &self,
        request: &UsbRequest<'_>,
        context: &Context,
        function: &UsbFunction,
    ) -> Verdict<'_> {
        if request.device.functions.iter().any(|function| function.class == UsbClass::HUB) {
            return Verdict::denied(Reason::Hub);
        }
        // Storage is reset before a guest has it, and a reset would take the keyboard from the seat.
        if function.class == UsbClass::MASS_STORAGE {
            return Verdict::denied(Reason::StorageBesideKeyboard);
        }
        let functions = std::slice::from_ref(function);
        let device = UsbDevice { functions, ..request.device };
        self.decide_usb(&UsbRequest { device, ..*request }, context).settled()
    }
}

impl fmt::Display for PartialAdmission<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.verdict.reason();
        f.write_str("its keyboard or mouse stays with the PC, ")?;
        match self.verdict.to().filter(|_| !self.functions.is_empty()) {
            Some(to) => write!(f, "the rest goes to {}: {reason}", *to.label),
            None => write!(f, "the rest is not used: {reason}"),
        }
    }
}
