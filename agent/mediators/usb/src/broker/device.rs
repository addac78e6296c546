//! A device and what has become of it.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use clock::Moment;
use policy::carriage::Limit;
use policy::decide::Decision;
use policy::request::UsbDevice;
use usbdescriptors::Share;
use usbfilter::{Filter, Rules};
use usbhost::Plugged;

use crate::attached::Attached;
use control::reports::UsbReport;
use usbsysfs::Identity;

/// What is said of a device of which the seat keeps a part.
pub(super) const KEPT: &str = "its keyboard or mouse stays with the PC";

/// What is said of one whose keyboard no driver takes, and what to do.
pub(super) const NO_DRIVER: &str = "no driver of this PC takes its keyboard or mouse";
pub(super) const NO_DRIVER_REMEDY: &str = "plug it in again, or use another keyboard";
/// Times the host's drivers are asked to take a keyboard that none has, until it is plugged in again.
pub(super) const OFFERS_MAX: u32 = 4;

/// Where a device may go.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) domain: String,
    pub(super) label: String,
    pub(super) rules: Rules,
    /// What of it goes there.
    pub(super) share: Share,
    pub(super) rule: Option<String>,
    pub(super) why: String,
}

pub(super) enum State {
    /// The host has it, for this reason.
    Host(&'static str),
    Blocked(String),
    Off,
    /// Devices come and go too often where it is: it is not looked at until then.
    Later(Moment),
    /// It is being read; the number of that task.
    Reading(u64),
    /// Somebody takes it away who cannot know yet what it is; the number of the task that finds out.
    Leaving(u64),
    /// The verdict's event is on its way to the disk.
    Recording(u64, Grant),
    /// For its domain, until then.
    Waiting(Grant, Moment),
    /// Its domain takes it, and the event of that is on its way to the disk.
    Joining(u64, Box<Joining>, Grant),
    /// It is served; the number of that task.
    Attached(u64, Box<Attached>, Grant),
}

/// A connection to a VMM over which nothing has gone yet.
pub(super) struct Joining {
    pub(super) path: PathBuf,
    pub(super) stream: UnixStream,
    pub(super) filter: Filter,
}

pub(super) struct Device {
    pub(super) plugged: Plugged,
    pub(super) identity: Option<Identity>,
    pub(super) state: State,
    pub(super) by_hand: Option<String>,
    /// The number of the entry in the log of the request to attach it, until that has ended.
    pub(super) request: Option<u64>,
    /// How often it was another than before; nothing is known of one that was not read yet.
    pub(super) changes: Option<u32>,
    /// The guest has it: its thread has said so.
    pub(super) begun: bool,
    /// It was given to a domain before, since it was plugged in.
    pub(super) joined: bool,
    /// It had no keyboard in it until it was another device: the seat does not take it.
    pub(super) turned: bool,
    /// How often the rest was taken from its guest because the keyboard in it had lost its driver.
    pub(super) driverless: u32,
    /// How often the host's drivers were asked in vain to take the keyboard in it, since one last had it.
    pub(super) offers: u32,
    /// A driver has some of its keyboards and mice, though not all: receivers and switches show interfaces that no driver takes.
    pub(super) driven_in_part: bool,
    /// It waits because the audit log cannot be written.
    pub(super) unrecorded: bool,
}

const fn decision(rules: Rules) -> Decision {
    match rules {
        Rules::Allow => Decision::Allow,
        Rules::ReadOnly => Decision::ReadOnly,
    }
}

impl Device {
    /// One that has just been plugged in, of which nothing is known yet.
    pub(super) fn new(plugged: Plugged) -> Self {
        Self {
            plugged,
            identity: None,
            state: State::Off,
            by_hand: None,
            request: None,
            changes: None,
            begun: false,
            joined: false,
            turned: false,
            driverless: 0,
            offers: 0,
            driven_in_part: false,
            unrecorded: false,
        }
    }

    /// What the seat keeps of a device with a keyboard or mouse and something besides, whatever becomes of the rest.
    pub(super) fn kept(&self) -> Option<Share> {
        let seats = self.identity.as_ref().filter(|_| !self.turned)?.seats_part();
        (!seats.is_empty()).then_some(Share::Interfaces(seats))
    }

    /// What of it the host's input drivers are to have: of a device that is the seat's all that types or points, of another what is kept of it.
    pub(super) fn input(&self) -> Option<Share> {
        if !matches!(self.state, State::Host(_)) {
            return self.kept();
        }
        let all = self.identity.as_ref()?.input_interfaces();
        (!all.is_empty()).then_some(Share::Interfaces(all))
    }

    /// Whether no driver of the host's is asked any more to take the keyboard in it.
    pub(super) fn is_offered_no_more(&self) -> bool {
        self.offers >= OFFERS_MAX
    }

    /// Whether no driver of the host's takes the keyboard in it, and none is asked any more.
    pub(super) fn is_without_driver(&self) -> bool {
        self.is_offered_no_more() && !self.driven_in_part
    }

    pub(super) fn report(&self) -> UsbReport {
        let (state, grant, why) = match &self.state {
            State::Host(_) | State::Off | State::Blocked(_)
                if self.input().is_some() && self.is_without_driver() =>
            {
                ("host", None, format!("{NO_DRIVER}; {NO_DRIVER_REMEDY}"))
            }
            State::Host(why) => ("host", None, (*why).to_owned()),
            State::Blocked(why) if self.kept().is_some() => ("host", None, why.clone()),
            State::Off if self.kept().is_some() => {
                ("host", None, format!("{KEPT}, the rest was taken away by hand"))
            }
            State::Blocked(why) => ("blocked", None, why.clone()),
            State::Off | State::Leaving(_) => ("off", None, "taken away by hand".to_owned()),
            State::Reading(_) => ("reading", None, "it is asked what it is".to_owned()),
            State::Later(_) => (
                "waiting",
                None,
                "devices come and go too often at this socket; in a moment".to_owned(),
            ),
            State::Attached(_, _, grant) if self.begun => {
                ("attached", Some(grant), grant.why.clone())
            }
            State::Waiting(grant, _) if self.unrecorded => {
                ("waiting", Some(grant), "the audit log cannot be written".to_owned())
            }
            State::Recording(_, grant)
            | State::Waiting(grant, _)
            | State::Joining(_, _, grant)
            | State::Attached(_, _, grant) => {
                ("waiting", Some(grant), format!("for {}; {}", grant.domain, grant.why))
            }
        };
        let verdict = grant.map(|grant| decision(grant.rules).word().to_owned());
        UsbReport {
            bus_id: self.plugged.bus_id.to_string(),
            name: self.name().to_owned(),
            device: self.identity.as_ref().map(Identity::text).unwrap_or_default(),
            state: state.to_owned(),
            domain: grant.map(|grant| grant.domain.clone()),
            verdict,
            rule: grant.and_then(|grant| grant.rule.clone()),
            why,
        }
    }

    /// What it calls itself.
    pub(super) fn name(&self) -> &str {
        self.identity.as_ref().map_or("", |identity| &identity.vetted.found().name)
    }

    /// What of it cannot work in the domain that has it, for the screen: a line each.
    pub(super) fn limits(&self, grant: &Grant) -> Vec<String> {
        let Some(identity) = &self.identity else { return Vec::new() };
        let functions = identity.functions_of(&grant.share);
        let device = UsbDevice { functions: &functions, ..identity.description.device() };
        let of = if grant.share == Share::Whole { Limit::of } else { Limit::of_rest };
        let limits = of(&device, decision(grant.rules));
        limits.iter().map(|limit| format!("{limit}.")).collect()
    }

    /// What it is called.
    pub(super) fn called(&self) -> &str {
        if self.name().is_empty() { "USB device" } else { self.name() }
    }

    /// What it is called on the screen. Devices of one model that have no serial number differ in nothing but the port.
    pub(super) fn shown(&self) -> String {
        let serial = self.identity.as_ref().and_then(|one| one.vetted.found().serial.as_ref());
        match serial {
            Some(_) => self.called().to_owned(),
            None => format!("{} (port {})", self.called(), self.plugged.bus_id),
        }
    }

    /// That it has left its domain, and why, for the screen.
    pub(super) fn disconnected(&self, grant: &Grant, why: &str) -> String {
        format!("{} disconnected from {}:\n{why}.", self.shown(), grant.label)
    }
}
