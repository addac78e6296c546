//! Why a hand-over fails.

use std::io;
use std::path::PathBuf;

use hostpci::InspectError;

use super::{DRIVER_DEADLINE, PciAddress};
use crate::judge::HandoverRefusal;

/// Why a function could not change hands. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// It could not be looked at.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The function may not be handed over; nothing was touched.
    #[error(transparent)]
    Refused(#[from] HandoverRefusal),
    /// Another domain has the function.
    #[error(
        "PCI device {address} is still {domain}'s, whose guest may use it: restart {domain} first (`bulkhead restart {domain}`), or the PC if it has no such domain any more"
    )]
    Anothers { address: PciAddress, domain: String },
    /// The function is being given back or handed over.
    #[error(
        "PCI device {address} is changing hands and has not come through; see the log for which driver does not let go"
    )]
    Busy { address: PciAddress },
    /// The kernel module vfio-pci is not loaded and could not be.
    #[error(
        "the kernel module vfio-pci is not loaded, and the agent cannot load it: restart the PC, or `systemctl restart systemd-modules-load bulkhead-agent`; if it is still missing, install the kernel's own modules (on Debian: linux-image-amd64)"
    )]
    NoVfioPci(#[source] io::Error),
    /// A driver did not let go in time.
    #[error("driver {driver} does not let go of PCI device {address} (waited {} s): take down whatever uses the device (`ip link set {uses} down`, unmount, stop its service); if it stays, restart the PC", DRIVER_DEADLINE.as_secs())]
    WontLetGo {
        address: PciAddress,
        driver: String,
        /// What it carries on the host.
        uses: String,
    },
    /// A driver did not take the function.
    #[error("driver {driver} did not take PCI device {address}: see `dmesg` for its reason")]
    NotBound { address: PciAddress, driver: String },
    /// The kernel refused a change.
    #[error(
        "the kernel refused to change `{attribute}` of PCI device {address}: is the agent run as root?"
    )]
    Write {
        address: PciAddress,
        attribute: &'static str,
        #[source]
        source: io::Error,
    },
    /// It did not reset, so what the guest left in it is still there.
    #[error(
        "PCI device {address} did not reset after use and is kept from the host: switch the PC off and on again (a restart may not be enough)"
    )]
    NotReset {
        address: PciAddress,
        #[source]
        source: io::Error,
    },
    /// The record could not be written, so nothing was changed.
    #[error("cannot write {}: make room on its disk, or correct its rights", path.display())]
    Record {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}
