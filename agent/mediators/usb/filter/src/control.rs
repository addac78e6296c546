//! Which control requests reach a device (USB 2.0 section 9.4, and the classes' own).
//!
//! | request | passes |
//! | --- | --- |
//! | standard | all but SET_ADDRESS, SET_DESCRIPTOR, test modes; configurations, settings, interfaces and endpoints only that exist |
//! | class, to an interface | if it exists and is not DFU (firmware update); to BOT storage only its reset and GET MAX LUN |
//! | class, to an endpoint | if it exists and is not storage's |
//! | class, to the device | only wireless controllers (a Bluetooth HCI command is one), without storage or DFU beside |
//! | vendor | see [`vendor`] |
//! | reserved | none |
//!
//! Of a device of which the guest has a part: nothing to the device but questions, nothing to interfaces and endpoints that are another's, no
//! vendor requests.
//!
//! HID feature reports pass: some vendors update firmware through them, but they cannot be told from
//! the reports that a device needs. Policy decides whether such a device is admitted.

use usbredir::packet::Control;

use crate::descriptors::{CONFIGURATION_BYTES_MAX, Device, Setting, kind};
use crate::spec::{
    APPLICATION, BOT_RESET, BULK_ONLY, DFU, GET_MAX_LUN, MASS_STORAGE, PRINTER, WIRELESS, request,
};
use crate::vendor;

/// Most bytes of a control transfer's data stage: a page, what usbfs takes in one piece. Requests for
/// more are cut to it, as the host's own limit would.
pub const CONTROL_BYTES_MAX: u16 = 4096;
const _: () = assert!(CONFIGURATION_BYTES_MAX <= CONTROL_BYTES_MAX as usize);

/// What is done with a control request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It passes, and so does its answer.
    Pass,
    /// It passes; the answer is compared with what is pinned.
    Descriptor { kind: u8, index: u8, target: u16 },
    /// It passes; the configuration is chosen anew.
    Configuration,
    /// It passes; an interface's alternate setting is chosen.
    Alternate { interface: u8 },
    /// It passes; if it succeeds the endpoint's halt is gone.
    ClearHalt { endpoint: u8 },
    /// It passes; Bulk-Only Mass Storage Reset of an interface.
    BotReset { interface: u8 },
    /// It passes; the answer tells an interface's highest logical unit.
    MaxLun { interface: u8 },
    /// It is answered with a stall.
    Refuse,
}

/// The device as the guest may use it.
pub(crate) struct Admitted<'a> {
    /// As read; without what is hidden.
    pub(crate) device: &'a Device,
    /// Only Bulk-Only storage's own class requests pass.
    pub(crate) read_only: bool,
    /// The guest has a part of the device: what changes the device as a whole does not pass.
    pub(crate) part: bool,
}

impl Admitted<'_> {
    pub(crate) fn configuration(&self, value: u8) -> bool {
        // 0 takes the configuration away again: drivers do that when they let go.
        value == 0 || self.device.configurations.iter().any(|one| one.value == value)
    }

    pub(crate) fn alternate(&self, interface: u8, alternate: u8) -> bool {
        self.device
            .settings()
            .any(|setting| (setting.interface, setting.alternate) == (interface, alternate))
    }

    fn interface(&self, number: u8) -> impl Iterator<Item = &Setting> {
        self.device.settings().filter(move |setting| setting.interface == number)
    }

    fn has_interface(&self, number: u8) -> bool {
        self.interface(number).next().is_some()
    }

    fn owners(&self, endpoint: u8) -> impl Iterator<Item = &Setting> {
        self.device
            .settings()
            .filter(move |setting| setting.endpoints.iter().any(|one| one.address == endpoint))
    }

    /// Returns whether the device has the endpoint; endpoint 0 counts in both directions, too.
    fn has_endpoint(&self, endpoint: u8) -> bool {
        endpoint & 0x7f == 0 || self.owners(endpoint).next().is_some()
    }

    /// Returns whether there is an endpoint of this type that the guest may use as it likes. Of read-only storage there is none: what its transport
    /// uses is followed, and what it does not use might take anything.
    pub(crate) fn has_endpoint_of(&self, endpoint: u8, transfer: u8) -> bool {
        let storages = |setting: &Setting| setting.class == MASS_STORAGE;
        if self.read_only && self.owners(endpoint).any(storages) {
            return false;
        }
        self.device
            .settings()
            .flat_map(|setting| &setting.endpoints)
            .any(|one| one.address == endpoint && one.transfer == transfer)
    }

    pub(crate) fn judge(&self, control: &Control) -> Judgement {
        // Bits 6:5 are the type, bits 4:0 the recipient (USB 2.0 table 9-2).
        match control.request_type >> 5 & 3 {
            0 => self.standard(control),
            1 => self.class(control),
            2 if !self.part && vendor::passes(self.device, control) => Judgement::Pass,
            _ => Judgement::Refuse,
        }
    }

    fn standard(&self, control: &Control) -> Judgement {
        let Control { request_type, request, value, index, length, .. } = *control;
        let [low, high] = value.to_le_bytes();
        // Interfaces and endpoints are in the low byte, what the high byte says is reserved or, for
        // interfaces, an option of function suspend.
        let [target, option] = index.to_le_bytes();
        let pass = |allowed: bool| if allowed { Judgement::Pass } else { Judgement::Refuse };
        match (request_type, request) {
            // Configuration, remote wake-up, power states. (A configuration is chosen by a packet, and whoever exports the device knows of it.)
            (0x00, _) if self.part => Judgement::Refuse,
            (0x80, request::GET_DESCRIPTOR) => self.descriptor(high, low, index),
            // HID and others keep descriptors of their own with the interface.
            (0x81, request::GET_DESCRIPTOR)
                if option == 0
                    && self.has_interface(target)
                    && !matches!(high, kind::DEVICE | kind::CONFIGURATION | kind::OTHER_SPEED) =>
            {
                Judgement::Descriptor { kind: high, index: low, target: index }
            }
            (0x80, request::GET_STATUS | request::GET_CONFIGURATION) => Judgement::Pass,
            (0x81, request::GET_STATUS | request::GET_INTERFACE) => {
                pass(option == 0 && self.has_interface(target))
            }
            (0x82, request::GET_STATUS | request::SYNCH_FRAME) => {
                pass(option == 0 && self.has_endpoint(target))
            }
            (0x00, request::SET_CONFIGURATION)
                if high == 0 && length == 0 && index == 0 && self.configuration(low) =>
            {
                Judgement::Configuration
            }
            (0x01, request::SET_INTERFACE)
                if high == 0 && length == 0 && option == 0 && self.alternate(target, low) =>
            {
                Judgement::Alternate { interface: target }
            }
            // Remote wake-up; U1, U2 and LTM enable. Test modes (2) would take the port away.
            (0x00, request::SET_FEATURE | request::CLEAR_FEATURE) => {
                pass(matches!(value, 1 | 48 | 49 | 50) && length == 0 && option == 0)
            }
            // Function suspend.
            (0x01, request::SET_FEATURE | request::CLEAR_FEATURE) => {
                pass(value == 0 && length == 0 && self.has_interface(target))
            }
            (0x02, request::CLEAR_FEATURE)
                if value == 0
                    && length == 0
                    && option == 0
                    && self.owners(target).next().is_some() =>
            {
                Judgement::ClearHalt { endpoint: target }
            }
            // Nothing needs to halt storage, and the filter follows its halts.
            (0x02, request::SET_FEATURE) => pass(
                value == 0
                    && length == 0
                    && option == 0
                    // Endpoint 0 is everybody's.
                    && self.owners(target).next().is_some()
                    && self.owners(target).all(|setting| setting.class != MASS_STORAGE),
            ),
            (0x00, request::SET_SEL) => pass(length == 6),
            (0x00, request::SET_ISOCH_DELAY) => pass(length == 0),
            // SET_ADDRESS, SET_DESCRIPTOR, and what is not defined.
            _ => Judgement::Refuse,
        }
    }

    fn descriptor(&self, kind: u8, index: u8, target: u16) -> Judgement {
        let refused = match kind {
            kind::DEVICE => index != 0,
            kind::CONFIGURATION => usize::from(index) >= self.device.configurations.len(),
            // The device at another speed: nobody has looked at that, and it may have UAS.
            kind::OTHER_SPEED => true,
            _ => false,
        };
        if refused { Judgement::Refuse } else { Judgement::Descriptor { kind, index, target } }
    }

    fn class(&self, control: &Control) -> Judgement {
        let Control { request_type, request, value, index, length, .. } = *control;
        let [target, high] = index.to_le_bytes();
        match request_type & 0x1f {
            1 => {
                let mut settings = self.interface(target).peekable();
                if settings.peek().is_none() {
                    // A printer's GET_DEVICE_ID has the interface in the high byte (USB printer
                    // class 1.1 section 4.2.1).
                    let id = (request_type, request) == (0xa1, 0)
                        && !self.part
                        && self.interface(high).any(|setting| setting.class == PRINTER);
                    return if id { Judgement::Pass } else { Judgement::Refuse };
                }
                let (mut storage, mut bulk_only, mut dfu) = (false, false, false);
                for setting in settings {
                    storage |= setting.class == MASS_STORAGE;
                    bulk_only |= is_bulk_only(setting);
                    dfu |= is_dfu(setting);
                }
                match (request_type, request) {
                    _ if dfu => Judgement::Refuse,
                    (0x21, BOT_RESET) if bulk_only && (value, length, high) == (0, 0, 0) => {
                        Judgement::BotReset { interface: target }
                    }
                    (0xa1, GET_MAX_LUN) if bulk_only && (value, length, high) == (0, 1, 0) => {
                        Judgement::MaxLun { interface: target }
                    }
                    // The commands of CBI storage are a class request (0): only where all is allowed.
                    (0x21, 0) if storage && !bulk_only && !self.read_only => Judgement::Pass,
                    _ if storage => Judgement::Refuse,
                    _ => Judgement::Pass,
                }
            }
            2 if self.owners(target).next().is_some()
                && self
                    .owners(target)
                    .all(|setting| setting.class != MASS_STORAGE && !is_dfu(setting)) =>
            {
                Judgement::Pass
            }
            0 if self.device.class == WIRELESS && !self.part && !self.has_storage_or_dfu() => {
                Judgement::Pass
            }
            _ => Judgement::Refuse,
        }
    }

    fn has_storage_or_dfu(&self) -> bool {
        self.device.settings().any(|setting| setting.class == MASS_STORAGE || is_dfu(setting))
    }
}

fn is_dfu(setting: &Setting) -> bool {
    (setting.class, setting.subclass) == (APPLICATION, DFU)
}

/// Returns whether a setting speaks Bulk-Only Transport.
pub(crate) fn is_bulk_only(setting: &Setting) -> bool {
    (setting.class, setting.protocol) == (MASS_STORAGE, BULK_ONLY)
}
