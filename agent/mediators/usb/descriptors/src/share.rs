//! What of a device somebody has: all of it, or some of its interfaces, when the others are another's.

use std::collections::BTreeSet;

use crate::{Device, Setting};

/// What of a device is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Share {
    /// The guest gets the device as it is.
    #[default]
    Whole,
    /// The interfaces with these numbers and nothing else: neither another interface nor what concerns the device as a whole.
    Interfaces(BTreeSet<u8>),
}

/// Why interfaces cannot be had without the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Indivisible {
    /// Choosing a configuration is the device's business as a whole.
    #[error("it has several configurations, and can only be used as a whole")]
    Configurations,
    /// A transfer does not say which interface it means.
    #[error(
        "its functions share an endpoint, which none should; an update of its firmware may help"
    )]
    Endpoint,
    /// The guest would get nothing of it.
    #[error("there is nothing in it that could be used by itself")]
    Nothing,
}

impl Share {
    /// Returns the interfaces of a device with these numbers, if they can be told from the others in whatever is asked of the device.
    ///
    /// # Errors
    /// They cannot.
    pub fn part(device: &Device, numbers: BTreeSet<u8>) -> Result<Self, Indivisible> {
        let [configuration] = device.configurations.as_slice() else {
            return Err(Indivisible::Configurations);
        };
        let share = Self::Interfaces(numbers);
        let (mut given, mut others) = (BTreeSet::new(), BTreeSet::new());
        for setting in &configuration.settings {
            let addresses = if share.has(setting.interface) { &mut given } else { &mut others };
            addresses.extend(setting.endpoints.iter().map(|endpoint| endpoint.address));
        }
        if !given.is_disjoint(&others) {
            return Err(Indivisible::Endpoint);
        }
        let some = configuration.settings.iter().any(|setting| share.has(setting.interface));
        if some { Ok(share) } else { Err(Indivisible::Nothing) }
    }

    /// Returns whether an interface belongs to it.
    #[must_use]
    pub fn has(&self, interface: u8) -> bool {
        match self {
            Self::Whole => true,
            Self::Interfaces(numbers) => numbers.contains(&interface),
        }
    }

    /// Returns whether it is the whole device.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        *self == Self::Whole
    }

    /// Makes a device as it is for whoever has this of it.
    #[must_use]
    pub fn of(&self, mut device: Device) -> Device {
        for configuration in &mut device.configurations {
            configuration.settings.retain(|setting: &Setting| self.has(setting.interface));
        }
        device
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{Configuration, Endpoint};

    fn setting(interface: u8, address: u8) -> Setting {
        let endpoint = Endpoint { address, transfer: 3, max_packet: 8 };
        let (alternate, class, subclass, protocol) = (0, 3, 0, 0);
        Setting { interface, alternate, class, subclass, protocol, endpoints: vec![endpoint] }
    }

    fn device(configurations: &[&[(u8, u8)]]) -> Device {
        let configuration = |(value, settings): (u8, &&[(u8, u8)])| Configuration {
            value,
            settings: settings.iter().map(|(interface, at)| setting(*interface, *at)).collect(),
        };
        let configurations = (1..).zip(configurations).map(configuration).collect();
        let (class, subclass, protocol, vendor, product, version) = (0, 0, 0, 1, 2, 3);
        Device { class, subclass, protocol, vendor, product, version, configurations }
    }

    #[test]
    fn only_interfaces_that_share_nothing_with_the_others_can_be_had_without_them() {
        let part = |configurations: &[&[(u8, u8)]], numbers: &[u8]| {
            Share::part(&device(configurations), numbers.iter().copied().collect())
        };
        let share = part(&[&[(0, 0x81), (1, 0x82)]], &[1]).unwrap();
        assert!(share.has(1) && !share.has(0) && !share.is_whole());
        let seen = share.of(device(&[&[(0, 0x81), (1, 0x82)]]));
        assert_eq!(seen, device(&[&[(1, 0x82)]]));
        let shared = part(&[&[(0, 0x81), (1, 0x81)]], &[1]);
        assert_eq!(shared, Err(Indivisible::Endpoint));
        let several = part(&[&[(1, 0x82)], &[(0, 0x81)]], &[1]);
        assert_eq!(several, Err(Indivisible::Configurations));
        for numbers in [&[][..], &[7]] {
            assert_eq!(part(&[&[(0, 0x81)]], numbers), Err(Indivisible::Nothing));
        }
        assert_eq!(Share::Whole.of(device(&[&[(0, 0x81)]])), device(&[&[(0, 0x81)]]));
    }
}
