//! Reading descriptors, and what is not taken.

use crate::descriptors::{DescriptorError, Device};
use crate::stick::{DEVICE, configuration, pinned};
use crate::{Error, Filter, Pinned, Rules, Unsupported};

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
    // wTotalLength; an interface too many; a value of 0; a descriptor of no length.
    assert_eq!(refused(|new| new.configurations[0][2] ^= 1), Configuration);
    assert_eq!(refused(|new| new.configurations[0][4] = 2), Configuration);
    assert_eq!(refused(|new| new.configurations[0][5] = 0), Configuration);
    assert_eq!(refused(|new| new.configurations[0][18] = 0), Configuration);
    // An endpoint too few and too many, endpoint 0, one twice; a setting twice.
    assert_eq!(refused(|new| new.configurations[0][13] = 3), Configuration);
    assert_eq!(refused(|new| new.configurations[0][13] = 1), Configuration);
    assert_eq!(refused(|new| new.configurations[0][20] = 0x80), Configuration);
    assert_eq!(refused(|new| new.configurations[0][27] = 0x81), Ambiguous);
    assert_eq!(refused(|new| new.configurations[0][35] = 0), Ambiguous);
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
