//! The rules, arranged so that the first that matches is found without reading the list. What first-match means stays.

mod clipboard;
mod devices;
mod usb;

pub use devices::{DeviceIndex, Fields};
pub use usb::{CandidateRules, UsbIndex, listed};

use crate::language::{BreakGlass, ClipboardRule, Domain, InputRule, UsbRule};
pub use clipboard::{ClipboardIndex, Step};

/// The rules, arranged for finding the first that matches.
#[derive(Clone, Debug)]
pub struct Index {
    /// The rules of `[[clipboard]]`.
    pub clipboard: ClipboardIndex,
    /// The rules of `[[usb]]`.
    pub usb: UsbIndex,
    /// The rules of `[[input]]`.
    pub input: DeviceIndex,
}

impl Index {
    pub(crate) fn new(
        domains: &[Domain],
        clipboard: &[ClipboardRule],
        usb: &[UsbRule],
        input: &[InputRule],
        break_glass: Option<&BreakGlass>,
    ) -> Self {
        Self {
            clipboard: ClipboardIndex::new(domains.len(), clipboard),
            usb: UsbIndex::new(domains.len(), usb, break_glass),
            input: DeviceIndex::new(
                input.iter().map(|rule| Fields::of(&rule.matches, None)).enumerate(),
            ),
        }
    }
}
