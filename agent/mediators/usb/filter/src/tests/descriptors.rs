//! Reading descriptors, and what is not taken.

use crate::descriptors::{DescriptorError, Device};
use crate::stick::{DEVICE, configuration, pinned};
use crate::{Error, Filter, Out, Pinned, Rules, Unsupported};

/// Reads what sysfs has of a device, written in hexadecimal.
pub(super) fn hexadecimal(text: &str) -> Pinned {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    Pinned::from_sysfs(&text.as_bytes().chunks(2).map(byte).collect::<Vec<u8>>()).unwrap()
}

fn refused(alter: impl Fn(&mut Pinned)) -> DescriptorError {
    let mut pinned = pinned(true);
    alter(&mut pinned);
    Device::read(&pinned).unwrap_err()
}

#[test]
fn the_file_of_sysfs_is_read() {
    let bytes = [&DEVICE[..], &configuration(true)].concat();
    assert_eq!(Pinned::from_sysfs(&bytes).unwrap(), pinned(true));
    for most in 0..bytes.len() {
        let cut = Pinned::from_sysfs(&bytes[..most]);
        assert!(cut.is_err() || most == DEVICE.len(), "{most}");
    }
}

#[test]
fn descriptors_that_do_not_fit_together_are_not_taken() {
    use DescriptorError::{Ambiguous, Configuration, Configurations, Device};
    assert_eq!(refused(|new| new.device[0] = 17), Device);
    assert_eq!(refused(|new| new.device[17] = 2), Configurations);
    assert_eq!(refused(|new| new.configurations.clear()), Configurations);
    // wTotalLength; a descriptor of no length.
    assert_eq!(refused(|new| new.configurations[0][2] ^= 1), Configuration);
    assert_eq!(refused(|new| new.configurations[0][18] = 0), Configuration);
    // An endpoint too many, endpoint 0, one twice; a setting twice.
    assert_eq!(refused(|new| new.configurations[0][13] = 1), Configuration);
    assert_eq!(refused(|new| new.configurations[0][20] = 0x80), Configuration);
    assert_eq!(refused(|new| new.configurations[0][27] = 0x81), Ambiguous);
    assert_eq!(refused(|new| new.configurations[0][35] = 0), Ambiguous);
}

/// A smart-card reader in Dell's laptops, whose configuration's value is 0, and a serial adapter with an
/// interface more than it announces, and an endpoint less.
const FORGIVEN: [&str; 2] = [
    "12011001000000405c0a34580001010203010902f60004000080320904000003fe0000001025000000000000000000000000000007058102400000070501024000000705830310000a09040100030b00000036210000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000007058502400000070505024000000705860308000a09040200030b00000036210000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000007058702400000070507024000000705880308000a0904030002ff0000000705890240000007050902400000",
    "12010002020000408304405700010102030109023500010100803209040000020202010005240010010705820308000a09040100020a0000000705010240000007058102400000",
];

#[test]
fn descriptors_that_every_reader_takes_alike_are_taken() {
    let [reader, serial] = FORGIVEN.map(|text| Device::read(&hexadecimal(text)).unwrap());
    let functions: Vec<u8> = reader.functions().iter().map(|(class, ..)| *class).collect();
    assert_eq!((reader.configurations[0].value, functions), (0, vec![0xfe, 0x0b, 0xff]));
    assert_eq!(serial.functions(), [(2, 2, 1), (10, 0, 0)]);
    // A guest chooses the configuration by its value.
    let mut filter = Filter::new(Rules::Allow, hexadecimal(FORGIVEN[0])).unwrap();
    let mut out = Out::default();
    let choose = usbredir::Body::SetConfiguration(0);
    filter.from_guest(usbredir::Packet { id: 1, body: choose.clone() }, &mut out);
    assert_eq!(out.to_device, [usbredir::Packet { id: 1, body: choose }]);
    // Fewer interfaces than announced, and fewer endpoints.
    let mut pinned = pinned(true);
    (pinned.configurations[0][4], pinned.configurations[0][13]) = (2, 3);
    let settings = Device::read(&pinned).unwrap();
    assert_eq!(settings.settings().map(|one| one.endpoints.len()).collect::<Vec<_>>(), [2, 4]);
}

#[test]
fn descriptors_that_readers_take_differently_are_refused_with_words_that_help() {
    // A configuration cut short at a whole descriptor, as sysfs has it: the kernel leaves its length as it was.
    let bytes = [&DEVICE[..], &configuration(false)].concat();
    let cut = Pinned::from_sysfs(&bytes[..bytes.len() - 7]).unwrap_err();
    let more = refused(|new| new.configurations[0][13] = 1);
    let twice = refused(|new| new.configurations[0][35] = 0);
    let configurations = refused(|new| new.device[17] = 2);
    for error in [cut, more, twice, configurations, DescriptorError::Device] {
        let words = error.to_string();
        assert!(words.contains("an update of its firmware may help"), "{words}");
    }
}

#[test]
fn an_endpoint_with_packets_of_no_size_is_not_taken() {
    // Bulk IN with bits above the size alone, which Linux corrects for itself and hands out as they are; and 0.
    for size in [0x0800_u16, 0x1800, 0xf800, 0] {
        let bytes = size.to_le_bytes();
        let altered = refused(|new| new.configurations[0][22..24].copy_from_slice(&bytes));
        assert_eq!(altered, DescriptorError::PacketSize, "{size:#06x}");
    }
    // A camera's first setting needs no bandwidth.
    let mut camera = pinned(true);
    camera.configurations[0][21..24].copy_from_slice(&[1, 0, 0]);
    assert!(Device::read(&camera).is_ok());
}

#[test]
fn an_association_amid_a_settings_endpoints_is_not_taken() {
    // Found by fuzzing: it ended what was hidden of UAS, and its other endpoints were shown.
    assert_eq!(refused(|new| new.configurations[0][49] = 11), DescriptorError::Configuration);
}

#[test]
fn storage_that_cannot_be_followed_is_not_given_read_only() {
    let read_only = |alter: fn(&mut Vec<u8>)| {
        let mut pinned = pinned(false);
        alter(&mut pinned.configurations[0]);
        Filter::new(Rules::ReadOnly, pinned).err()
    };
    assert_eq!(read_only(|_| {}), None);
    let transport = Some(Error::Unsupported(Unsupported::Transport));
    assert_eq!(read_only(|raw| raw[16] = 0), transport, "CBI");
    assert_eq!(read_only(|raw| raw[15] = 4), transport, "UFI");
    let not = Some(Error::Unsupported(Unsupported::NotStorage));
    assert_eq!(read_only(|raw| raw[14] = 3), not);
    let endpoints = Some(Error::Unsupported(Unsupported::Endpoints));
    assert_eq!(read_only(|raw| raw[21] = 3), endpoints, "an interrupt endpoint");
    assert_eq!(read_only(|raw| raw[27] = 0x82), endpoints, "both from the device");
    let uas = Some(Error::Unsupported(Unsupported::UasOnly));
    assert_eq!(read_only(|raw| raw[16] = 0x62), uas);
    let shared = read_only(|raw| {
        raw[4] = 2;
        raw.extend([9, 4, 1, 0, 1, 0xff, 0, 0, 0, 7, 5, 0x02, 2, 0, 2, 0]);
        raw[2] = raw.len() as u8;
    });
    assert_eq!(shared, endpoints, "another interface writes to the same endpoint");
    let mut floppy = pinned(false);
    floppy.configurations[0][16] = 0;
    assert!(Filter::new(Rules::Allow, floppy).is_ok());
}

#[test]
fn the_descriptors_of_real_devices_are_read_and_their_storage_can_be_given_read_only() {
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../../../../shared/data/usb-descriptors.tsv");
    let Ok(text) = std::fs::read_to_string(path) else {
        return eprintln!("skipped: there is no {path}");
    };
    let (mut devices, mut storage) = (0, 0);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut columns = line.split('\t').skip(1);
        let (name, bytes) = (columns.next().unwrap(), columns.next().unwrap());
        let pinned = hexadecimal(bytes);
        let device = Device::read(&pinned).unwrap_or_else(|error| panic!("{name}: {error}"));
        devices += 1;
        let bulk_only = |one: &crate::descriptors::Setting| (one.class, one.protocol) == (8, 0x50);
        if device.settings().any(bulk_only) {
            storage += 1;
            let filter = Filter::new(Rules::ReadOnly, pinned);
            assert!(filter.is_ok(), "{name}: {filter:?}");
        }
    }
    assert!(devices > 100 && storage > 5, "{devices} devices, {storage} of storage");
    // Of the rows that docs/it/hardware.md tells of.
    if devices == 210 {
        assert_eq!(storage, 9, "docs/it/hardware.md says 9");
    }
}

#[test]
fn an_interface_that_the_kernel_has_no_right_for_is_refused_in_words_unless_the_guest_does_not_get_it()
 {
    // Vendor specific, without endpoints.
    let with = |second: u8| {
        let mut raw = vec![9, 2, 27, 0, 2, 1, 0, 0x80, 50];
        raw.extend([9, 4, 0, 0, 0, 0xff, 0, 0, 0, 9, 4, second, 0, 0, 0xff, 0, 0, 0]);
        Pinned { configurations: vec![raw], ..pinned(false) }
    };
    Filter::new(Rules::Allow, with(31)).unwrap();
    let refused = Filter::new(Rules::Allow, with(32)).unwrap_err();
    assert_eq!(refused, Error::Unsupported(Unsupported::Interface(32)));
    assert!(refused.to_string().contains("interface 32"), "{refused}");
    let rest = crate::Share::Interfaces([0].into());
    Filter::of(Rules::Allow, with(32), rest).unwrap();
}
