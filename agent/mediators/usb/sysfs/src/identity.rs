//! What a device says it is, as the policy is asked.

use std::collections::BTreeSet;

use hidreport::Uses;
use policy::language::UsbClass;
use policy::request::{HidUse, UsbDescription, UsbFunction};
use usbdescriptors::{Indivisible, Setting, Share, kind};

use crate::bus_id::BusId;
use crate::devices::UsbDevices;
use crate::vetted::Vetted;

/// What is known of a device before the policy is asked.
#[derive(Clone, Debug)]
pub struct Identity {
    /// As the policy wants it.
    pub description: UsbDescription,
    /// What it said of itself, which it has to keep.
    pub vetted: Vetted,
    /// Why not all that it says is known.
    pub unread: Option<String>,
    /// The function that each setting of each interface is.
    settings: Vec<(u8, UsbFunction)>,
}

impl Identity {
    /// Makes the identity of a device by all that it says. A function is told by its report descriptor in the configuration it is in; one
    /// that was not read, or not given, says nothing. What Linux makes an input device of is part of the keyboard or mouse in the same
    /// device: media keys.
    pub fn of(vetted: Vetted) -> Self {
        let mut settings: Vec<(u8, UsbFunction, bool)> = Vec::new();
        for configuration in &vetted.device().configurations {
            for setting in &configuration.settings {
                let report = report_of(&vetted, configuration.value, setting);
                let mut function =
                    UsbFunction::new(setting.class, setting.subclass, setting.protocol);
                function.hid = report.map_or(HidUse::Unknown, hid_use);
                let input = report.is_some_and(|report| Uses::of(report).input);
                settings.push((setting.interface, function, input));
            }
        }
        let keyboard = settings.iter().any(|(_, function, _)| function.is_the_seats());
        let whole = |(interface, function, input): (u8, UsbFunction, bool)| {
            let hid = if keyboard && input { HidUse::KeyboardOrMouse } else { function.hid };
            (interface, UsbFunction { hid, ..function })
        };
        let settings: Vec<(u8, UsbFunction)> = settings.into_iter().map(whole).collect();
        let mut functions: Vec<UsbFunction> = Vec::new();
        for (_, function) in &settings {
            if !functions.contains(function) {
                functions.push(*function);
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
        Self { description, vetted, unread: None, settings }
    }

    /// Returns whether it belongs to the seat: a hub, or what types or points (a keyboard, mouse, touch screen, pen) with nothing but HID besides.
    pub fn is_the_seats(&self) -> bool {
        let functions = &self.description.functions;
        let hub = functions.iter().all(|function| function.class == UsbClass::HUB);
        let hid = functions.iter().all(|function| function.class == UsbClass::HID);
        !functions.is_empty() && (hub || hid && self.types_or_points())
    }

    /// Returns whether anything in it is a keyboard, a mouse or the like.
    pub fn types_or_points(&self) -> bool {
        self.description.functions.iter().any(UsbFunction::is_the_seats)
    }

    /// Returns the interfaces that the seat keeps of a device that has something besides a keyboard or mouse: those that are nothing else, in whatever
    /// configuration and setting. Empty if it is wholly the seat's, or has none.
    pub fn seats_part(&self) -> BTreeSet<u8> {
        if self.is_the_seats() {
            return BTreeSet::new();
        }
        self.input_interfaces()
    }

    /// Returns all interfaces that are keyboards, mice or the like and nothing else.
    pub fn input_interfaces(&self) -> BTreeSet<u8> {
        self.interfaces_of(UsbFunction::is_the_seats)
    }

    /// Returns the part of it with these functions and no other.
    ///
    /// # Errors
    /// It cannot be told from the rest.
    pub fn part(&self, functions: &[UsbFunction]) -> Result<Share, Indivisible> {
        let given =
            |function: &UsbFunction| !function.is_the_seats() && functions.contains(function);
        Share::part(self.vetted.device(), self.interfaces_of(given))
    }

    /// Returns the functions of this of it, each once.
    pub fn functions_of(&self, share: &Share) -> Vec<UsbFunction> {
        let has = |wanted: &UsbFunction| {
            self.settings.iter().any(|(at, function)| function == wanted && share.has(*at))
        };
        self.description.functions.iter().filter(|function| has(function)).copied().collect()
    }

    /// Returns what may be asked what it is without taking a keyboard from its driver: all but the keyboards and mice that say so by their interface.
    /// A device with several configurations is put into each, and nobody can have a part of it meanwhile.
    pub fn to_be_asked(&self) -> Share {
        let seats = self.seats_part();
        if seats.is_empty() || self.vetted.device().configurations.len() > 1 {
            return Share::Whole;
        }
        let all = self.settings.iter().map(|(interface, _)| *interface);
        Share::Interfaces(all.filter(|interface| !seats.contains(interface)).collect())
    }

    /// Returns the interfaces all of whose settings are such.
    fn interfaces_of(&self, such: impl Fn(&UsbFunction) -> bool) -> BTreeSet<u8> {
        let others: BTreeSet<u8> = self
            .settings
            .iter()
            .filter(|(_, function)| !such(function))
            .map(|(interface, _)| *interface)
            .collect();
        let all = self.settings.iter().map(|(interface, _)| *interface);
        all.filter(|interface| !others.contains(interface)).collect()
    }

    /// Returns a text like `vendor=0781,product=5567,serial=A1,port=1-4,interfaces=08/06/50`.
    pub fn text(&self) -> String {
        self.description.to_string()
    }

    /// Returns the same with these functions alone.
    pub fn text_with(&self, functions: &[UsbFunction]) -> String {
        UsbDescription { functions: functions.to_vec(), ..self.description.clone() }.to_string()
    }
}

/// Returns what a device that is plugged in says of itself, as the policy is asked; what drivers of the host already know of its
/// keyboards and the like is counted. The device itself is asked nothing.
///
/// # Errors
/// There is none, or what it says makes no sense.
pub fn described(sysfs: &UsbDevices, id: &BusId) -> Result<UsbDescription, String> {
    let found = sysfs.find(id).ok_or_else(|| {
        format!("no USB device is plugged in at {id}: `bulkhead usb list` or `lsusb -t` shows where they are")
    })?;
    let senseless =
        |error: &dyn std::error::Error| format!("what {id} says of itself makes no sense: {error}");
    // What the kernel was told counts: nobody asks the device a second time.
    let serial = found.serial.clone();
    let vetted = Vetted::new(crate::devices::DeviceSnapshot { serial: None, ..found });
    let vetted = vetted.map_err(|error| senseless(&error))?;
    let vetted = vetted.with(sysfs.report_descriptors(id)).map_err(|error| senseless(&error))?;
    Ok(UsbDescription { serial, ..Identity::of(vetted).description })
}

/// Returns what a HID setting's report descriptor is, if that was read.
fn report_of<'v>(vetted: &'v Vetted, configuration: u8, setting: &Setting) -> Option<&'v [u8]> {
    let place = (kind::REPORT, 0, setting.interface.into());
    let mut others = vetted.pinned().others.iter();
    let report = others.find(|one| one.answers(place, Some(configuration)))?;
    (setting.class == UsbClass::HID.0).then_some(&report.bytes)
}

/// Returns what a report descriptor makes of a function. One that makes no sense to us may make sense to a guest: it is not said to be harmless.
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
    use crate::devices::DeviceSnapshot;

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

    /// Makes a device with a HID interface 0 in each of two configurations.
    fn of_two(reports: &[(u8, &[u8])]) -> Identity {
        let configuration = |value: u8| {
            vec![
                9, 2, 25, 0, 1, value, 0, 0x80, 50, 9, 4, 0, 0, 1, 3, 0, 0, 0, 7, 5, 0x81, 3, 8, 0,
                10,
            ]
        };
        let device = [18, 1, 0, 2, 0, 0, 0, 64, 9, 18, 0x42, 0, 0, 1, 0, 0, 0, 2];
        let found = DeviceSnapshot {
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
    fn what_is_reported_of_a_device_is_read_back_whatever_its_serial() {
        for serial in ["A,B", "A,port=9-9,interfaces=0b/00/00", "50%,%2c", "A=B,"] {
            let found = of_two(&[]).vetted.found().clone();
            let found = DeviceSnapshot { serial: Some(serial.to_owned()), ..found };
            let identity = Identity::of(Vetted::new(found).unwrap());
            assert_eq!(identity.text().parse(), Ok(identity.description.clone()), "{serial}");
            let functions = &identity.description.functions;
            assert_eq!(identity.text_with(functions), identity.text());
        }
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

    /// Makes a device with one configuration as sysfs gives it, and the report descriptors of its HID interfaces.
    fn of_one(descriptors: Vec<u8>, reports: &[(u8, &[u8])]) -> Identity {
        let found = DeviceSnapshot { descriptors, ..of_two(&[]).vetted.found().clone() };
        let pinned = |(interface, bytes): &(u8, &[u8])| usbdescriptors::PinnedDescriptor {
            configuration: Some(1),
            kind: kind::REPORT,
            index: 0,
            target: (*interface).into(),
            bytes: bytes.to_vec(),
        };
        let vetted = Vetted::new(found).unwrap();
        Identity::of(vetted.with(reports.iter().map(pinned).collect()).unwrap())
    }

    const FIDO: [u8; 8] = [0x06, 0xd0, 0xf1, 0x09, 0x01, 0xa1, 0x01, 0xc0];
    const MEDIA_KEYS: [u8; 7] = [0x05, 0x0c, 0x09, 0x01, 0xa1, 0x01, 0xc0];

    /// Returns what it says, its interfaces that are the seat's, and those that have no keyboard in them.
    fn parts(identity: &Identity) -> (bool, Vec<u8>, Vec<u8>) {
        let others: Vec<UsbFunction> = identity.description.functions.clone();
        let rest = match identity.part(&others) {
            Ok(Share::Interfaces(rest)) => rest.into_iter().collect(),
            _ => Vec::new(),
        };
        (identity.is_the_seats(), identity.seats_part().into_iter().collect(), rest)
    }

    #[test]
    fn of_real_keyboards_with_something_besides_the_keyboard_is_the_seats_and_the_rest_is_a_part() {
        let text = include_str!("../../tests/keyboards_with_something_besides.txt");
        let mut seen = Vec::new();
        for line in text.lines() {
            let (name, hex) = line.split_once(' ').unwrap();
            let bytes: Vec<u8> = (0..hex.len() / 2)
                .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            let identity = of_one(bytes, &[(1, &MEDIA_KEYS)]);
            seen.push((name, parts(&identity)));
        }
        let expected = [
            ("hp-ccid-kbd-kr-03f0-114a", vec![0], vec![1]),
            ("cherry-046a-01a2", vec![0, 1], vec![2]),
            ("yubikey5-1050-0407", vec![0, 1], vec![2]),
            ("scanner-kbd-cdc", vec![0], vec![1, 2]),
            ("tex-yoda-04d9-0163", vec![0, 1], vec![2, 3]),
            ("yubikey-1050-0407", vec![0, 1], vec![2]),
        ];
        let expected = expected.map(|(name, seats, rest)| (name, (false, seats, rest)));
        assert_eq!(seen, expected, "with media keys as interface 1, where that is of class HID");
    }

    #[test]
    fn a_security_key_beside_a_keyboard_is_part_of_the_rest_and_media_keys_are_of_the_keyboard() {
        let text = include_str!("../../tests/keyboards_with_something_besides.txt");
        let hex = text.lines().last().unwrap().split_once(' ').unwrap().1;
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let key = of_one(bytes.clone(), &[(1, &FIDO)]);
        assert_eq!(parts(&key), (false, vec![0], vec![1, 2]));
        assert!(key.text().ends_with("interfaces=03/01/01+03/00/00:no-keyboard+0b/00/00"));
        assert_eq!(key.to_be_asked(), Share::Interfaces([1, 2].into()));
        // One that nobody has read is not the seat's, nor anybody's by mistake.
        let unread = of_one(bytes.clone(), &[]);
        assert_eq!(unread.seats_part(), [0].into());
        let reader = [UsbFunction::new(0x0b, 0, 0)];
        assert_eq!(unread.part(&reader), Ok(Share::Interfaces([2].into())));
        // An interface with a keyboard in any of its settings goes to nobody.
        let keyboard = [0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0xc0];
        let two = of_one(bytes, &[(1, &keyboard)]);
        assert_eq!(parts(&two), (false, vec![0, 1], vec![2]));
        let all = two.description.functions.clone();
        assert_eq!(two.part(&all), Ok(Share::Interfaces([2].into())));
    }

    #[test]
    fn media_keys_alone_are_not_the_seats_and_a_keyboard_with_a_security_key_is() {
        assert!(!of_two(&[(1, &MEDIA_KEYS), (2, &MEDIA_KEYS)]).is_the_seats());
        let keyboard = [0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0xc0];
        let both = of_two(&[(1, &keyboard), (2, &FIDO)]);
        assert!(both.is_the_seats() && both.seats_part().is_empty());
    }

    #[test]
    fn of_a_device_with_several_configurations_nobody_has_a_part() {
        let configuration = |value: u8, class: u8| {
            let second = [9, 4, 1, 0, 0, class, 0, 0, 0];
            let first = [9, 4, 0, 0, 1, 3, 1, 1, 0, 7, 5, 0x81, 3, 8, 0, 10];
            [&[9, 2, 34, 0, 2, value, 0, 0x80, 50][..], &first, &second].concat()
        };
        let mut device = of_two(&[]).vetted.found().descriptors[..18].to_vec();
        device.extend([configuration(1, 0x0b), configuration(2, 0x0b)].concat());
        let identity = of_one(device, &[]);
        assert_eq!(identity.seats_part(), [0].into());
        assert_eq!(identity.to_be_asked(), Share::Whole);
        let reader = [UsbFunction::new(0x0b, 0, 0)];
        assert_eq!(identity.part(&reader), Err(Indivisible::Configurations));
    }
}
