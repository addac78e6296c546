//! A device whose descriptors were read whole, by a total reader, before anybody trusts them.

use usbdescriptors::{DescriptorError, Device, Pinned, PinnedDescriptor, Share};

use crate::devices::{DeviceSnapshot, clean};

/// Proof that a device's descriptors are such that a library may be given them, and what they are. Only of such a device is the
/// node opened, and only if what it says then is the same, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vetted {
    found: DeviceSnapshot,
    pinned: Pinned,
    device: Device,
    share: Share,
}

/// The texts that a device gave the kernel and those it gave the agent are not the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has another serial number each time it is asked")]
pub struct UnstableSerial;

impl Vetted {
    /// Reads what the kernel has read of it.
    ///
    /// # Errors
    /// It makes no sense: the device is not to be touched.
    pub fn new(found: DeviceSnapshot) -> Result<Self, DescriptorError> {
        let pinned = Pinned::from_sysfs(&found.descriptors)?;
        let device = Device::read(&pinned)?;
        Ok(Self { found, pinned, device, share: Share::Whole })
    }

    /// Adds whatever else it says, see `usbhost::read_descriptors`.
    ///
    /// # Errors
    /// The serial number that the kernel was told, and that the policy is asked about, is not the one that is pinned.
    pub fn with(mut self, others: Vec<PinnedDescriptor>) -> Result<Self, UnstableSerial> {
        self.pinned.others = others;
        let pinned = self.pinned.serial().map(|text| clean(&text)).filter(|text| !text.is_empty());
        let kernels = self.found.serial.clone().filter(|text| !text.is_empty());
        // The kernel may have asked in vain, or was not yet to ask; then it is what the agent was told.
        if kernels.is_some() && kernels != pinned {
            return Err(UnstableSerial);
        }
        self.found.serial = pinned;
        Ok(self)
    }

    /// Limits it to this share, whatever is done with it from now on: no other interface is claimed or authorised, and nothing is done to the
    /// device as a whole.
    #[must_use]
    pub fn sharing(self, share: Share) -> Self {
        Self { share, ..self }
    }

    /// Returns what of it is meant.
    #[must_use]
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// Returns where it is, and what the kernel knows of it.
    #[must_use]
    pub fn found(&self) -> &DeviceSnapshot {
        &self.found
    }

    /// Returns what it said, byte for byte.
    #[must_use]
    pub fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    /// Returns what that means.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use nusb::descriptors::{ConfigurationDescriptor, TransferType};
    use proptest::prelude::*;
    use usbdescriptors::kind;

    use super::*;

    const DEVICE: [u8; 18] = [18, 1, 0, 2, 0, 0, 0, 64, 9, 18, 0x42, 0, 0, 1, 1, 2, 3, 1];
    /// A stick; its bulk IN endpoint's `wMaxPacketSize` is at 22.
    const STICK: [u8; 32] = [
        9, 2, 32, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 2, 8, 6, 0x50, 0, //
        7, 5, 0x81, 2, 0, 2, 0, 7, 5, 0x02, 2, 0, 2, 0,
    ];

    fn found(configuration: &[u8], serial: Option<&str>) -> DeviceSnapshot {
        DeviceSnapshot {
            bus_id: "1-4".parse().unwrap(),
            bus: 1,
            address: 7,
            vendor: 0x1209,
            product: 0x42,
            speed: "480".to_owned(),
            name: String::new(),
            serial: serial.map(str::to_owned),
            descriptors: [&DEVICE[..], configuration].concat(),
            authorised: true,
            drivers: Vec::new(),
        }
    }

    /// Does what nusb does with the endpoints before each transfer from a device.
    fn as_nusb_does(configuration: &[u8]) {
        let Some(read) = ConfigurationDescriptor::new(configuration) else { return };
        for setting in read.interface_alt_settings() {
            for endpoint in setting.endpoints() {
                if endpoint.transfer_type() != TransferType::Isochronous {
                    assert_eq!(512 * endpoint.max_packet_size() % endpoint.max_packet_size(), 0);
                }
            }
        }
    }

    #[test]
    fn the_number_that_nusb_would_divide_by_is_refused_before_nusb_has_it() {
        let mut hostile = STICK;
        hostile[22..24].copy_from_slice(&0x0800_u16.to_le_bytes());
        let divided = std::panic::catch_unwind(|| as_nusb_does(&hostile));
        assert!(divided.is_err(), "nusb has learnt to see it; this may go");
        assert_eq!(Vetted::new(found(&hostile, None)), Err(DescriptorError::PacketSize));
        as_nusb_does(&STICK);
        Vetted::new(found(&STICK, None)).unwrap();
    }

    #[test]
    fn the_serial_number_that_the_policy_is_asked_about_is_the_one_that_is_pinned() {
        let pinned = |text: &str| {
            let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let bytes = [&[u8::try_from(units.len() + 2).unwrap(), 3][..], &units].concat();
            vec![PinnedDescriptor {
                configuration: None,
                kind: kind::STRING,
                index: 3,
                target: 0x0409,
                bytes,
            }]
        };
        let with = |kernels: Option<&str>, text: &str| {
            let vetted = Vetted::new(found(&STICK, kernels)).unwrap().with(pinned(text));
            vetted.map(|vetted| vetted.found().serial.clone())
        };
        assert_eq!(with(Some("PATIENT1"), "PATIENT1"), Ok(Some("PATIENT1".to_owned())));
        assert_eq!(with(Some("PATIENT1"), "PATIENT2"), Err(UnstableSerial));
        assert_eq!(with(None, "PATIENT2"), Ok(Some("PATIENT2".to_owned())));
        assert_eq!(with(Some("A?1"), "A\u{202e}1"), Ok(Some("A?1".to_owned())), "cleaned alike");
        let none = Vetted::new(found(&STICK, Some("PATIENT1"))).unwrap().with(Vec::new());
        assert_eq!(none.err(), Some(UnstableSerial), "it gave it the kernel alone");
    }

    proptest! {
        #[test]
        fn whatever_is_vetted_nusb_reads_without_end(
            changes in prop::collection::vec((0..STICK.len(), any::<u8>()), 0..6),
            more in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut configuration = [&STICK[..], &more].concat();
            configuration[2] = u8::try_from(configuration.len()).unwrap();
            for (at, byte) in changes {
                configuration[at] = byte;
            }
            if Vetted::new(found(&configuration, None)).is_ok() {
                as_nusb_does(&configuration);
            }
        }
    }
}
