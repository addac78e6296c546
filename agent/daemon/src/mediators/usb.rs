//! The daemon's side of USB: audit, words, the list of devices.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use monitor::core::Cause;
use monitor::{Denial, MediatorId, Monitor, Request};
use policy::Policy;
use seat::ToMediators;
use usbhost::{BusId, Sysfs};

use super::mediator::{Mediator, Place, Rules, Start};
use crate::seat::SeatClient;
use crate::{DaemonError, record};
use base::layout::Layout;
use base::sockets::SocketEndpoint;
use config::domain_policies;
use config::machine::{DomainHardware, Kind, Machine, Seat};
use control::reports::UsbReport;
use usb::{Command, Setup, Stop, Usb, UsbAdmission, UsbEvent, UsbGrant};

const USB: MediatorId = MediatorId::new("usb");

/// The broker, or why there is none.
pub(crate) struct UsbClient {
    usb: Result<Usb, String>,
    list: Vec<UsbReport>,
    dead: bool,
}

/// Why there is no broker any more.
const FAILED: &str = "the USB broker has failed; restart the agent";

impl Start for UsbClient {
    const ID: MediatorId = USB;

    fn sockets(layout: &Layout, entry: &DomainHardware) -> Vec<PathBuf> {
        layout.usb_sockets(&entry.name).collect()
    }

    fn start(_: Place<'_>) -> Result<Self, DaemonError> {
        Ok(Self { usb: Err("the agent has not started".to_owned()), list: Vec::new(), dead: false })
    }
}

impl Mediator for UsbClient {
    /// Starts the broker, which takes the kernel's switches.
    fn activate(&mut self, place: Place<'_>) {
        self.usb = broker(place);
    }

    /// Returns `None`: no hotkey is about devices.
    fn listener(&self) -> Option<Box<dyn Fn(ToMediators) + Send>> {
        None
    }

    fn probe(&self) {
        if let Ok(usb) = &self.usb {
            usb.probe();
        }
    }

    fn is_responsive(&self) -> bool {
        self.usb.as_ref().map_or(true, Usb::is_responsive)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.usb.as_ref().ok().map(Usb::fd)
    }

    fn process_events(&mut self, seat: &SeatClient, monitor: &mut Monitor) {
        let Ok(usb) = &self.usb else { return };
        // Asked first: what it said last has come by then.
        let dead = usb.is_dead();
        if dead && !self.dead {
            // Before that is heard: nobody is there to use a permit.
            monitor.died(USB);
        }
        for event in usb.events() {
            match event {
                UsbEvent::Admit(request) => usb.send(admit(request, monitor)),
                UsbEvent::Authorize(request) => {
                    if let Some(command) = authorize(request, monitor) {
                        usb.send(command);
                    }
                }
                UsbEvent::Note(event) => {
                    monitor.note(&[event]);
                }
                UsbEvent::Notice(socket, words) => {
                    tracing::info!("{}", words.replace('\n', " "));
                    seat.notice_of(&socket, words);
                }
                UsbEvent::Devices(list) => self.list = list,
            }
        }
        if dead && !self.dead {
            self.dead = true;
            self.list.clear();
            monitor.note(&[record::failed("usb")]);
            tracing::error!("no USB device reaches a domain: {FAILED}");
            seat.notice("USB devices do not work any more.\nCall IT.".to_owned());
        }
    }

    /// Does nothing: the broker asks nobody.
    fn answered(&mut self, _: u64, _: bool) {}

    fn revoke(&mut self, cause: Cause, rules: Rules<'_>) {
        match cause {
            Cause::Policy | Cause::BreakGlass => self.take_rules(rules),
            Cause::Record => self.send(Command::RecordLost),
        }
    }

    fn break_glass_opened(&mut self, rules: Rules<'_>) {
        self.take_rules(rules);
    }

    fn banner_note(&self) -> Option<String> {
        self.dead.then(|| "USB devices do not work: call IT".to_owned())
    }

    fn fault(&self, policy: &Policy) -> Option<String> {
        let why = self.problem().filter(|_| !policy.usb().is_empty())?;
        Some(format!("NO USB DEVICE REACHES A DOMAIN: {why}"))
    }

    /// Takes every device from its domain, and writes down what went to and fro.
    fn stop(&mut self, stop: Stop, monitor: &mut Monitor) {
        let Ok(usb) = &mut self.usb else { return };
        usb.stop(stop);
        if !self.dead {
            monitor.died(USB);
        }
        record_last(usb.events(), monitor);
    }
}

impl UsbClient {
    /// Returns why there is no broker, if there is none.
    fn problem(&self) -> Option<&str> {
        match &self.usb {
            Ok(_) if self.dead => Some(FAILED),
            Ok(_) => None,
            Err(why) => Some(why),
        }
    }

    fn take_rules(&self, rules: Rules<'_>) {
        self.send(Command::Rules(Arc::clone(rules.policy), rules.break_glass));
    }

    fn send(&self, command: Command) {
        if let Ok(usb) = &self.usb {
            usb.send(command);
        }
    }

    pub(crate) fn list(&self) -> Result<Vec<UsbReport>, String> {
        match self.problem() {
            None => Ok(self.list.clone()),
            Some(why) => Err(format!("USB mediation is not running: {why}")),
        }
    }

    fn find(&self, bus_id: &str) -> Result<BusId, String> {
        let id: BusId =
            bus_id.parse().map_err(|error: usbhost::bus_id::NoBusId| error.to_string())?;
        match self.list()?.into_iter().find(|device| device.bus_id == bus_id) {
            Some(device) if device.state == "host" => {
                Err(format!("{} stays with the host: {}", device.bus_id, device.why))
            }
            Some(_) => Ok(id),
            None => Err(format!("nothing is plugged in at {id}; see `bulkhead usb list`")),
        }
    }

    /// Attaches a device by hand, if the policy has a rule for that.
    pub(crate) fn attach(
        &self,
        bus_id: &str,
        domain: &str,
        machine: &Machine,
        request: Option<u64>,
    ) -> Result<(), String> {
        let id = self.find(bus_id)?;
        if !machine.domains.iter().any(|entry| entry.name == domain) {
            let names = machine.domains.iter().map(|entry| entry.name.as_str());
            return Err(domain_policies::no_domain(domain, names));
        }
        self.send(Command::Attach(id, domain.to_owned(), request));
        Ok(())
    }

    /// Takes a device away; it stays off until it is attached by hand or plugged in again.
    pub(crate) fn detach(&self, bus_id: &str, request: Option<u64>) -> Result<(), String> {
        let id = self.find(bus_id)?;
        self.send(Command::Detach(id, request));
        Ok(())
    }
}

/// Starts the broker on a PC with a seat, or whose policy speaks of USB. A PC without one runs on: then no device goes anywhere.
fn broker(place: Place<'_>) -> Result<Usb, String> {
    let Place { machine, layout, policy, .. } = place;
    // What an earlier agent has kept from the host's drivers is given back by nobody else.
    let left = layout.usb_switches().exists();
    if machine.seat == Seat::None && policy.usb().is_empty() && !left {
        return Err("this PC has no seat, and the policy no [[usb]]".to_owned());
    }
    let domains = machine.domains.iter().map(|entry| {
        let endpoint = match entry.kind {
            Kind::Vm(_) => SocketEndpoint::Connect,
            Kind::External => SocketEndpoint::Listen,
        };
        (entry.name.clone(), layout.usb_sockets(&entry.name).map(endpoint).collect())
    });
    let setup = Setup {
        sysfs: Sysfs::default(),
        switches: layout.usb_switches(),
        domains: domains.collect(),
        policy: Arc::clone(policy),
    };
    let usb = Usb::start(setup).map_err(|error| error.to_string());
    if let Err(problem) = &usb {
        tracing::error!("no USB device reaches a domain: {problem}");
    }
    usb
}

/// Records the last events of a broker that is no more: those for the log, and that what it asked for does not happen.
fn record_last(events: Vec<UsbEvent>, monitor: &mut Monitor) {
    for event in events {
        match event {
            UsbEvent::Note(event) => {
                monitor.note(&[event]);
            }
            UsbEvent::Authorize(request) => {
                let _ = authorize(request, monitor);
            }
            // Nothing comes of a verdict now, and nobody is there to be told or shown anything.
            UsbEvent::Admit(_) | UsbEvent::Notice(..) | UsbEvent::Devices(_) => {}
        }
    }
}

/// Has the monitor decide on a verdict, and returns what the broker is told. The entry says no more than what the policy gives: nothing has to
/// say that nothing came of it.
fn admit(request: Request<UsbAdmission>, monitor: &mut Monitor) -> Command {
    let number = request.number;
    match monitor.authorize(USB, request) {
        Ok(permit) => Command::Admitted(number, permit),
        Err(refused) => Command::Refused(number, refused.denial),
    }
}

/// Has the monitor decide on an attachment, and returns what the broker is told; `None` if the broker is no more. That what it wanted then does not
/// happen is written down here.
fn authorize(request: Request<UsbGrant>, monitor: &mut Monitor) -> Option<Command> {
    let number = request.number;
    let (domain, bus_id) = (request.grant.domain.clone(), request.grant.bus_id.to_string());
    match monitor.authorize(USB, request) {
        Ok(permit) => Some(Command::Permitted(number, permit)),
        Err(refused) if refused.denial == Denial::NotRunning => {
            monitor.note(&[usb::not_attached(domain, bus_id, refused.to_string())]);
            None
        }
        Err(refused) => Some(Command::Refused(number, refused.denial)),
    }
}

#[cfg(test)]
mod tests {
    use ::audit::Limits;
    use ::audit::events::UsbJudged;
    use clock::Moment;
    use monitor::{Basis, recorded};
    use policy::decide::Decision;
    use recorder::Recorder;

    use super::*;

    fn grant() -> UsbGrant {
        UsbGrant {
            bus_id: "1-4".parse().unwrap(),
            address: 3,
            domain: "clinical".to_owned(),
            label: "CLINICAL".to_owned(),
            rules: usbfilter::Rules::Allow,
            share: usbdescriptors::Share::Whole,
            rule: None,
            why: String::new(),
        }
    }

    /// A verdict that gives a device to a domain by the policy of this serial.
    fn verdict(number: u64, basis: Basis, decision: Decision) -> Request<UsbAdmission> {
        let grant = grant();
        let event = UsbJudged {
            domain: Some(grant.domain.clone()),
            verdict: recorded(decision),
            rule: None,
            policy: basis.policy,
            break_glass: basis.break_glass,
            bus_id: grant.bus_id.to_string(),
            device: String::new(),
            name: None,
            request: None,
            seat_keeps_interfaces: None,
            to: None,
        };
        let (grant, owed) = (UsbAdmission { grant, basis }, monitor::testing::owed(decision));
        Request { number, basis, owed, event, grant }
    }

    fn kinds(state: &std::path::Path) -> Vec<String> {
        let mut kinds = Vec::new();
        ::audit::each(&recorder::directory(state), |_, entry: ::audit::Entry| {
            kinds.push(entry.kind);
            Ok(())
        })
        .unwrap();
        kinds
    }

    #[test]
    fn a_verdict_permits_by_the_rules_in_force_alone_and_is_on_the_record_whatever_it_permits() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::open(dir.path(), Limits::default());
        let mut monitor = Monitor::new(recorder, 1, &[USB]);
        monitor.started(USB);
        let (plain, allow) = (Basis { policy: 1, break_glass: false }, Decision::Allow);
        let by_break_glass = Basis { break_glass: true, ..plain };
        let verdicts = || kinds(dir.path()).iter().filter(|kind| *kind == "usb").count();
        let mut number = 0;
        let mut denied = |monitor: &mut Monitor, basis, decision| {
            number += 1;
            let before = verdicts();
            let command = admit(verdict(number, basis, decision), monitor);
            let recorded = verdicts() - before;
            match command {
                Command::Admitted(of, permit) if of == number => {
                    assert_eq!((permit.grant().grant.clone(), recorded), (grant(), 1));
                    None
                }
                Command::Refused(of, denial) if of == number => Some((denial, recorded)),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(denied(&mut monitor, plain, allow), None);
        let stale = Some((Denial::Stale, 1));
        assert_eq!(denied(&mut monitor, by_break_glass, allow), stale);
        monitor.enforce(1, Some(Moment::now() + std::time::Duration::from_secs(600)));
        assert_eq!(denied(&mut monitor, by_break_glass, allow), None);
        monitor.enforce(2, None);
        assert_eq!(denied(&mut monitor, plain, allow), stale, "the policy changed meanwhile");
        let in_force = Basis { policy: 2, break_glass: false };
        assert_eq!(denied(&mut monitor, in_force, allow), None);
        let writable = denied(&mut monitor, in_force, Decision::ReadOnly);
        assert_eq!(writable, Some((Denial::Writable, 1)));
        monitor.withhold(Some("the policy cannot be remembered".to_owned()));
        assert_eq!(denied(&mut monitor, in_force, allow), Some((Denial::Unrecorded, 0)));
        monitor.withhold(None);
        monitor.died(USB);
        assert_eq!(denied(&mut monitor, in_force, allow), Some((Denial::NotRunning, 1)));
    }

    #[test]
    fn what_a_broker_wanted_that_died_is_permitted_to_nobody_and_two_entries_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::open(dir.path(), Limits::default());
        let mut monitor = Monitor::new(recorder, 1, &[USB]);
        monitor.started(USB);
        monitor.died(USB);
        let grant = grant();
        let (domain, bus_id) = ("clinical".to_owned(), "1-4".to_owned());
        let event = ::audit::events::UsbAttached { domain, bus_id, request: None };
        let basis = Basis { policy: 1, break_glass: false };
        let owed = monitor::testing::owed(Decision::Allow);
        let request = Request { number: 1, basis, owed, event, grant };
        record_last(vec![UsbEvent::Authorize(request)], &mut monitor);
        let mut told = Vec::new();
        ::audit::each(&recorder::directory(dir.path()), |_, entry: ::audit::Entry| {
            told.push((entry.kind, entry.domain));
            Ok(())
        })
        .unwrap();
        let of = |kind: &str| (kind.to_owned(), Some("clinical".to_owned()));
        assert!(told.ends_with(&[of("usb-attached"), of("usb-detached")]), "{told:?}");
    }
}
