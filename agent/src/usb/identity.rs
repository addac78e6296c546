//! What a device says it is, as the policy is asked.

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

    /// Whether it belongs to the seat: a hub, or a keyboard or mouse with nothing besides.
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

/// What a report descriptor makes of a function: a keyboard or mouse if it has an application collection of page Generic Desktop with
/// usage Pointer, Mouse, Keyboard or Keypad (HID Usage Tables 1.4, section 4; items: HID 1.11, 6.2.2).
fn hid_use(report: &[u8]) -> HidUse {
    let mut rest = report;
    let mut page: u32 = 0;
    let mut pages: Vec<u32> = Vec::new();
    let mut usage: Option<u32> = None;
    while let Some((prefix, after)) = rest.split_first() {
        // A long item: its size is in the next byte, and none is defined.
        if *prefix == 0xfe {
            let Some((size, after)) = after.split_first() else { break };
            rest = after.get(1 + usize::from(*size)..).unwrap_or_default();
            continue;
        }
        let size = match prefix & 3 {
            3 => 4,
            size => usize::from(size),
        };
        let Some((data, after)) = after.split_at_checked(size) else { break };
        rest = after;
        let value = data.iter().rev().fold(0u32, |value, byte| value << 8 | u32::from(*byte));
        match prefix & 0xfc {
            0x04 => page = value,
            0xa4 if pages.len() < 16 => pages.push(page),
            0xb4 => page = pages.pop().unwrap_or(page),
            0x08 => {
                // A usage of four bytes brings its page along.
                let full = if size == 4 { value } else { page << 16 | value & 0xffff };
                if matches!(full, 0x1_0001 | 0x1_0002 | 0x1_0006 | 0x1_0007) {
                    usage = Some(full);
                }
            }
            0xa0 if usage.is_some() => return HidUse::KeyboardOrMouse,
            _ => {}
        }
        // Usages hold until the next main item.
        if prefix & 0x0c == 0 {
            usage = None;
        }
    }
    if report.is_empty() { HidUse::Unknown } else { HidUse::Other }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keyboards_and_mice_are_known_by_their_report_descriptors() {
        let keyboard = [0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0x05, 0x07, 0xc0];
        let mouse = [0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00, 0xc0, 0xc0];
        let four_bytes = [0x0b, 0x06, 0x00, 0x01, 0x00, 0xa1, 0x01, 0xc0];
        let pushed = [0x05, 0x01, 0xa4, 0x05, 0x0c, 0xb4, 0x09, 0x06, 0xa1, 0x01];
        for report in [&keyboard[..], &mouse, &four_bytes, &pushed] {
            assert_eq!(hid_use(report), HidUse::KeyboardOrMouse, "{report:02x?}");
        }
        // FIDO (page f1d0, usage 1), and a consumer control.
        let security_key = [0x06, 0xd0, 0xf1, 0x09, 0x01, 0xa1, 0x01, 0xc0];
        let volume = [0x05, 0x0c, 0x09, 0x01, 0xa1, 0x01, 0xc0];
        for report in [&security_key[..], &volume] {
            assert_eq!(hid_use(report), HidUse::Other, "{report:02x?}");
        }
        assert_eq!(hid_use(&[]), HidUse::Unknown);
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

    proptest! {
        #[test]
        fn any_report_descriptor_is_read(report in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = hid_use(&report);
        }
    }
}
