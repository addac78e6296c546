//! What a device must be for the filter to take it, and where its storage is.

use crate::bot::Bot;
use crate::control::is_bulk_only;
use crate::descriptors::{DescriptorError, Device, Setting, Share};
use crate::spec::{BULK, MASS_STORAGE, MMC, SCSI, SFF_8070I};
use crate::uas;

/// The verdict on a device, as far as it concerns its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rules {
    /// It may be used.
    Allow,
    /// Storage that may be read. Functions beside the storage may be used.
    ReadOnly,
}

/// Why a device does not go through the filter, and so to no guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Its descriptors make no sense.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    /// They do, but not for what is wanted.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
}

/// What cannot be filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// Read-only of something that stores nothing.
    #[error("only storage can be given read-only; use \"allow\" or \"deny\" for this device")]
    NotStorage,
    /// Storage that is neither Bulk-Only nor SCSI: floppy drives (CBI, UFI) and older.
    #[error(
        "this storage speaks neither Bulk-Only Transport nor SCSI, so its writes cannot be told apart; \
         it can be allowed or denied, not given read-only"
    )]
    Transport,
    /// Storage without Bulk-Only Transport as its first setting.
    #[error(
        "this storage speaks only USB Attached SCSI, which is not offered; use another adapter"
    )]
    UasOnly,
    /// A Bulk-Only interface without a bulk endpoint each way, or one that shares them.
    #[error(
        "this storage has no pair of bulk endpoints of its own: its descriptors are wrong, or it is hostile; \
         an update of its firmware may help"
    )]
    Endpoints,
    /// Storage in a device of which the guest has a part. Before storage is given it is reset, and a reset is the whole device's.
    #[error("this storage is part of a keyboard or mouse, and cannot be given without it")]
    Part,
    /// An interface that the kernel has no right for: usbfs knows those of 32 (`USBDEVFS_DROP_PRIVILEGES`).
    #[error(
        "its interface {0} cannot be given to a desktop: Linux has rights for interfaces up to number {INTERFACE_MAX} only"
    )]
    Interface(u8),
}

/// Highest number of an interface that can be served.
pub const INTERFACE_MAX: u8 = 31;

/// Returns the device as it is for whoever has this of it, UAS taken out.
pub(crate) fn shared(device: Device, share: &Share) -> Result<Device, Unsupported> {
    let device = share.of(device);
    if !share.is_whole() && device.settings().any(|setting| setting.class == MASS_STORAGE) {
        return Err(Unsupported::Part);
    }
    if let Some(beyond) = device.settings().find(|setting| setting.interface > INTERFACE_MAX) {
        return Err(Unsupported::Interface(beyond.interface));
    }
    without_uas(device)
}

/// Takes UAS out of what was read.
fn without_uas(mut device: Device) -> Result<Device, Unsupported> {
    for configuration in &mut device.configurations {
        let hidden = |setting: &Setting| uas::is_hidden(setting.class, setting.protocol);
        // A driver begins with alternate setting 0 (USB 2.0 section 9.2.3), so it has to stay.
        if configuration.settings.iter().any(|setting| hidden(setting) && setting.alternate == 0) {
            return Err(Unsupported::UasOnly);
        }
        let without_zero =
            configuration.settings.iter().filter(|setting| hidden(setting)).any(|setting| {
                !configuration
                    .settings
                    .iter()
                    .any(|other| other.interface == setting.interface && other.alternate == 0)
            });
        if without_zero {
            return Err(Unsupported::UasOnly);
        }
        configuration.settings.retain(|setting| !hidden(setting));
    }
    Ok(device)
}

/// Returns the Bulk-Only interfaces to follow; none unless the rules are read-only.
pub(crate) fn bots(rules: Rules, device: &Device) -> Result<Vec<Bot>, Unsupported> {
    if rules == Rules::Allow {
        return Ok(Vec::new());
    }
    let mut bots: Vec<Bot> = Vec::new();
    for setting in device.settings().filter(|setting| setting.class == MASS_STORAGE) {
        // 8070i floppies and CD drives of old have SCSI's commands in 12 bytes.
        if !is_bulk_only(setting) || ![SCSI, MMC, SFF_8070I].contains(&setting.subclass) {
            return Err(Unsupported::Transport);
        }
        let (input, output, packet) = endpoints(setting).ok_or(Unsupported::Endpoints)?;
        let known = bots.iter().any(|bot| {
            (bot.interface, bot.input, bot.output) == (setting.interface, input, output)
        });
        if !known {
            bots.push(Bot::new(setting.interface, input, output, packet));
        }
    }
    if bots.is_empty() {
        return Err(Unsupported::NotStorage);
    }
    // In no configuration may one of their endpoints be anything else, for a transfer does not say
    // which configuration it means.
    for setting in device.settings() {
        for endpoint in &setting.endpoints {
            let mut owners = bots.iter().filter(|bot| bot.owns(endpoint.address));
            let sole = owners.next();
            let shared = owners.next().is_some();
            let foreign = sole.is_some_and(|bot| {
                setting.class != MASS_STORAGE || setting.interface != bot.interface
            });
            if shared || foreign {
                return Err(Unsupported::Endpoints);
            }
        }
    }
    Ok(bots)
}

/// Returns the IN and OUT endpoint, and the latter's packet size: the first of each, as Linux takes them. Some sticks have an interrupt
/// endpoint besides, from the transport before this one; under read-only nothing passes there (`Admitted::has_endpoint_of`).
fn endpoints(setting: &Setting) -> Option<(u8, u8, u16)> {
    let first = |direction: u8| {
        let mut bulk = setting.endpoints.iter().filter(|one| one.transfer == BULK);
        bulk.find(|one| one.address & 0x80 == direction)
    };
    let (input, output) = (first(0x80)?, first(0)?);
    Some((input.address, output.address, output.max_packet))
}

/// Returns the OUT endpoints on which an allowed device's commands are counted.
pub(crate) fn counted(rules: Rules, device: &Device) -> Vec<u8> {
    if rules == Rules::ReadOnly {
        return Vec::new();
    }
    let storage = device.settings().filter(|setting| is_bulk_only(setting));
    storage.filter_map(|setting| endpoints(setting).map(|(_, output, _)| output)).collect()
}
