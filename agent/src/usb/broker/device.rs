//! A device and what has become of it.

use std::time::Instant;

use policy::decide::Decision;
use usbfilter::Rules;
use usbhost::Found;

use crate::usb::UsbReport;
use crate::usb::attached::Attached;
use crate::usb::identity::Identity;

/// Where a device may go.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) domain: String,
    pub(super) label: String,
    pub(super) rules: Rules,
    pub(super) rule: Option<String>,
    pub(super) why: String,
}

pub(super) enum State {
    /// The host has it, for this reason.
    Host(&'static str),
    Blocked(String),
    Off,
    Recording(u64, Grant),
    Waiting(Grant, Instant),
    Attached(Box<Attached>, Grant),
}

pub(super) struct Device {
    pub(super) found: Found,
    pub(super) identity: Option<Identity>,
    pub(super) state: State,
    pub(super) by_hand: Option<String>,
    pub(super) changes: u32,
    /// Which export its words are of; words of an earlier one are dropped.
    pub(super) generation: u64,
}

impl Device {
    pub(super) fn report(&self) -> UsbReport {
        let (state, grant, why) = match &self.state {
            State::Host(why) => ("host", None, (*why).to_owned()),
            State::Blocked(why) => ("blocked", None, why.clone()),
            State::Off => ("off", None, "taken away by hand".to_owned()),
            State::Recording(_, grant) | State::Waiting(grant, _) => {
                ("waiting", Some(grant), format!("for {}; {}", grant.domain, grant.why))
            }
            State::Attached(_, grant) => ("attached", Some(grant), grant.why.clone()),
        };
        let verdict = grant.map(|grant| match grant.rules {
            Rules::Allow => Decision::Allow.word().to_owned(),
            Rules::ReadOnly => Decision::ReadOnly.word().to_owned(),
        });
        UsbReport {
            bus_id: self.found.bus_id.to_string(),
            name: self.found.name.clone(),
            device: self.identity.as_ref().map(Identity::text).unwrap_or_default(),
            state: state.to_owned(),
            domain: grant.map(|grant| grant.domain.clone()),
            verdict,
            rule: grant.and_then(|grant| grant.rule.clone()),
            why,
        }
    }
}

/// What a device is called on the screen.
pub(super) fn shown(found: &Found) -> &str {
    if found.name.is_empty() { "USB device" } else { &found.name }
}
