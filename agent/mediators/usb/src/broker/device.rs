//! What is plugged in at one place: its life-cycle, and what that has of the system.

use std::collections::BTreeMap;

use audit::events::UsbJudged;
use policy::carriage::Limit;
use policy::decide::Decision;
use policy::request::UsbDevice;
use usbdescriptors::Share;
use usbfilter::Rules;
use usbhost::{BusId, Plugged};

use super::terms::Terms;
use crate::attached::{Attachment, Connection};
use crate::grant::UsbGrant;
use crate::lifecycle::{KEPT, Lifecycle, NO_DRIVER, READ_FOR_LONG, State, UNRECORDED};
use control::reports::UsbReport;
use usbsysfs::Identity;

/// What to do about a keyboard that no driver takes.
pub(super) const NO_DRIVER_REMEDY: &str = "plug it in again, or use another keyboard";

/// What is said of a device that is still in use by what served it last.
const HANGS: &str =
    "what served it last has not let it go: if that lasts, its device hangs; pull it out";

pub(super) struct Device {
    pub(super) id: BusId,
    /// The device that is there, if there is one.
    pub(super) plugged: Option<Plugged>,
    /// What that says it is, once it was read.
    pub(super) identity: Option<Identity>,
    pub(super) lifecycle: Lifecycle,
    /// The entry of the last verdict on it, as if it went to no domain.
    pub(super) verdict: Option<Box<UsbJudged>>,
    /// The terms of what the policy last said of it.
    pub(super) terms: Option<Terms>,
    /// A connection to the VMM that takes it, over which nothing has gone yet.
    pub(super) connection: Option<Connection>,
    /// Its domain was to be connected, and what served it last had not let it go.
    pub(super) hangs: bool,
    /// What it is, or was, served by: whatever is not cut yet, by the number of its task.
    pub(super) attachments: BTreeMap<u64, Attachment>,
}

const fn decision(rules: Rules) -> Decision {
    match rules {
        Rules::Allow => Decision::Allow,
        Rules::ReadOnly => Decision::ReadOnly,
    }
}

impl Device {
    /// Makes a place where nothing is plugged in yet.
    pub(super) fn new(id: BusId) -> Self {
        Self {
            id,
            plugged: None,
            identity: None,
            lifecycle: Lifecycle::default(),
            verdict: None,
            terms: None,
            connection: None,
            hangs: false,
            attachments: BTreeMap::new(),
        }
    }

    /// Returns how it is now; nothing if no device is plugged in.
    pub(super) fn report(&self) -> Option<UsbReport> {
        self.plugged.as_ref()?;
        let life = &self.lifecycle;
        let (state, grant, why) = match life.state() {
            State::Absent | State::Ended => return None,
            State::Host(_) | State::Off | State::Blocked(_)
                if life.input().is_some() && life.is_without_driver() =>
            {
                ("host", None, format!("{NO_DRIVER}; {NO_DRIVER_REMEDY}"))
            }
            State::Host(why) => ("host", None, (*why).to_owned()),
            State::Blocked(why) if life.kept().is_some() => ("host", None, why.clone()),
            State::Off if life.kept().is_some() => {
                ("host", None, format!("{KEPT}, the rest was taken away by hand"))
            }
            State::Blocked(why) => ("blocked", None, why.clone()),
            State::Off | State::Reading { leaving: true, .. } => {
                ("off", None, "taken away by hand".to_owned())
            }
            State::Reading { leaving: false, until: None, .. } => {
                ("reading", None, READ_FOR_LONG.to_owned())
            }
            State::Reading { leaving: false, .. } | State::Judging => {
                ("reading", None, "it is asked what it is".to_owned())
            }
            State::Throttled { .. } => (
                "waiting",
                None,
                "devices come and go too often at this socket; in a moment".to_owned(),
            ),
            State::Attached { begun: true, admitted, .. } => {
                ("attached", Some(admitted.grant()), admitted.grant().why.clone())
            }
            State::Recording { .. } | State::Unadmitted { .. } | State::Waiting { .. }
                if life.is_unrecorded() =>
            {
                ("waiting", life.grant(), UNRECORDED.to_owned())
            }
            State::Waiting { .. } if self.hangs => ("waiting", life.grant(), HANGS.to_owned()),
            State::Recording { .. }
            | State::Unadmitted { .. }
            | State::Waiting { .. }
            | State::Connecting
            | State::Authorizing { .. }
            | State::Attached { .. } => {
                let waits = |grant: &UsbGrant| format!("for {}; {}", grant.domain, grant.why);
                ("waiting", life.grant(), life.grant().map(waits).unwrap_or_default())
            }
        };
        let verdict = grant.map(|grant| decision(grant.rules).word().to_owned());
        Some(UsbReport {
            bus_id: self.id.to_string(),
            name: self.name().to_owned(),
            device: self.identity.as_ref().map(Identity::text).unwrap_or_default(),
            state: state.to_owned(),
            domain: grant.map(|grant| grant.domain.clone()),
            verdict,
            rule: grant.and_then(|grant| grant.rule.clone()),
            why,
            has_rest: life.kept().is_some(),
        })
    }

    /// Returns what it calls itself.
    pub(super) fn name(&self) -> &str {
        self.identity.as_ref().map_or("", |identity| &identity.vetted.found().name)
    }

    /// Returns what of it cannot work in the domain that has it, for the screen: a line each.
    pub(super) fn limits(&self, grant: &UsbGrant) -> Vec<String> {
        let Some(identity) = &self.identity else { return Vec::new() };
        let functions = identity.functions_of(&grant.share);
        let device = UsbDevice { functions: &functions, ..identity.description.device() };
        let of = if grant.share == Share::Whole { Limit::of } else { Limit::of_rest };
        let limits = of(&device, decision(grant.rules));
        limits.iter().map(|limit| format!("{limit}.")).collect()
    }

    /// Returns what it is called.
    pub(super) fn called(&self) -> &str {
        if self.name().is_empty() { "USB device" } else { self.name() }
    }

    /// Returns what it is called on the screen. Devices of one model that have no serial number differ in nothing but the port.
    pub(super) fn shown(&self) -> String {
        let serial = self.identity.as_ref().and_then(|one| one.vetted.found().serial.as_ref());
        match serial {
            Some(_) => self.called().to_owned(),
            None => format!("{} (port {})", self.called(), self.id),
        }
    }
}
