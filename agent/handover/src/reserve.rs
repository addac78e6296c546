//! A NIC of a domain is kept from the host's drivers, by the slot it is in and not by its model: two cards of one model must not both be
//! taken. Early at boot, before there is a driver; what has one is the hand-over's.

use std::io;

use hostpci::InspectError;

use super::ClaimedFunction;
use super::handover::VFIO_PCI;
use super::pins::{self, Mismatch};
use super::sysfs::HostSysfs;

/// Why a NIC is not reserved. The hand-over will say the same, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum NotReserved {
    /// It could not be looked at.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The host may live from it.
    #[error("{0} is no network controller")]
    NotANic(String),
    /// Not the one that was meant.
    #[error("{}", .0.what)]
    Mismatch(#[from] Mismatch),
    /// The kernel does not take `driver_override`.
    #[error("the kernel does not take its driver_override")]
    Override(#[source] io::Error),
}

/// Reserves a NIC that no driver has yet: the kernel gives it to vfio-pci and to no other. Returns whether it is reserved. A NIC whose MAC address is pinned
/// is left to its driver, which alone can read the address.
pub fn reserve(nic: &ClaimedFunction, sysfs: &HostSysfs) -> Result<bool, NotReserved> {
    if nic.pins.mac.is_some() {
        return Ok(false);
    }
    let function = sysfs.inspect(nic.address)?;
    if function.driver.is_some() {
        return Ok(false);
    }
    if !function.class.is_network() {
        return Err(NotReserved::NotANic(function.describe()));
    }
    pins::check(&nic.pins, sysfs, &function, None)?;
    let attribute = sysfs.pci_device(nic.address).join("driver_override");
    let text = format!("{VFIO_PCI}\n");
    sysfs.kernel.write(&attribute, &text).map_err(NotReserved::Override)?;
    Ok(true)
}
