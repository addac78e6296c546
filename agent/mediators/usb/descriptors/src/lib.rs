//! What a USB device says of itself (USB 2.0 section 9.6, USB 3.2 section 9.6), and a total reader for it.
//!
//! A device's bytes go nowhere before they were read here: not to the policy, which is asked about a [`Device`], not to the
//! filter, which holds the device to what is [`Pinned`], and not to a library that would trust them (`usbhost` and `usbexport` open a device only
//! with descriptors that [`Device::read`] took).
//!
//! ```text
//!  sysfs: descriptors --Pinned::from_sysfs--> Pinned --Device::read--> Device --Share::of--> what of it somebody has
//!  GET_DESCRIPTOR ----> PinnedDescriptor -------^  |
//!                                                  +--> the filter: what the guest is told must be the same, byte for byte
//! ```
//!
//! | item | what it is |
//! | --- | --- |
//! | [`Pinned`], [`PinnedDescriptor`] | what a device said when it was admitted, byte for byte |
//! | [`Device`], [`Configuration`], [`Setting`], [`Endpoint`] | the same, read |
//! | [`walk`] | the descriptors of one configuration, one after the other |
//! | [`Share`] | all of a device, or some of its interfaces; [`Indivisible`] says why some cannot be had without the others |
//! | [`kind`] | the types of descriptors |
//! | [`DescriptorError`] | why bytes are not taken, and what can be done about it |
//!
//! A [`Device`] that [`Device::read`] made has as many configurations as it announces, each with a value of its own. In none of them has an
//! interface the same setting twice, or a setting the same endpoint. No endpoint has the number 0, and only an isochronous one has packets of no
//! size. Nothing is over [`CONFIGURATIONS_MAX`], [`CONFIGURATION_BYTES_MAX`] and [`SETTINGS_MAX`]. Any bytes make a device or an error; nothing
//! here does I/O, waits, or asks the device.
//!
//! Real devices' descriptors are not all as the specification has them. What every reader takes alike is taken here too, as Linux takes it
//! (drivers/usb/core/config.c): a configuration whose value is 0, one that has not as many interfaces as it announces, and a setting that
//! has fewer endpoints. Where readers may differ (a configuration cut short, a setting with more endpoints than it announces) what policy
//! was asked about might not be what somebody else reads: that is refused, and the words say what can be done about it.
//!
//! Left out: what belongs to a class (HID, audio, video) is pinned and walked past, and what it means is not read.
#![forbid(unsafe_code)]

mod share;

pub use share::{Indivisible, Share};

/// Descriptor types (USB 3.2 table 9-6; HID 1.11 section 7.1).
pub mod kind {
    /// A device descriptor (USB 2.0, table 9-5).
    pub const DEVICE: u8 = 1;
    /// A configuration with all that belongs to it.
    pub const CONFIGURATION: u8 = 2;
    /// A string descriptor (USB 2.0, table 9-5).
    pub const STRING: u8 = 3;
    /// An interface in one of its settings.
    pub const INTERFACE: u8 = 4;
    /// An endpoint descriptor (USB 2.0, table 9-5).
    pub const ENDPOINT: u8 = 5;
    /// A configuration at the other speed.
    pub const OTHER_SPEED: u8 = 7;
    /// Interfaces that belong together.
    pub const INTERFACE_ASSOCIATION: u8 = 11;
    /// What else the device can (USB 3.2 section 9.6.2).
    pub const BOS: u8 = 15;
    /// What a HID interface's reports are (HID 1.11 section 7.1).
    pub const REPORT: u8 = 0x22;
}

/// Bytes of a device descriptor.
pub const DEVICE_BYTES: usize = 18;
/// Configurations of a device: what Linux reads, too. No real device has more than three.
pub const CONFIGURATIONS_MAX: usize = 8;
/// Bytes of a configuration: fits the largest control transfer that usbfs takes in one piece, 4096.
pub const CONFIGURATION_BYTES_MAX: usize = 4096;
/// Interface settings of a configuration; a bound on what policy is asked about.
pub const SETTINGS_MAX: usize = 128;

/// Texts of a device that are pinned when it is admitted; a bound on what is asked of it then.
pub const STRINGS_MAX: usize = 32;
/// `bInterfaceClass` of human interface devices, which have report descriptors.
const HID: u8 = 3;

/// Bytes of the configuration and interface descriptors' fixed parts.
const CONFIGURATION_BYTES: usize = 9;
const INTERFACE_BYTES: usize = 9;
const ENDPOINT_BYTES: usize = 7;
/// Bits 1:0 of `bmAttributes`.
const ISOCHRONOUS: u8 = 1;
/// Largest packet of an endpoint that is not isochronous, in bytes (USB 3.2, section 9.6.6).
pub const PACKET_MAX: u16 = 1024;

/// What a device said of itself when it was admitted, byte for byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    /// The device descriptor, byte for byte.
    pub device: [u8; DEVICE_BYTES],
    /// The configurations by index, each with all that belongs to it (`wTotalLength` bytes).
    pub configurations: Vec<Vec<u8>>,
    /// What else was asked: BOS, texts (the serial number above all), HID report descriptors of each configuration.
    pub others: Vec<PinnedDescriptor>,
}

/// A descriptor other than the device's and the configurations', as answered to GET_DESCRIPTOR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedDescriptor {
    /// `bConfigurationValue` of the configuration it was in, for an interface's; none for what belongs to the device.
    pub configuration: Option<u8>,
    /// `bDescriptorType`, see [`kind`].
    pub kind: u8,
    /// The low byte of `wValue`.
    pub index: u8,
    /// `wIndex`: a string's language, a report's interface, else 0.
    pub target: u16,
    /// All of it; nothing if the device refused to give it.
    pub bytes: Vec<u8>,
}

impl PinnedDescriptor {
    /// Returns whether an answer to this GET_DESCRIPTOR may be compared with it, in this configuration or in one that is not known.
    #[must_use]
    pub fn answers(&self, (kind, index, target): (u8, u8, u16), configuration: Option<u8>) -> bool {
        let there = configuration.is_none()
            || self.configuration.is_none_or(|own| Some(own) == configuration);
        (self.kind, self.index, self.target) == (kind, index, target) && there
    }
}

impl Pinned {
    /// Reads the file `descriptors` in sysfs: the device descriptor, then every configuration.
    ///
    /// # Errors
    /// When the bytes are anything else; see [`DescriptorError`].
    pub fn from_sysfs(bytes: &[u8]) -> Result<Self, DescriptorError> {
        let (device, mut rest) =
            bytes.split_first_chunk::<DEVICE_BYTES>().ok_or(DescriptorError::Device)?;
        let mut configurations = Vec::new();
        while !rest.is_empty() {
            if configurations.len() == CONFIGURATIONS_MAX {
                return Err(DescriptorError::Configurations);
            }
            let total = total_length(rest).ok_or(DescriptorError::Configuration)?;
            let (one, more) = rest.split_at_checked(total).ok_or(DescriptorError::Configuration)?;
            configurations.push(one.to_vec());
            rest = more;
        }
        Ok(Self { device: *device, configurations, others: Vec::new() })
    }

    /// Returns the indices of the texts that the device and its configurations name, each once, at most [`STRINGS_MAX`]: maker, product and
    /// serial number first.
    #[must_use]
    pub fn string_indices(&self) -> Vec<u8> {
        let [.., maker, product, serial, _] = self.device;
        let mut indices = vec![maker, product, serial];
        for raw in &self.configurations {
            indices.extend(raw.get(6).copied());
            for (kind, bytes) in walk(raw).flatten() {
                if kind == kind::INTERFACE {
                    indices.extend(bytes.get(8).copied());
                }
            }
        }
        let mut named = Vec::new();
        for index in indices {
            if index != 0 && !named.contains(&index) && named.len() < STRINGS_MAX {
                named.push(index);
            }
        }
        named
    }

    /// Returns the serial number as it was pinned.
    #[must_use]
    pub fn serial(&self) -> Option<String> {
        let [.., serial, _] = self.device;
        self.text(serial)
    }

    /// Returns a text as it was pinned.
    fn text(&self, index: u8) -> Option<String> {
        let text = |one: &&PinnedDescriptor| (one.kind, one.index) == (kind::STRING, index);
        let raw = &self.others.iter().filter(|_| index != 0).find(text)?.bytes;
        let units = raw.get(2..)?.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair));
        // Halves of a surrogate pair say nothing.
        Some(char::decode_utf16(units).filter_map(Result::ok).collect())
    }
}

/// Returns `wTotalLength`, if the bytes begin with a configuration descriptor that can be walked past.
fn total_length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [length, kind::CONFIGURATION, low, high, ..]
            if usize::from(*length) >= CONFIGURATION_BYTES =>
        {
            let total = usize::from(u16::from_le_bytes([*low, *high]));
            (total >= usize::from(*length)).then_some(total)
        }
        _ => None,
    }
}

/// What can be done about descriptors that are not taken.
const WRONG: &str =
    "the device's descriptors are wrong, and an update of its firmware may help; or it is hostile";

/// Why descriptors are not taken. A device that has such must not be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// There is no device descriptor.
    #[error("the device descriptor is malformed: {}", WRONG)]
    Device,
    /// Too many, none, or not as many as the device descriptor announces.
    #[error("the device does not have the configurations that it announces: {}", WRONG)]
    Configurations,
    /// Lengths within a configuration do not agree, or it is over a cap.
    #[error("a configuration descriptor is malformed: {}", WRONG)]
    Configuration,
    /// An endpoint whose packets hold nothing: whoever divides by that size ends.
    #[error("an endpoint has packets of no size: {}", WRONG)]
    PacketSize,
    /// Two settings or endpoints claim the same place.
    #[error("a configuration descriptor names an interface or endpoint twice: {}", WRONG)]
    Ambiguous,
}

/// An endpoint (USB 2.0 section 9.6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `bEndpointAddress`.
    pub address: u8,
    /// Bits 1:0 of `bmAttributes`: 0 control, 1 isochronous, 2 bulk, 3 interrupt.
    pub transfer: u8,
    /// `wMaxPacketSize` bits 10:0, in bytes; 0 only of isochronous endpoints, whose first setting needs no bandwidth (USB 2.0
    /// section 5.6.3).
    pub max_packet: u16,
}

/// An interface in one of its alternate settings (USB 2.0 section 9.6.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// `bInterfaceNumber`.
    pub interface: u8,
    /// `bAlternateSetting`.
    pub alternate: u8,
    /// `bInterfaceClass`.
    pub class: u8,
    /// `bInterfaceSubClass`.
    pub subclass: u8,
    /// `bInterfaceProtocol`.
    pub protocol: u8,
    /// Its endpoints other than 0.
    pub endpoints: Vec<Endpoint>,
}

/// A configuration with its interfaces and endpoints (USB 2.0, section 9.6.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// `bConfigurationValue`. 0 is none by the specification (USB 2.0 section 9.4.7), and that of some devices all the same.
    pub value: u8,
    /// Every alternate setting of every interface.
    pub settings: Vec<Setting>,
}

/// A device's descriptors, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// `bDeviceClass`.
    pub class: u8,
    /// `bDeviceSubClass`.
    pub subclass: u8,
    /// `bDeviceProtocol`.
    pub protocol: u8,
    /// `idVendor`.
    pub vendor: u16,
    /// `idProduct`.
    pub product: u16,
    /// `bcdDevice`.
    pub version: u16,
    /// By index, as in [`Pinned`].
    pub configurations: Vec<Configuration>,
}

impl Device {
    /// Reads what is pinned.
    ///
    /// # Errors
    /// When anything does not fit together; see [`DescriptorError`].
    pub fn read(pinned: &Pinned) -> Result<Self, DescriptorError> {
        let [length, kind, _, _, class, subclass, protocol, _, rest @ ..] = pinned.device;
        let [v0, v1, p0, p1, d0, d1, _, _, _, count] = rest;
        if usize::from(length) != DEVICE_BYTES || kind != kind::DEVICE {
            return Err(DescriptorError::Device);
        }
        let announced = usize::from(count);
        if announced == 0
            || announced > CONFIGURATIONS_MAX
            || announced != pinned.configurations.len()
        {
            return Err(DescriptorError::Configurations);
        }
        let configurations: Vec<Configuration> =
            pinned.configurations.iter().map(|raw| configuration(raw)).collect::<Result<_, _>>()?;
        for (at, one) in configurations.iter().enumerate() {
            if configurations.iter().skip(at + 1).any(|other| other.value == one.value) {
                return Err(DescriptorError::Ambiguous);
            }
        }
        Ok(Self {
            class,
            subclass,
            protocol,
            vendor: u16::from_le_bytes([v0, v1]),
            product: u16::from_le_bytes([p0, p1]),
            version: u16::from_le_bytes([d0, d1]),
            configurations,
        })
    }

    /// Returns every setting of every configuration: what policy has to admit.
    pub fn settings(&self) -> impl Iterator<Item = &Setting> {
        self.configurations.iter().flat_map(|configuration| &configuration.settings)
    }

    /// Returns HID interfaces, each once for each configuration it is in, by `bConfigurationValue`: those with a report descriptor.
    #[must_use]
    pub fn hid_interfaces(&self) -> Vec<(u8, u8)> {
        let mut interfaces = Vec::new();
        for configuration in &self.configurations {
            for setting in configuration.settings.iter().filter(|setting| setting.class == HID) {
                let place = (configuration.value, setting.interface);
                if !interfaces.contains(&place) {
                    interfaces.push(place);
                }
            }
        }
        interfaces
    }

    /// Returns class, subclass and protocol of every function, each once, in the order of the descriptors.
    pub fn functions(&self) -> Vec<(u8, u8, u8)> {
        let mut functions = Vec::new();
        for setting in self.settings() {
            let triple = (setting.class, setting.subclass, setting.protocol);
            if !functions.contains(&triple) {
                functions.push(triple);
            }
        }
        functions
    }
}

/// Returns the descriptors of a configuration, one after the other: type, and all its bytes.
pub fn walk(raw: &[u8]) -> Walk<'_> {
    Walk(raw)
}

/// The descriptors of a configuration, as [`walk`] returns them. `Err` comes once, and then the end, if a length leads nowhere.
pub struct Walk<'a>(&'a [u8]);

impl<'a> Iterator for Walk<'a> {
    type Item = Result<(u8, &'a [u8]), DescriptorError>;

    fn next(&mut self) -> Option<Self::Item> {
        let whole = std::mem::take(&mut self.0);
        if whole.is_empty() {
            return None;
        }
        let [length, kind, ..] = whole else { return Some(Err(DescriptorError::Configuration)) };
        let length = usize::from(*length).max(2);
        match whole.split_at_checked(length) {
            // A length of 0 or 1 would never lead on.
            Some((one, rest)) if one.first().is_some_and(|said| *said >= 2) => {
                self.0 = rest;
                Some(Ok((*kind, one)))
            }
            _ => Some(Err(DescriptorError::Configuration)),
        }
    }
}

fn configuration(raw: &[u8]) -> Result<Configuration, DescriptorError> {
    if raw.len() > CONFIGURATION_BYTES_MAX || total_length(raw) != Some(raw.len()) {
        return Err(DescriptorError::Configuration);
    }
    // How many interfaces there are is seen from them: readers count those that are there.
    let &[_, _, _, _, _, value, ..] = raw else {
        return Err(DescriptorError::Configuration);
    };
    let mut settings: Vec<Setting> = Vec::new();
    let mut endpoints_left = 0;
    let mut associated = false;
    for descriptor in walk(raw).skip(1) {
        let (kind, bytes) = descriptor?;
        match kind {
            kind::INTERFACE => {
                if settings.len() == SETTINGS_MAX {
                    return Err(DescriptorError::Configuration);
                }
                associated = false;
                let (setting, endpoints) = setting(bytes)?;
                let same = |other: &Setting| {
                    (other.interface, other.alternate) == (setting.interface, setting.alternate)
                };
                if settings.iter().any(same) {
                    return Err(DescriptorError::Ambiguous);
                }
                endpoints_left = endpoints;
                settings.push(setting);
            }
            kind::ENDPOINT => {
                // An endpoint before any interface, or one more than announced, belongs to nothing; whose one after an association is would
                // be a matter of opinion.
                let last = settings.last_mut().filter(|_| !associated);
                let last = last.ok_or(DescriptorError::Configuration)?;
                endpoints_left =
                    u8::checked_sub(endpoints_left, 1).ok_or(DescriptorError::Configuration)?;
                let endpoint = endpoint(bytes)?;
                if last.endpoints.iter().any(|other| other.address == endpoint.address) {
                    return Err(DescriptorError::Ambiguous);
                }
                last.endpoints.push(endpoint);
            }
            kind::INTERFACE_ASSOCIATION => associated = true,
            // A second configuration inside one would be walked past by us and read by somebody else.
            kind::CONFIGURATION | kind::DEVICE => return Err(DescriptorError::Configuration),
            _ => {}
        }
    }
    Ok(Configuration { value, settings })
}

fn setting(bytes: &[u8]) -> Result<(Setting, u8), DescriptorError> {
    let &[_, _, interface, alternate, endpoints, class, subclass, protocol, _, ..] = bytes else {
        return Err(DescriptorError::Configuration);
    };
    debug_assert!(bytes.len() >= INTERFACE_BYTES, "the pattern has as many");
    let endpoints_of =
        Setting { interface, alternate, class, subclass, protocol, endpoints: Vec::new() };
    Ok((endpoints_of, endpoints))
}

fn endpoint(bytes: &[u8]) -> Result<Endpoint, DescriptorError> {
    let &[_, _, address, attributes, low, high, _, ..] = bytes else {
        return Err(DescriptorError::Configuration);
    };
    debug_assert!(bytes.len() >= ENDPOINT_BYTES, "the pattern has as many");
    // Endpoint 0 has no descriptor, and bits 6:4 are reserved.
    if address & 0x0f == 0 || address & 0x70 != 0 {
        return Err(DescriptorError::Configuration);
    }
    let (max_packet, transfer) = (u16::from_le_bytes([low, high]) & 0x07ff, attributes & 3);
    // What a budget of transfers holds rests on it.
    if transfer != ISOCHRONOUS && !(1..=PACKET_MAX).contains(&max_packet) {
        return Err(DescriptorError::PacketSize);
    }
    Ok(Endpoint { address, transfer, max_packet })
}
