//! The daemon's side of USB: audit, words, the list of devices.

use std::path::PathBuf;
use std::sync::Arc;

use monitor::core::Cause;
use monitor::{Denial, MediatorId, MediatorThread, Monitor, Request};
use policy::Policy;
use seat::ToMediators;
use usbhost::{BusId, UsbDevices};

use super::mediator::{Client, Duties, Failure, Place, Rules, Start};
use crate::DaemonError;
use crate::seat::SeatClient;
use crate::worker_resources::WORKER;
use base::layout::Layout;
use base::sockets::SocketEndpoint;
use config::domain_policies;
use config::machine::{DomainHardware, Kind, Machine, Seat};
use control::reports::UsbReport;
use usb::{Command, Domain, DomainWorkers, Setup, USB, Usb, UsbAdmission, UsbEvent, UsbGrant};
use worker_link::user_of_domain;
use workers::Program;

/// The broker, or why there is none.
pub(crate) struct UsbClient {
    usb: Result<Usb, String>,
    list: Vec<UsbReport>,
}

/// Why a domain gets no device without the workers' program.
const NO_PROGRAM: &str = "the program that serves USB devices is missing; call IT";
/// Why a domain gets none for which there is no number.
const NO_USER: &str =
    "only the first 63 domains of a PC get USB devices, and this is none of them; call IT";
/// Why there is no broker any more.
const FAILED: &str = "the USB broker has failed; restart the agent";

impl Start for UsbClient {
    fn sockets(layout: &Layout, entry: &DomainHardware) -> Vec<PathBuf> {
        layout.usb_sockets(&entry.name).collect()
    }

    fn start(_: Place<'_>) -> Result<Self, DaemonError> {
        Ok(Self { usb: Err("the agent has not started".to_owned()), list: Vec::new() })
    }
}

impl Duties for UsbClient {
    /// Starts the broker, which takes the kernel's switches.
    fn activate(&mut self, place: Place<'_>) {
        self.usb = broker(place);
    }

    /// Returns `None`: no hotkey is about devices.
    fn listener(&self) -> Option<Box<dyn Fn(ToMediators) + Send>> {
        None
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

    fn fault(&self, policy: &Policy) -> Option<String> {
        let why = self.problem().filter(|_| !policy.usb().is_empty())?;
        Some(format!("NO USB DEVICE REACHES A DOMAIN: {why}"))
    }
}

impl Client for UsbClient {
    type Command = Command;
    type Event = UsbEvent;
    const ID: MediatorId = USB;
    const FAILURE: Failure = Failure {
        log: "no USB device reaches a domain: the USB broker has failed; restart the agent",
        notice: "USB devices do not work any more.\nCall IT.",
        banner: "USB devices do not work: call IT",
    };

    fn thread(&self) -> Option<&MediatorThread<Command, UsbEvent>> {
        self.usb.as_ref().ok()
    }

    fn thread_mut(&mut self) -> Option<&mut MediatorThread<Command, UsbEvent>> {
        self.usb.as_mut().ok()
    }

    /// Does nothing: no device depends on the screen.
    fn look_at(&mut self, _: &SeatClient) {}

    fn handle(&mut self, event: UsbEvent, seat: Option<&SeatClient>, monitor: &mut Monitor) {
        match (event, seat) {
            (UsbEvent::Note(event), _) => {
                monitor.note(&[event]);
            }
            (UsbEvent::Authorize(request), _) => {
                if let Some(command) = authorize(request, monitor) {
                    self.send(command);
                }
            }
            (UsbEvent::Admit(request), Some(_)) => {
                let command = admit(request, monitor);
                self.send(command);
            }
            (UsbEvent::Notice(socket, words), Some(seat)) => {
                tracing::info!("{}", words.replace('\n', " "));
                seat.notice_of(&socket, words);
            }
            (UsbEvent::Devices(list), Some(_)) => self.list = list,
            // Nothing comes of a verdict now, and nobody is there to be told or shown anything.
            (UsbEvent::Admit(_) | UsbEvent::Notice(..) | UsbEvent::Devices(_), None) => {}
        }
    }

    fn died(&mut self) {
        self.list.clear();
    }

    fn progress(&self) -> Option<&'static str> {
        None
    }
}

impl UsbClient {
    /// Returns why there is no broker, if there is none.
    fn problem(&self) -> Option<&str> {
        match &self.usb {
            Ok(usb) if usb.has_died() => Some(FAILED),
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
        find(&self.list()?, bus_id)
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

/// Returns the device of this bus ID that somebody may attach or take away by hand.
fn find(devices: &[UsbReport], bus_id: &str) -> Result<BusId, String> {
    let id: BusId = bus_id.parse().map_err(|error: usbhost::bus_id::NoBusId| error.to_string())?;
    match devices.iter().find(|device| device.bus_id == bus_id) {
        Some(device) if device.state == "host" && !device.has_rest => {
            Err(format!("{} stays with the host: {}", device.bus_id, device.why))
        }
        Some(_) => Ok(id),
        None => Err(format!("nothing is plugged in at {id}; see `bulkhead usb list`")),
    }
}

/// Starts the broker on a PC with a seat, or whose policy speaks of USB. A PC without one runs on: then no device goes anywhere.
fn broker(place: Place<'_>) -> Result<Usb, String> {
    let Place { machine, layout, policy, worker_resources, .. } = place;
    // What an earlier agent has kept from the host's drivers is given back by nobody else.
    let left = layout.usb_switches().exists();
    if machine.seat == Seat::None && policy.usb().is_empty() && !left {
        return Err("this PC has no seat, and the policy no [[usb]]".to_owned());
    }
    let program = worker_resources.program.as_ref();
    if let Err(error) = program {
        tracing::warn!(
            "no USB device reaches a domain: {error}: install {WORKER} beside bulkhead-agent and restart it"
        );
    }
    let domains = machine.domains.iter().enumerate().map(|(index, entry)| {
        let endpoint = match entry.kind {
            Kind::Vm(_) => SocketEndpoint::Connect,
            Kind::External => SocketEndpoint::Listen,
        };
        Domain {
            name: entry.name.clone(),
            sockets: layout.usb_sockets(&entry.name).map(endpoint).collect(),
            workers: workers(index, program.ok(), worker_resources.group_of(index)),
        }
    });
    let setup = Setup {
        sysfs: UsbDevices::default(),
        switches: layout.usb_switches(),
        domains: domains.collect(),
        policy: Arc::clone(policy),
    };
    let usb = usb::start(setup).map_err(|error| error.to_string());
    if let Err(problem) = &usb {
        tracing::error!("no USB device reaches a domain: {problem}");
    }
    usb
}

/// Returns what serves the devices of the domain at this place among the domains, or why nothing does.
fn workers(
    index: usize,
    program: Option<&Program>,
    group: Option<PathBuf>,
) -> Result<DomainWorkers, &'static str> {
    let user = user_of_domain(index).ok_or(NO_USER)?;
    let program = program.ok_or(NO_PROGRAM)?.clone();
    Ok(DomainWorkers { program: in_cgroup(program, group), user })
}

/// Sets the domain's cgroup for the program, where the clipboard's reader is. What limits that lacks, and why there is none, was said when that was started.
fn in_cgroup(program: Program, group: Option<PathBuf>) -> Program {
    match group {
        Some(group) => program.in_cgroup(group),
        None => program,
    }
}

/// Asks the monitor for the permit of a verdict, and returns what the broker is told. The entry says no more than what the policy gives: nothing has to
/// say that nothing came of it.
fn admit(request: Request<UsbAdmission>, monitor: &mut Monitor) -> Command {
    let number = request.number;
    match monitor.authorize(USB, request) {
        Ok(permit) => Command::Admitted(number, permit),
        Err(refused) => Command::Refused(number, refused.denial),
    }
}

/// Asks the monitor for the permit of an attachment, and returns what the broker is told; `None` if the broker is no more. That what it wanted then does not
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
mod tests;
