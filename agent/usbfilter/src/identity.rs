//! Holds a device to the descriptors it was admitted with, whenever and however it repeats them.

use usbredir::packet::{
    DeviceConnect, ENDPOINTS, EndpointInfo, EndpointType, Interface, endpoint_address,
};

use crate::descriptors::{DescriptorError, Device, Pinned, Setting, kind};
use crate::event::Change;
use crate::spec::MASS_STORAGE;
use crate::uas;

/// The pinned descriptors, and what the guest is shown for them.
#[derive(Debug)]
pub(crate) struct Identity {
    pinned: Pinned,
    /// As read, with what is hidden from the guest.
    whole: Device,
    /// The configurations without it, by index.
    shown: Vec<Vec<u8>>,
}

/// How an answer to GET_DESCRIPTOR compares.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    /// It is what was pinned: this is for the guest. `None`: the device's own bytes are.
    Same(Option<Vec<u8>>),
    /// It is the beginning of it, though more was asked for, and cannot be shown so.
    Short,
    /// It is not.
    Changed(Change),
}

impl Identity {
    pub(crate) fn new(pinned: Pinned, whole: Device) -> Result<Self, DescriptorError> {
        let shown =
            pinned.configurations.iter().map(|raw| uas::shown(raw)).collect::<Result<_, _>>()?;
        Ok(Self { pinned, whole, shown })
    }

    /// Compares all that was read again.
    pub(crate) fn compare(&self, again: &Pinned) -> Option<Change> {
        if again.device != self.pinned.device {
            return Some(Change::Device);
        }
        if again.configurations.len() != self.pinned.configurations.len() {
            return Some(Change::Configuration(u8::MAX));
        }
        let mut both = (0..).zip(again.configurations.iter().zip(&self.pinned.configurations));
        if let Some((index, _)) = both.find(|(_, (now, then))| now != then) {
            return Some(Change::Configuration(index));
        }
        // Strings and reports may have been read in another order, or not at all this time.
        let changed = again.others.iter().find(|now| {
            self.pinned.others.iter().any(|then| {
                (then.kind, then.index, then.target) == (now.kind, now.index, now.target)
                    && then.bytes != now.bytes
            })
        });
        changed.map(|now| Change::Descriptor(now.kind))
    }

    /// Compares what the device answered to a GET_DESCRIPTOR for `asked` bytes.
    pub(crate) fn descriptor(
        &self,
        (kind, index, target): (u8, u8, u16),
        asked: u16,
        answer: &[u8],
    ) -> Compared {
        let (pinned, shown, change): (&[u8], Option<&[u8]>, Change) = match kind {
            kind::DEVICE => (&self.pinned.device, None, Change::Device),
            kind::CONFIGURATION => {
                let at = usize::from(index);
                match (self.pinned.configurations.get(at), self.shown.get(at)) {
                    (Some(pinned), Some(shown)) => {
                        let other = (pinned != shown).then_some(shown.as_slice());
                        (pinned, other, Change::Configuration(index))
                    }
                    _ => return Compared::Changed(Change::Configuration(index)),
                }
            }
            _ => {
                let same = self
                    .pinned
                    .others
                    .iter()
                    .find(|one| (one.kind, one.index, one.target) == (kind, index, target));
                match same {
                    Some(one) => (&one.bytes, None, Change::Descriptor(kind)),
                    None => return Compared::Same(None),
                }
            }
        };
        let asked = usize::from(asked);
        if !pinned.get(..asked.min(pinned.len())).is_some_and(|due| due.starts_with(answer)) {
            return Compared::Changed(change);
        }
        let Some(shown) = shown else { return Compared::Same(None) };
        if answer.len() < asked.min(pinned.len()) {
            return Compared::Short;
        }
        Compared::Same(Some(shown.get(..asked.min(shown.len())).unwrap_or(shown).to_vec()))
    }

    /// Compares what a device is announced with.
    pub(crate) fn announced(&self, connect: &DeviceConnect) -> bool {
        let whole = &self.whole;
        (connect.class, connect.subclass, connect.protocol)
            == (whole.class, whole.subclass, whole.protocol)
            && (connect.vendor, connect.product) == (whole.vendor, whole.product)
            // 0 if the ends have not agreed on saying it.
            && (connect.version == whole.version || connect.version == 0)
    }

    /// Compares the interfaces, and rewrites those in a setting that is hidden into one that is not.
    pub(crate) fn interfaces(&self, interfaces: &mut [Interface]) -> bool {
        interfaces.iter_mut().all(|interface| {
            let said = (interface.number, interface.class, interface.subclass, interface.protocol);
            let of = |one: &Setting| (one.interface, one.class, one.subclass, one.protocol);
            if !self.whole.settings().any(|one| of(one) == said) {
                return false;
            }
            if uas::is_hidden(interface.class, interface.protocol) {
                let shown = self.whole.settings().find(|one| {
                    one.interface == interface.number
                        && one.class == MASS_STORAGE
                        && !uas::is_hidden(one.class, one.protocol)
                });
                let Some(shown) = shown else { return false };
                (interface.subclass, interface.protocol) = (shown.subclass, shown.protocol);
            }
            true
        })
    }

    /// Compares the endpoints, and takes those away that only hidden settings have.
    pub(crate) fn endpoints(&self, endpoints: &mut [EndpointInfo; ENDPOINTS]) -> bool {
        endpoints.iter_mut().enumerate().all(|(index, endpoint)| {
            let address = endpoint_address(index);
            if endpoint.kind == EndpointType::Invalid {
                return true;
            }
            if address & 0x7f == 0 {
                return endpoint.kind == EndpointType::Control;
            }
            let mut owners = self
                .whole
                .settings()
                .filter(|setting| {
                    setting.interface == endpoint.interface
                        && setting.endpoints.iter().any(|one| {
                            one.address == address && one.transfer == endpoint.kind as u8
                        })
                })
                .peekable();
            if owners.peek().is_none() {
                return false;
            }
            if owners.all(|setting| uas::is_hidden(setting.class, setting.protocol)) {
                *endpoint = EndpointInfo::default();
            }
            true
        })
    }
}
