//! PCI functions as the host's sysfs shows them: what they are, whether they are isolated, and
//! their hand-over to vfio-pci and back.
//!
//! | file | what |
//! | --- | --- |
//! | [`inspect`] | reads only: driver, IOMMU group, reset, network interfaces |
//! | [`handover`] | driver_override, unbind, bind, and the record that outlives a crash |
//! | [`sysfs`] | the few ways the agent touches sysfs, so that a test can stand in for the kernel |

#[cfg(test)]
pub(crate) mod fake;
pub mod handover;
pub mod inspect;
pub mod sysfs;

use std::fmt;
use std::str::FromStr;

/// The address of one PCI function: domain, bus, device, function (`0000:00:05.0`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    domain: u16,
    bus: u8,
    device: u8,
    function: u8,
}

/// Why a text is no PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a PCI address")]
pub struct AddressError(pub String);

impl FromStr for PciAddress {
    type Err = AddressError;

    /// Parses the full form sysfs uses, `dddd:bb:dd.f` in hexadecimal.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse(text).ok_or_else(|| AddressError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (domain, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let hex = |part: &str, digits: usize| {
        let well_formed = part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
        if well_formed { u16::from_str_radix(part, 16).ok() } else { None }
    };
    let address = PciAddress {
        domain: hex(domain, 4)?,
        bus: u8::try_from(hex(bus, 2)?).ok()?,
        device: u8::try_from(hex(device, 2)?).ok()?,
        function: u8::try_from(hex(function, 1)?).ok()?,
    };
    (address.device < 32 && address.function < 8).then_some(address)
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl fmt::Debug for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_address_survives_a_round_trip_in_lower_case() {
        let address: PciAddress = "0000:0A:1f.7".parse().unwrap();
        assert_eq!(address.to_string(), "0000:0a:1f.7");
    }

    #[test]
    fn short_and_malformed_addresses_are_refused() {
        for text in [
            "",
            "00:05.0",
            "0000:00:05",
            "0000:00:20.0",
            "0000:00:05.8",
            "0000:00:5.0",
            "+000:00:05.0",
        ] {
            assert_eq!(text.parse::<PciAddress>(), Err(AddressError(text.to_owned())), "{text}");
        }
    }
}
