//! What the agent reports of its parts over the control socket.

use std::net::IpAddr;

use printable::Label;
use serde::{Deserialize, Serialize};

/// The seat, for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatReport {
    /// What draws on the screen: `kms`, or `none`.
    pub backend: String,
    /// The domain in front.
    pub front: String,
    /// Whether the screen is locked.
    pub locked: bool,
    /// The plug and the size of the screen, as `HDMI-A-1 1920x1080`; none without a screen.
    pub screen: Option<String>,
    /// The size of a desktop, which is the screen less the banner, in pixels.
    #[serde(default)]
    pub desktop: Option<(u32, u32)>,
    /// Why there is no screen.
    pub problem: Option<String>,
    /// How many keyboards the seat has.
    pub keyboards: usize,
    /// Mice, touchpads, pens and touch screens there are.
    pub pointers: usize,
    /// Devices tied to a domain: what they call themselves, and the domain.
    pub pinned: Vec<(Label, String)>,
    /// Switches since the agent started, of which at most 1,024 are measured.
    pub switches: u64,
    /// The median time of a switch, from the key's time stamp to the end of the page flip, in microseconds.
    pub switch_p50_us: Option<u64>,
    /// The 99th percentile of the same, in microseconds.
    pub switch_p99_us: Option<u64>,
}

/// One device, for `bulkhead usb list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsbReport {
    /// Where it is plugged in, as the kernel writes it: `1-4.2`.
    pub bus_id: String,
    /// What it calls itself.
    pub name: String,
    /// What the policy is asked with: `--device` of `bulkhead policy explain`.
    pub device: String,
    /// `host`, `attached`, `waiting`, `reading`, `blocked` or `off`.
    pub state: String,
    /// The domain that has it, or is to have it.
    pub domain: Option<String>,
    /// `allow` or `read-only`, if it has a domain.
    pub verdict: Option<String>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Why it is as it is, in words.
    pub why: String,
    /// Whether it has more functions than the keyboard or mouse that stays with the PC; somebody may attach those by hand.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_rest: bool,
}

/// What a domain has wanted more of than it got, for long; for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressureReport {
    /// `processor`, `memory` or `disk`.
    pub resource: String,
    /// How much of the last minute it waited for it, in percent.
    pub percent: u8,
    /// Seconds it has been so.
    pub for_seconds: u64,
    /// The same in words.
    pub words: String,
}

/// A PCI function of a domain, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicReport {
    /// Its PCI address, as `0000:00:05.0`.
    pub address: String,
    /// The driver it is bound to now.
    pub driver: Option<String>,
    /// The driver it has on the host and will have again.
    pub former_driver: Option<String>,
    /// Whether it is the domain's NIC (or another passed-through function).
    pub nic: bool,
    /// Other functions of its IOMMU group that vfio-pci has with it, and nobody uses.
    #[serde(default)]
    pub goes_with: Vec<String>,
    /// Why it could not be looked at.
    pub problem: Option<String>,
}

/// An interface of the host with an IP address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfiguredInterface {
    pub name: String,
    pub addresses: Vec<IpAddr>,
}

/// Names interfaces with their addresses: `enp0s3 (10.0.0.5, fe80::1)`.
#[must_use]
pub fn describe(interfaces: &[ConfiguredInterface]) -> String {
    let one = |interface: &ConfiguredInterface| {
        let addresses: Vec<String> = interface.addresses.iter().map(IpAddr::to_string).collect();
        format!("{} ({})", interface.name, addresses.join(", "))
    };
    interfaces.iter().map(one).collect::<Vec<_>>().join(", ")
}
