//! The rules, arranged so that the first that matches is found without reading the list. What first-match means stays.

mod clipboard;
mod devices;
mod usb;

pub(crate) use devices::{DeviceIndex, Fields};
pub(crate) use usb::listed;

use crate::language::{BreakGlass, ClipboardRule, Domain, InputRule, UsbRule};
use clipboard::ClipboardIndex;
use usb::UsbIndex;

/// The rules, arranged for finding the first that matches.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub(crate) clipboard: ClipboardIndex,
    pub(crate) usb: UsbIndex,
    pub(crate) input: DeviceIndex,
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
