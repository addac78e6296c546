//! Holds a device to the descriptors it was admitted with, whenever and however it repeats them.

use usbredir::packet::{
    DeviceConnect, ENDPOINTS, EndpointInfo, EndpointType, Interface, endpoint_address,
};

use usbdescriptors::PinnedDescriptor;

use crate::descriptors::{DescriptorError, Device, Pinned, Setting, Share, kind};
use crate::event::Change;
use crate::shown::shown;
use crate::spec::{HID, MASS_STORAGE};
use crate::uas;

/// Descriptors that only the guest asked for and that are remembered, so that they stay what they were: far more than a driver asks
/// for. Further ones are refused.
const FIRST_SEEN_MAX: usize = 128;

/// The pinned descriptors, and what the guest is shown for them.
#[derive(Debug)]
pub(crate) struct Identity {
    pinned: Pinned,
    /// As read, with what is hidden from the guest.
    whole: Device,
    /// What of it the guest has.
    share: Share,
    /// The configurations without it, by index.
    shown: Vec<Vec<u8>>,
    /// `bConfigurationValue` of the one it is in, where that is known.
    configuration: Option<u8>,
    /// What nobody asked for before it was admitted, as the guest was first told it.
    first_seen: Vec<PinnedDescriptor>,
}

/// How an answer to GET_DESCRIPTOR compares.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    /// It is what was pinned: this is for the guest. `None`: the device's own bytes are.
    Same(Option<Vec<u8>>),
    /// It is the beginning of it, though more was asked for, and cannot be shown so.
    Short,
    /// It cannot be told whether it is, and is not for the guest.
    Refused,
    /// It differs from what was admitted, in this.
    Changed(Change),
}

impl Identity {
    pub(crate) fn new(
        pinned: Pinned,
        whole: Device,
        share: Share,
    ) -> Result<Self, DescriptorError> {
        let shown = pinned.configurations.iter().map(|raw| shown(raw, &share));
        let shown = shown.collect::<Result<_, _>>()?;
        let mut this =
            Self { pinned, whole, share, shown, configuration: None, first_seen: Vec::new() };
        this.configured(None);
        Ok(this)
    }

    /// Takes it that the device is in this configuration now; `None` if that is not certain. One of which the guest has a part stays in its only one.
    pub(crate) fn configured(&mut self, configuration: Option<u8>) {
        let only = self.whole.configurations.first().map(|only| only.value);
        self.configuration = if self.share.is_whole() { configuration } else { only };
    }

    /// Compares the device's and the configurations', read again. The others are compared whenever they pass.
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
        None
    }

    /// Compares what the device answered to a GET_DESCRIPTOR for `asked` bytes.
    pub(crate) fn descriptor(
        &mut self,
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
            _ => return self.other((kind, index, target), asked, answer),
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

    /// Compares an answer that belongs to neither the device nor a configuration.
    fn other(&mut self, place: (u8, u8, u16), asked: u16, answer: &[u8]) -> Compared {
        // Beyond a text's own length some devices send what happens to lie there: another thing each time, and no part of it.
        let length = answer.first().map_or(0, |length| usize::from(*length));
        match answer.get(..length) {
            Some(text) if place.0 == kind::STRING && text.len() < answer.len() => {
                match self.whole_other(place, asked, text) {
                    Compared::Same(None) => Compared::Same(Some(text.to_vec())),
                    compared => compared,
                }
            }
            _ => self.whole_other(place, asked, answer),
        }
    }

    fn whole_other(&mut self, place: (u8, u8, u16), asked: u16, answer: &[u8]) -> Compared {
        let (kind, _, target) = place;
        let changed = Compared::Changed(Change::Descriptor(kind));
        let mut pinned = self
            .pinned
            .others
            .iter()
            .filter(|one| one.answers(place, self.configuration))
            .peekable();
        if pinned.peek().is_some() {
            // In a configuration that is not known it may be what it is in any.
            let due = |one: &PinnedDescriptor| {
                one.bytes
                    .get(..usize::from(asked).min(one.bytes.len()))
                    .is_some_and(|due| due.starts_with(answer))
            };
            return if pinned.any(due) { Compared::Same(None) } else { changed };
        }
        let [interface, _] = target.to_le_bytes();
        let mut settings = self.whole.settings();
        if kind == kind::REPORT
            && settings.any(|one| one.interface == interface && one.class == HID)
        {
            // What the device reports is known before it is admitted, or not at all.
            return Compared::Refused;
        }
        if let Some(first) =
            self.first_seen.iter_mut().find(|one| one.answers(place, self.configuration))
        {
            let both = first.bytes.len().min(answer.len());
            if first.bytes.get(..both) != answer.get(..both) {
                return changed;
            }
            first.bytes.extend_from_slice(answer.get(both..).unwrap_or_default());
            return Compared::Same(None);
        }
        if self.first_seen.len() == FIRST_SEEN_MAX {
            return Compared::Refused;
        }
        let (kind, index, target) = place;
        let configuration = self.configuration;
        self.first_seen.push(PinnedDescriptor {
            configuration,
            kind,
            index,
            target,
            bytes: answer.to_vec(),
        });
        Compared::Same(None)
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
            let ours = self.share.has(interface.number);
            if !ours || !self.whole.settings().any(|one| of(one) == said) {
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
            if owners.peek().is_none() || !self.share.has(endpoint.interface) {
                return false;
            }
            if owners.all(|setting| uas::is_hidden(setting.class, setting.protocol)) {
                *endpoint = EndpointInfo::default();
            }
            true
        })
    }
}
