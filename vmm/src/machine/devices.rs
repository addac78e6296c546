//! The guest's PCI devices. Adding one takes its own crate or folder, a file below this one that builds it, and a row of [`KINDS`].

mod builder;
mod console;
mod disk;
mod entropy;
mod network;
mod passthrough;
mod seat;
mod usb;

use std::ops::Range;

use pci::Bus;
use vmm_control::VmSpec;

pub(super) use builder::{DeviceError, Host, Kind, Parts};

use crate::layout;
use builder::Builder;

/// Every kind, in the order of the guest's bus. Passed-through functions come first: they fail for the most reasons.
pub(super) const KINDS: &[Kind] = &[
    passthrough::KIND,
    disk::KIND,
    network::KIND,
    console::KIND,
    entropy::KIND,
    usb::KIND,
    seat::KIND,
];

/// Builds all devices onto `bus`.
pub(super) fn build(spec: &VmSpec, bus: &mut Bus, host: &Host) -> Result<Parts, DeviceError> {
    let mut builder = Builder::new(bus, host);
    KINDS.iter().try_for_each(|kind| (kind.build)(&mut builder, spec))?;
    Ok(builder.parts)
}

/// Gives every BAR its address.
pub(super) fn place(bus: &mut Bus, mmio64: Range<u64>) -> Result<(), DeviceError> {
    bus.place_bars(layout::MMIO32_START..layout::MMIO32_END, mmio64).map_err(DeviceError::Place)
}

#[cfg(test)]
mod tests;
