//! What permits for a USB device allow: that it goes to a domain, and that it is attached to it.

use audit::events::{UsbAttached, UsbJudged};
use monitor::{Basis, Owed, Permit};
use usbdescriptors::Share;
use usbfilter::Rules;
use usbhost::BusId;

/// A device, or a part of one, for one domain: what the policy's verdict says, and what a permit to attach it holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UsbGrant {
    /// Where the device is plugged in.
    pub bus_id: BusId,
    /// Its address on the bus: another device at the same place has another.
    pub address: u8,
    /// The domain that may have it.
    pub domain: String,
    /// What the domain is called on the screen.
    pub label: String,
    /// How the domain may use it.
    pub rules: Rules,
    /// What of it the domain may have.
    pub share: Share,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Why it was decided so, in words.
    pub why: String,
}

impl UsbGrant {
    /// Returns whether another grant gives the same access to the same device, whichever rule gives it.
    #[must_use]
    pub fn gives_the_same_as(&self, other: &Self) -> bool {
        let access = |one: &Self| (one.bus_id.clone(), one.address, one.domain.clone());
        access(self) == access(other) && self.rules == other.rules && self.share == other.share
    }
}

impl monitor::Grant for UsbGrant {
    type Event = UsbAttached;
    type Owed = Owed;

    fn is_read_only(&self) -> bool {
        self.rules == Rules::ReadOnly
    }
}

/// What a verdict gives: its device waits for its domain, and is connected to it whenever that takes it. Attaching it takes a permit for the
/// [`UsbGrant`] besides, each time.
#[derive(Debug)]
pub struct UsbAdmission {
    /// What the device is to have in its domain.
    pub grant: UsbGrant,
    /// The rules of the verdict, which its entry names.
    pub basis: Basis,
}

impl monitor::Grant for UsbAdmission {
    type Event = UsbJudged;
    type Owed = Owed;

    fn is_read_only(&self) -> bool {
        self.grant.is_read_only()
    }
}

/// A verdict that is on the disk. Its permit was given up for it, so that there is one for each permit: it goes on with its device, and is
/// dropped with its record or, unless the device is attached by it and may stay so, with its rules.
#[derive(Debug, PartialEq, Eq, Hash)]
// The exhaustive check takes each of its states up more than once.
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Admitted {
    grant: UsbGrant,
    basis: Basis,
}

impl Admitted {
    /// Gives a permit up for what it permits.
    pub(crate) fn by(permit: Permit<UsbAdmission>) -> Self {
        let UsbAdmission { grant, basis } = permit.into_grant();
        Self { grant, basis }
    }

    /// Returns what the device is to have, or has, in its domain.
    pub(crate) const fn grant(&self) -> &UsbGrant {
        &self.grant
    }

    /// Returns the rules of the verdict.
    pub(crate) const fn basis(&self) -> Basis {
        self.basis
    }

    /// Counts as a verdict of these rules from now on.
    #[cfg(test)]
    pub(crate) fn set_basis(&mut self, basis: Basis) {
        self.basis = basis;
    }
}
