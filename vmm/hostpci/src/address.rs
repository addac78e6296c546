//! The address of one PCI function.

use std::fmt;
use std::str::FromStr;

/// Domain, bus, device and function of a PCI function on this PC: `0000:00:05.0`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    domain: u16,
    bus: u8,
    /// Device in the upper five bits, function in the lower three (PCI Local Bus 3.0, 3.2.2.3.2).
    devfn: u8,
}

/// Why a text is not a PCI address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text does not have the form of an address.
    #[error(
        "`{0}` is not a PCI address: write it in hexadecimal as DOMAIN:BUS:DEVICE.FUNCTION, like 0000:00:05.0 (`lspci -D` lists them)"
    )]
    Form(String),
    /// The text has the form of an address, and no bus has such a device.
    #[error(
        "`{0}` is not a PCI address: the device goes from 00 to 1f and the function from 0 to 7"
    )]
    Range(String),
}

impl Address {
    /// Makes the address from the numbers VFIO reports.
    #[must_use]
    pub const fn from_parts(domain: u16, bus: u8, devfn: u8) -> Self {
        Self { domain, bus, devfn }
    }

    /// Reads the full form that sysfs and the machine file use, `0000:00:05.0`.
    pub fn from_full(text: &str) -> Result<Self, AddressError> {
        if text.bytes().filter(|b| *b == b':').count() == 2 {
            text.parse()
        } else {
            Err(AddressError::Form(text.chars().take(40).collect()))
        }
    }

    /// Returns whether both are functions of one device.
    #[must_use]
    pub const fn same_device(self, other: Self) -> bool {
        self.domain == other.domain && self.bus == other.bus && self.devfn >> 3 == other.devfn >> 3
    }

    /// Returns the address without the function, as sysfs writes the address of a slot: `0000:00:05`.
    #[must_use]
    pub fn device(self) -> String {
        format!("{:04x}:{:02x}:{:02x}", self.domain, self.bus, self.devfn >> 3)
    }

    /// Returns whether it is on a root bus, where what belongs to the processor and the chipset is.
    #[must_use]
    pub const fn on_root_bus(self) -> bool {
        self.bus == 0
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Takes `0000:00:05.0`, and `00:05.0` for domain 0.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let form = || AddressError::Form(text.chars().take(40).collect());
        let (rest, function) = text.rsplit_once('.').ok_or_else(form)?;
        let (rest, device) = rest.rsplit_once(':').ok_or_else(form)?;
        let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0000", rest));
        let domain = hex(domain, 4).ok_or_else(form)?;
        let bus = hex(bus, 2).and_then(|n| u8::try_from(n).ok()).ok_or_else(form)?;
        let device = hex(device, 2).and_then(|n| u8::try_from(n).ok()).ok_or_else(form)?;
        let function = hex(function, 1).and_then(|n| u8::try_from(n).ok()).ok_or_else(form)?;
        if device >= 32 || function >= 8 {
            return Err(AddressError::Range(text.to_owned()));
        }
        Ok(Self { domain, bus, devfn: device << 3 | function })
    }
}

/// Reads exactly `digits` hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u16> {
    let well_formed = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    if well_formed { u16::from_str_radix(text, 16).ok() } else { None }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (device, function) = (self.devfn >> 3, self.devfn & 7);
        write!(f, "{:04x}:{:02x}:{device:02x}.{function}", self.domain, self.bus)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_may_leave_out_domain_zero() {
        let full: Address = "0000:00:05.0".parse().unwrap();
        assert_eq!("00:05.0".parse(), Ok(full));
        assert_eq!("0001:0A:1f.7".parse::<Address>().unwrap().to_string(), "0001:0a:1f.7");
    }

    #[test]
    fn a_malformed_address_is_refused_with_an_example_of_a_good_one() {
        for text in [
            "",
            "eth0",
            "00:05",
            "0000:00:05",
            "0:0:5.0",
            "0000:00:05.",
            "0000:00:05.00",
            "00000:00:05.0",
            "0000:00:05.0 ",
            "+000:00:05.0",
            "0000:00:05.g",
            "0000:00:0x5.0",
            "1:0000:00:05.0",
            "0000-00-05.0",
            "\u{ff10}0:05.0",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(matches!(error, AddressError::Form(_)), "{text}: {error:?}");
            assert!(error.to_string().contains("like 0000:00:05.0"), "{error}");
        }
    }

    #[test]
    fn where_the_full_form_is_asked_for_a_short_one_is_refused() {
        assert_eq!(Address::from_full("0000:0A:1f.7").unwrap().to_string(), "0000:0a:1f.7");
        for text in ["", "00:05.0", "0000:00:05", "0000:00:20.0", "0000:00:5.0", "+000:00:05.0"] {
            assert!(Address::from_full(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_no_bus_can_have_is_refused() {
        for text in ["0000:00:20.0", "00:05.8"] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(matches!(error, AddressError::Range(_)), "{text}: {error:?}");
        }
    }

    proptest! {
        #[test]
        fn every_address_survives_being_written_and_read(domain: u16, bus: u8, devfn: u8) {
            let address = Address::from_parts(domain, bus, devfn);
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".*") {
            let _ = text.parse::<Address>();
        }
    }
}
