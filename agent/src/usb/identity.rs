//! What a device says it is, as the policy is asked.

use hidreport::Uses;
use policy::language::UsbClass;
use policy::request::{HidUse, UsbDescription, UsbFunction};
use usbdescriptors::kind;
use usbhost::Vetted;

/// What is known of a device before the policy is asked.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// As the policy wants it.
    pub(super) description: UsbDescription,
    /// What it said of itself, which it has to keep.
    pub(super) vetted: Vetted,
}

impl Identity {
    /// Of a device by all that it says. A function is told by its report descriptor in the configuration it is in; one that was not
    /// read, or not given, says nothing.
    pub(super) fn of(vetted: Vetted) -> Self {
        let mut functions: Vec<UsbFunction> = Vec::new();
        for configuration in &vetted.device().configurations {
            for setting in &configuration.settings {
                let mut function =
                    UsbFunction::new(setting.class, setting.subclass, setting.protocol);
                let place = (kind::REPORT, 0, setting.interface.into());
                let others = &vetted.pinned().others;
                let report =
                    others.iter().find(|one| one.answers(place, Some(configuration.value)));
                if function.class == UsbClass::HID
                    && let Some(report) = report
                {
                    function.hid = hid_use(&report.bytes);
                }
                if !functions.contains(&function) {
                    functions.push(function);
                }
            }
        }
        let found = vetted.found();
        let description = UsbDescription {
            vendor: found.vendor,
            product: found.product,
            serial: found.serial.clone(),
            port: Some(found.bus_id.to_string()),
            functions,
        };
        Self { description, vetted }
    }

    /// Whether it belongs to the seat: a hub, or what types or points (a keyboard, mouse, touch screen, pen) with nothing but HID besides.
    pub(super) fn is_the_seats(&self) -> bool {
        let functions = &self.description.functions;
        let boot =
            |function: &UsbFunction| matches!(function.protocol, 1 | 2) && function.subclass == 1;
        let input =
            |function: &UsbFunction| boot(function) || function.hid == HidUse::KeyboardOrMouse;
        let hub = functions.iter().all(|function| function.class == UsbClass::HUB);
        let hid = functions.iter().all(|function| function.class == UsbClass::HID);
        !functions.is_empty() && (hub || hid && functions.iter().any(input))
    }

    /// `vendor=0781,product=5567,serial=A1,port=1-4,interfaces=08/06/50`.
    pub(super) fn text(&self) -> String {
        let UsbDescription { vendor, product, serial, port, functions } = &self.description;
        let serial = serial.as_ref().map(|serial| format!(",serial={}", serial.replace(',', "?")));
        let port = port.as_ref().map(|port| format!(",port={port}"));
        let functions: Vec<String> = functions.iter().map(ToString::to_string).collect();
        format!(
            "vendor={vendor:04x},product={product:04x}{}{},interfaces={}",
            serial.unwrap_or_default(),
            port.unwrap_or_default(),
            functions.join("+")
        )
    }
}

/// What a report descriptor makes of a function. One that makes no sense to us may make sense to a guest: it is not said to be harmless.
fn hid_use(report: &[u8]) -> HidUse {
    let uses = Uses::of(report);
    match uses.types_or_points() {
        true => HidUse::KeyboardOrMouse,
        false if uses.whole => HidUse::Other,
        false => HidUse::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_types_or_points_is_known_by_its_report_descriptor_and_nothing_else_is_taken_for_it() {
        let keyboard = [0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0x05, 0x07, 0xc0];
        let mouse = [0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00, 0xc0, 0xc0];
        let pushed = [0x05, 0x01, 0xa4, 0x05, 0x0c, 0xb4, 0x09, 0x06, 0xa1, 0x01];
        let touch_screen = [0x05, 0x0d, 0x09, 0x04, 0xa1, 0x01, 0xc0];
        for report in [&keyboard[..], &mouse, &pushed, &touch_screen] {
            assert_eq!(hid_use(report), HidUse::KeyboardOrMouse, "{report:02x?}");
            assert!(of_two(&[(1, report), (2, report)]).is_the_seats(), "{report:02x?}");
        }
        // FIDO (page f1d0, usage 1), and a consumer control.
        let security_key = [0x06, 0xd0, 0xf1, 0x09, 0x01, 0xa1, 0x01, 0xc0];
        let volume = [0x05, 0x0c, 0x09, 0x01, 0xa1, 0x01, 0xc0];
        for report in [&security_key[..], &volume] {
            assert_eq!(hid_use(report), HidUse::Other, "{report:02x?}");
            assert!(!of_two(&[(1, report), (2, report)]).is_the_seats(), "{report:02x?}");
        }
        let cut = [0x06, 0xd0, 0xf1, 0x09, 0x01, 0xa1, 0x01];
        for report in [&cut[..], &[]] {
            assert_eq!(hid_use(report), HidUse::Unknown, "{report:02x?}");
        }
    }

    /// A device with a HID interface 0 in each of two configurations.
    fn of_two(reports: &[(u8, &[u8])]) -> Identity {
        let configuration = |value: u8| {
            vec![
                9, 2, 25, 0, 1, value, 0, 0x80, 50, 9, 4, 0, 0, 1, 3, 0, 0, 0, 7, 5, 0x81, 3, 8, 0,
                10,
            ]
        };
        let device = [18, 1, 0, 2, 0, 0, 0, 64, 9, 18, 0x42, 0, 0, 1, 0, 0, 0, 2];
        let found = usbhost::Found {
            bus_id: "1-4".parse().unwrap(),
            bus: 1,
            address: 7,
            vendor: 0x1209,
            product: 0x42,
            speed: "12".to_owned(),
            name: "Security key".to_owned(),
            serial: None,
            descriptors: [&device[..], &configuration(1), &configuration(2)].concat(),
            authorised: true,
            drivers: Vec::new(),
        };
        let pinned = |(configuration, bytes): &(u8, &[u8])| usbdescriptors::PinnedDescriptor {
            configuration: Some(*configuration),
            kind: kind::REPORT,
            index: 0,
            target: 0,
            bytes: bytes.to_vec(),
        };
        let vetted = Vetted::new(found).unwrap();
        Identity::of(vetted.with(reports.iter().map(pinned).collect()).unwrap())
    }

    #[test]
    fn a_keyboard_in_another_configuration_is_seen() {
        let keyboard = [0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0xc0];
        let security_key = [0x06, 0xd0, 0xf1, 0x09, 0x01, 0xa1, 0x01, 0xc0];
        let uses = |reports: &[(u8, &[u8])]| -> Vec<HidUse> {
            of_two(reports).description.functions.iter().map(|one| one.hid).collect()
        };
        assert_eq!(uses(&[(1, &security_key), (2, &security_key)]), [HidUse::Other]);
        let one = uses(&[(1, &security_key), (2, &keyboard)]);
        assert_eq!(one, [HidUse::Other, HidUse::KeyboardOrMouse]);
        let silent = uses(&[(1, &security_key), (2, &[])]);
        assert_eq!(silent, [HidUse::Other, HidUse::Unknown], "one that it does not give");
    }
}
