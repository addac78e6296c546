//! Where a device is plugged in.

use std::fmt;
use std::str::FromStr;

/// A device's place, as the kernel writes it: `1-4.2` is port 2 of the hub at port 4 of bus 1; `usb1` is the bus itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BusId(String);

impl BusId {
    /// Returns the bus ID as sysfs names the device: `1-2.3`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the hub it is plugged into, and the port there, from 1. A root hub is plugged in nowhere.
    #[must_use]
    pub fn parent(&self) -> Option<(Self, u8)> {
        let (bus, ports) = self.0.split_once('-')?;
        let (hub, port) = match ports.rsplit_once('.') {
            Some((hub, port)) => (format!("{bus}-{hub}"), port),
            None => (format!("usb{bus}"), ports),
        };
        Some((Self(hub), port.parse().ok()?))
    }

    /// Returns the root hub of the bus it is on.
    #[must_use]
    pub fn root(&self) -> Self {
        match self.0.split_once('-') {
            Some((bus, _)) => Self(format!("usb{bus}")),
            None => self.clone(),
        }
    }

    /// Returns whether it is a controller's root hub.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.starts_with("usb")
    }
}

impl fmt::Display for BusId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no [`BusId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no USB device's place; write it as `bulkhead usb list` shows it, such as 1-4.2")]
pub struct NoBusId(String);

impl FromStr for BusId {
    type Err = NoBusId;

    fn from_str(text: &str) -> Result<Self, NoBusId> {
        let number = |text: &str| {
            (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        let legal = match text.strip_prefix("usb") {
            Some(bus) => number(bus),
            None => text.split_once('-').is_some_and(|(bus, ports)| {
                number(bus) && ports.split('.').count() <= 7 && ports.split('.').all(number)
            }),
        };
        if legal {
            Ok(Self(text.to_owned()))
        } else {
            Err(NoBusId(printable::line(text).to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_device_knows_the_hub_and_the_port_it_is_plugged_into() {
        for (device, hub, port) in
            [("1-4", "usb1", 4), ("12-4.2", "12-4", 2), ("1-1.2.13", "1-1.2", 13)]
        {
            let parent = device.parse::<BusId>().unwrap().parent();
            assert_eq!(parent, Some((hub.parse().unwrap(), port)));
        }
        assert_eq!("usb1".parse::<BusId>().unwrap().parent(), None);
    }

    #[test]
    fn places_are_read_as_the_kernel_writes_them_and_lead_nowhere_else() {
        for good in ["usb1", "1-1", "12-4.2", "1-1.2.3.4.5.6.7"] {
            assert_eq!(good.parse::<BusId>().unwrap().as_str(), good);
        }
        for bad in
            ["", "..", "1-", "-1", "1-1/..", "1-1:1.0", "usb", "1-1.", "a-1", "1-1.2.3.4.5.6.7.8"]
        {
            assert!(bad.parse::<BusId>().is_err(), "{bad}");
        }
    }
}
